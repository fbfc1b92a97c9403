-- What `agent2389 fsck` reads. One function for each group of invariants; each takes the tenant and
-- returns one row for each problem. A problem with an age may still go away by itself: the caller
-- decides by `patience` seconds whether it is settling or a violation.

CREATE TYPE agent2389.problem AS (
    invariant text, subject text, message text, age double precision, patience double precision
);

-- A task is over when nothing follows from it any more; a completed one, once its result stands.
CREATE FUNCTION agent2389.is_over(task agent2389.tasks) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT task.state IN ('verified', 'cancelled', 'dead', 'expired')
        OR (task.state = 'completed' AND EXISTS (SELECT FROM agent2389.results r
            WHERE r.tenant = task.tenant AND r.task_id = task.task_id AND r.standing = 'current'))
$$;

-- I1, I2, I3 of jobs, I8.
CREATE FUNCTION agent2389.fsck_jobs(t text) RETURNS SETOF agent2389.problem
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT 'I1', e.job_id, 'was accepted and is gone', NULL::float8, NULL::float8 FROM agent2389.events e
    WHERE e.tenant = t AND e.type = 'job.accepted'
        AND NOT EXISTS (SELECT FROM agent2389.jobs j WHERE j.tenant = t AND j.job_id = e.job_id)
        AND NOT EXISTS (SELECT FROM agent2389.tombstones g WHERE g.tenant = t AND g.job_id = e.job_id)
    UNION ALL
    SELECT 'I1', o.job_id, 'has an accepted receipt and is no job', NULL, NULL FROM agent2389.outbox o
    WHERE o.tenant = t AND o.kind = 'receipt' AND o.body::jsonb ->> 'verdict' = 'accepted'
        AND NOT EXISTS (SELECT FROM agent2389.jobs j WHERE j.tenant = t AND j.job_id = o.job_id)
        AND NOT EXISTS (SELECT FROM agent2389.tombstones g WHERE g.tenant = t AND g.job_id = o.job_id)
    UNION ALL
    SELECT 'I3', j.job_id, 'ended as ' || j.state || ' without a result', NULL, NULL FROM agent2389.jobs j
    WHERE j.tenant = t AND j.state <> 'open'
        AND NOT EXISTS (SELECT FROM agent2389.job_results r WHERE r.tenant = t AND r.job_id = j.job_id)
    UNION ALL
    SELECT 'I3', r.job_id, 'has the result ' || r.state || ' and is ' || coalesce(j.state, 'no job'), NULL, NULL
    FROM agent2389.job_results r LEFT JOIN agent2389.jobs j USING (tenant, job_id)
    WHERE r.tenant = t AND r.state IS DISTINCT FROM j.state
        AND NOT EXISTS (SELECT FROM agent2389.tombstones g WHERE g.tenant = t AND g.job_id = r.job_id)
    UNION ALL
    SELECT CASE WHEN c.open = 0 THEN 'I2' ELSE 'I8' END, j.job_id, CASE WHEN c.open = 0
        THEN 'is open and no task of it is: it would never end'
        ELSE 'counts ' || j.open_tasks || ' open tasks and has ' || c.open END, NULL, NULL
    FROM agent2389.jobs j CROSS JOIN LATERAL (SELECT count(*) FILTER (WHERE NOT agent2389.is_over(x)) AS open
        FROM agent2389.tasks x WHERE x.tenant = t AND x.job_id = j.job_id) c
    WHERE j.tenant = t AND j.open_tasks <> c.open
    UNION ALL
    SELECT 'I2', x.task_id, 'awaits a verdict that nobody is to give', NULL, NULL FROM agent2389.tasks x
    WHERE x.tenant = t AND x.state = 'completed' AND x.held IS NOT NULL AND x.deadline > clock_timestamp()
        AND NOT EXISTS (SELECT FROM agent2389.tasks v WHERE v.tenant = t AND v.job_id = x.job_id
            AND v.verifies = x.task_id AND agent2389.is_open(v))
    UNION ALL
    SELECT 'I8', x.job_id, count(*) || ' tasks stand in slot ' || x.slot || ' after '
        || coalesce('task ' || x.parent_task, 'the submission'), NULL, NULL
    FROM agent2389.tasks x WHERE x.tenant = t
    GROUP BY x.job_id, x.parent_task, x.slot HAVING count(*) > 1
$$;

-- I3 of tasks, I4, I5, I6, I9, I11.
CREATE FUNCTION agent2389.fsck_tasks(t text) RETURNS SETOF agent2389.problem
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH granted AS MATERIALIZED (
        SELECT e.task_id, (e.data ->> 'epoch')::integer AS epoch, e.agent_id, e.at, e.id
        FROM agent2389.events e
        WHERE e.tenant = t AND e.type = 'task.claimed' AND e.data ? 'epoch'
    ), used AS MATERIALIZED (
        SELECT g.task_id, g.epoch, g.id FROM granted g
        UNION ALL
        -- An assignment that was acknowledged is a claim of the same epoch.
        SELECT e.task_id, (e.data ->> 'epoch')::integer, e.id FROM agent2389.events e
        WHERE e.tenant = t AND e.type = 'task.assigned' AND e.data ? 'epoch' AND NOT EXISTS (SELECT FROM granted g
            WHERE g.task_id = e.task_id AND g.epoch = (e.data ->> 'epoch')::integer)
        UNION ALL
        -- Who answers without owning the task, a person or a foreign agent, takes the last epoch.
        SELECT r.task_id, r.epoch, NULL FROM agent2389.results r JOIN agent2389.tasks x USING (tenant, task_id)
        WHERE r.tenant = t AND r.incarnation IS NULL AND r.standing = 'current'
            AND (r.outcome = 'answered' OR r.agent_id = x.bound_agent)
    ), standing AS MATERIALIZED (
        SELECT r.task_id, count(*) FILTER (WHERE r.standing = 'current') AS current,
            count(*) FILTER (WHERE r.standing = 'proposed') AS proposed
        FROM agent2389.results r WHERE r.tenant = t GROUP BY r.task_id
    )
    SELECT 'I3', x.task_id, 'is ' || x.state || ' and has ' || coalesce(s.current, 0) || ' current results',
        NULL::float8, NULL::float8
    FROM agent2389.tasks x LEFT JOIN standing s USING (task_id)
    WHERE x.tenant = t AND coalesce(s.current, 0) > 1
        OR x.tenant = t AND x.state = 'verified' AND coalesce(s.current, 0) <> 1
        OR x.tenant = t AND x.state = 'completed' AND coalesce(s.current + s.proposed, 0) = 0
        OR x.tenant = t AND x.state NOT IN ('completed', 'verified') AND coalesce(s.current, 0) > 0
    UNION ALL
    SELECT 'I4', r.task_id, 'has a result of epoch ' || r.epoch || ' by ' || coalesce(r.agent_id, 'nobody')
        || ', who was never given it', NULL, NULL
    FROM agent2389.results r WHERE r.tenant = t AND r.incarnation IS NOT NULL AND NOT EXISTS (
        SELECT FROM granted g WHERE g.task_id = r.task_id AND g.epoch = r.epoch AND g.agent_id = r.agent_id)
    UNION ALL
    SELECT 'I4', r.task_id, 'took a result of epoch ' || r.epoch || ' after epoch ' || g.epoch || ' was given',
        NULL, NULL
    FROM agent2389.results r JOIN granted g ON g.task_id = r.task_id AND g.epoch = r.epoch + 1
    WHERE r.tenant = t AND r.incarnation IS NOT NULL AND r.standing <> 'refused' AND r.at > g.at
    UNION ALL
    SELECT 'I5', x.task_id, 'stands at epoch ' || x.epoch || ' and was given epochs '
        || coalesce(string_agg(u.epoch::text, ', ' ORDER BY u.id NULLS LAST), 'none'), NULL, NULL
    FROM agent2389.tasks x LEFT JOIN used u USING (task_id) WHERE x.tenant = t
    GROUP BY x.task_id, x.epoch
    HAVING coalesce(array_agg(u.epoch ORDER BY u.id NULLS LAST) FILTER (WHERE u.epoch IS NOT NULL), '{}')
        <> ARRAY(SELECT generate_series(1, x.epoch))
    UNION ALL
    SELECT 'I6', x.task_id, 'is ' || x.state || ' and needs owner, lease and token exactly when owned', NULL, NULL
    FROM agent2389.tasks x WHERE x.tenant = t AND (
        (x.state IN ('assigned', 'acked', 'in_progress')) <> (x.owner_incarnation IS NOT NULL)
        OR (x.owner_incarnation IS NULL) <> (x.lease_until IS NULL)
        OR (x.owner_incarnation IS NULL) <> (x.token_hash IS NULL))
    UNION ALL
    SELECT 'I9', x.task_id, 'is ' || x.state || ' and nothing says how it came to be', NULL, NULL
    FROM agent2389.tasks x WHERE x.tenant = t AND (
        NOT EXISTS (SELECT FROM agent2389.transitions s WHERE x.state IN (s.before, s.after))
        OR x.state IN ('cancelled', 'dead', 'expired') AND NOT EXISTS (SELECT FROM agent2389.events e
            WHERE e.tenant = t AND e.job_id = x.job_id AND e.task_id = x.task_id AND e.type = 'task.' || x.state))
    UNION ALL
    SELECT 'I9', e.task_id, 'ended (' || e.type || ') and was given out afterwards', NULL, NULL
    FROM agent2389.events e JOIN granted g ON g.task_id = e.task_id AND g.id > e.id
    WHERE e.tenant = t AND e.type IN ('task.cancelled', 'task.dead', 'task.expired')
    UNION ALL
    SELECT 'I11', x.task_id, format('is at hop %s of %s, attempt %s of %s, crash %s of %s',
        x.hop, j.max_hops, x.attempt, x.max_attempts, x.crashes, x.max_crashes), NULL, NULL
    FROM agent2389.tasks x JOIN agent2389.jobs j USING (tenant, job_id) WHERE x.tenant = t
        -- A verification is no hop of the way: it stands one beyond what it judges.
        AND (x.hop > j.max_hops + (x.verifies IS NOT NULL)::integer
            OR x.attempt > x.max_attempts OR x.crashes > x.max_crashes)
$$;

-- I7, I10.
CREATE FUNCTION agent2389.fsck_limits(t text) RETURNS SETOF agent2389.problem
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT 'I7', x.task_id, 'is owned and its job ended', NULL::float8, NULL::float8
    FROM agent2389.tasks x JOIN agent2389.jobs j USING (tenant, job_id)
    WHERE x.tenant = t AND x.owner_incarnation IS NOT NULL AND j.state <> 'open'
    UNION ALL
    -- Both events are written under the lock of the job, so their numbers have the order of the commits.
    SELECT 'I7', e.task_id, 'completed after its job was told to cancel', NULL, NULL
    FROM agent2389.events e JOIN agent2389.events c ON c.tenant = t AND c.job_id = e.job_id
        AND c.type = 'job.cancel_requested' AND c.id < e.id
    WHERE e.tenant = t AND e.type = 'task.completed'
    UNION ALL
    SELECT 'I10', j.job_id, 'spent ' || j.cost_usd || ' USD of ' || (j.budget ->> 'cost_usd'), NULL, NULL
    -- One call may pass the limit; of an attempt that left no result only the journal knows what it cost.
    FROM agent2389.jobs j LEFT JOIN (SELECT e.job_id, max(e.cost_usd) AS usd FROM agent2389.effects e
        WHERE e.tenant = t GROUP BY e.job_id) dearest USING (job_id)
    WHERE j.tenant = t AND j.cost_usd > (j.budget ->> 'cost_usd')::numeric + greatest(dearest.usd,
        (SELECT max((r.usage ->> 'cost_usd')::numeric) FROM agent2389.results r
            WHERE r.tenant = t AND r.job_id = j.job_id), 0)
$$;

-- I13 inside the ledger: the rows of the board against the tasks and results they stand for.
CREATE FUNCTION agent2389.fsck_board(t text) RETURNS SETOF agent2389.problem
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH waiting AS (
        SELECT x.*, row_number() OVER (PARTITION BY x.pool ORDER BY x.rank, x.seq) AS place
        FROM agent2389.tasks x WHERE x.tenant = t AND x.state = 'queued' AND x.run_after <= clock_timestamp()
    ), gone AS MATERIALIZED (
        -- Tasks that waited until lately. Whoever stood behind them may just have moved into the first hundred.
        SELECT x.pool, count(*) AS tasks, max(greatest(x.claimed_at, x.finished_at, x.paused_at)) AS at
        FROM agent2389.tasks x WHERE x.tenant = t AND NOT (x.state = 'queued' AND x.run_after <= clock_timestamp())
            AND greatest(x.claimed_at, x.finished_at, x.paused_at) > clock_timestamp() - interval '150 seconds'
        GROUP BY x.pool
    ), wanted AS MATERIALIZED (
        SELECT 'open' AS kind, ARRAY[w.pool, w.task_id, w.epoch::text] AS key, NULL::text AS payload,
            greatest(w.queued_at, w.run_after, CASE WHEN w.place + g.tasks > 100 THEN g.at END) AS since
        FROM waiting w LEFT JOIN gone g USING (pool) WHERE w.place <= 100
        UNION ALL
        SELECT 'approval', ARRAY[p.approval_id], NULL, p.asked_at FROM agent2389.approvals p
        WHERE p.tenant = t AND p.state = 'pending'
        UNION ALL
        SELECT 'claim', ARRAY[x.task_id, x.epoch::text], NULL, x.claimed_at FROM agent2389.tasks x
        WHERE x.tenant = t AND x.state IN ('assigned', 'acked', 'in_progress')
        UNION ALL
        SELECT 'result', ARRAY[r.job_id], r.payload, r.at FROM agent2389.job_results r
        WHERE r.tenant = t AND r.at > clock_timestamp() - interval '1 hour'
    ), shown AS MATERIALIZED (
        SELECT b.kind, b.key, b.payload, b.changed_at AS since FROM agent2389.board b
        WHERE b.tenant = t AND b.payload IS NOT NULL AND (b.kind <> 'result' OR NOT EXISTS (
            -- Retention takes it away within minutes of its hour.
            SELECT FROM agent2389.job_results r WHERE r.tenant = t AND r.job_id = b.key[1]
                AND r.at <= clock_timestamp() - interval '1 hour'))
    )
    SELECT 'I13', kind || ' ' || array_to_string(key, '/'), CASE
            WHEN s.key IS NULL THEN 'is not on the board'
            WHEN w.key IS NULL THEN 'is on the board and does not stand in the ledger'
            ELSE 'shows another payload than the ledger' END,
        extract(epoch FROM clock_timestamp() - greatest(w.since, s.since))::float8, 150
    FROM wanted w FULL JOIN shown s USING (kind, key)
    WHERE s.key IS NULL OR w.key IS NULL OR w.payload IS NOT NULL AND w.payload <> s.payload
$$;

-- I15, I16, I17 and the guards themselves.
CREATE FUNCTION agent2389.fsck_house(t text) RETURNS SETOF agent2389.problem
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT 'I15', c.relname::text, 'does not force row-level security', NULL::float8, NULL::float8
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant' AND NOT a.attisdropped
    WHERE c.relnamespace = 'agent2389'::regnamespace AND c.relkind = 'r' AND NOT (c.relrowsecurity AND c.relforcerowsecurity)
    UNION ALL
    SELECT 'I15', r.rolname::text, 'is a superuser or bypasses row-level security', NULL, NULL FROM pg_roles r
    WHERE r.rolname IN ('agent2389_owner', 'agent2389_upkeep') AND (r.rolsuper OR r.rolbypassrls)
    UNION ALL
    SELECT 'I15', r.task_id, 'has a result and is no task of this tenant', NULL, NULL FROM agent2389.results r
    WHERE r.tenant = t AND NOT EXISTS (SELECT FROM agent2389.tasks x
        WHERE x.tenant = t AND x.task_id = r.task_id AND x.job_id = r.job_id)
    UNION ALL
    SELECT 'I9', g.tgrelid::regclass || ' ' || g.tgname, 'is a guard that is switched off', NULL, NULL
    FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid
    WHERE c.relnamespace = 'agent2389'::regnamespace AND NOT g.tgisinternal AND g.tgenabled IN ('D', 'R')
    UNION ALL
    SELECT 'I16', place || ' ' || name, 'shows what looks like a secret', NULL, NULL FROM (
        SELECT 'event' AS place, e.id::text AS name, e.data::text AS content FROM agent2389.events e WHERE e.tenant = t
        UNION ALL
        SELECT 'task', x.task_id, x.error::text FROM agent2389.tasks x WHERE x.tenant = t AND x.error IS NOT NULL
        UNION ALL
        SELECT 'agent', a.incarnation, a.metadata::text FROM agent2389.agents a WHERE a.tenant = t) said
    WHERE content ~ '(\msk-[A-Za-z0-9_-]{20,}|\mAKIA[0-9A-Z]{16}\M|-----BEGIN [A-Z ]*PRIVATE KEY|[Bb]earer [A-Za-z0-9._~+/-]{20,}|\m(postgres|postgresql|mqtts?)://[^:/@\s]+:[^@\s]+@)'
    UNION ALL
    SELECT 'I17', o.kind || ' ' || o.id, 'is not sent', extract(epoch FROM clock_timestamp() - o.created_at)::float8, 60
    FROM agent2389.outbox o WHERE o.tenant = t
    UNION ALL
    SELECT 'I17', b.kind || ' ' || array_to_string(b.key, '/'), 'is not sent',
        extract(epoch FROM clock_timestamp() - b.changed_at)::float8, 150
    FROM agent2389.board b WHERE b.tenant = t AND b.sent_version IS DISTINCT FROM b.version
        AND (b.payload IS NOT NULL OR b.on_wire)
    UNION ALL
    -- Nothing is wrong yet with work that goes on; it only says that it is too early to judge.
    SELECT 'I2', j.job_id, 'is still open', 0, 1 FROM agent2389.jobs j WHERE j.tenant = t AND j.state = 'open'
        AND EXISTS (SELECT FROM agent2389.tasks x WHERE x.tenant = t AND x.job_id = j.job_id
            AND x.state NOT IN ('waiting', 'escalated', 'completed', 'verified', 'cancelled', 'dead', 'expired'))
$$;

-- I12: what must never happen twice is in the journal once for each key.
CREATE FUNCTION agent2389.fsck_effects(t text) RETURNS SETOF agent2389.problem
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT 'I12', e.task_id, 'made the unsafe call ' || min(e.name) || ' ' || count(*) || ' times', NULL::float8, NULL::float8
    FROM agent2389.effects e
    WHERE e.tenant = t AND e.repeat = 'unsafe' AND NOT e.reused AND e.state <> 'void'
    GROUP BY e.task_id, e.key HAVING count(*) > 1
$$;

-- One group of checks for the caller's tenant: at most `most` problems of each invariant; the first
-- stands for those that are not told. Every row is looked at anyway, and a database without statistics (just
-- restored, or after a crash) would nest loops over all of them: 85 s for 5,000 jobs instead of 1.5 (measured).
CREATE FUNCTION agent2389_v1.fsck(what text, most integer) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_nestloop = off AS $$
DECLARE
    t text := agent2389.current_tenant();
    answer jsonb;
BEGIN
    WITH problems AS (
        SELECT f.*, row_number() OVER kind AS n, count(*) OVER (PARTITION BY f.invariant, f.age < f.patience) AS all_of_it
        FROM (
            SELECT * FROM agent2389.fsck_jobs(t) WHERE what = 'jobs'
            UNION ALL SELECT * FROM agent2389.fsck_tasks(t) WHERE what = 'tasks'
            UNION ALL SELECT * FROM agent2389.fsck_limits(t) WHERE what = 'limits'
            UNION ALL SELECT * FROM agent2389.fsck_effects(t) WHERE what = 'effects'
            UNION ALL SELECT * FROM agent2389.fsck_board(t) WHERE what = 'board'
            UNION ALL SELECT * FROM agent2389.fsck_house(t) WHERE what = 'house') f
        WINDOW kind AS (PARTITION BY f.invariant, f.age < f.patience ORDER BY f.age DESC NULLS FIRST, f.subject))
    SELECT coalesce(jsonb_agg(to_jsonb(problems) - '{n,all_of_it}'::text[] || jsonb_build_object('times',
        CASE n WHEN 1 THEN greatest(all_of_it - most, 0) + 1 ELSE 1 END) ORDER BY invariant, n), '[]')
    INTO answer FROM problems WHERE n <= most;
    RETURN answer;
END $$;

-- What the broker must hold of this tenant, and since when.
CREATE FUNCTION agent2389_v1.fsck_retained() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object('kind', b.kind, 'key', b.key, 'payload', b.payload,
        'age', extract(epoch FROM clock_timestamp() - b.changed_at))), '[]')
    FROM agent2389.board b WHERE b.tenant = agent2389.current_tenant() AND b.payload IS NOT NULL
$$;

-- The legal steps as this database knows them.
CREATE FUNCTION agent2389_v1.fsck_transitions() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_array(before, after)), '[]') FROM agent2389.transitions
$$;

-- Everything that can be set right without guessing; returns how often each was done.
CREATE FUNCTION agent2389_v1.fsck_repair() RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t text := agent2389.current_tenant();
    job agent2389.jobs;
    open_now integer;
    last text;
    recounted integer := 0;
    ended integer := 0;
    shown integer;
    freed integer;
BEGIN
    FOR job IN SELECT j.* FROM agent2389.jobs j WHERE j.tenant = t AND j.state = 'open' ORDER BY j.job_id FOR UPDATE
    LOOP
        SELECT count(*) FILTER (WHERE NOT agent2389.is_over(x)), max(x.task_id) FILTER (WHERE x.hop = (
            SELECT max(y.hop) FROM agent2389.tasks y WHERE y.tenant = t AND y.job_id = job.job_id))
        INTO open_now, last FROM agent2389.tasks x WHERE x.tenant = t AND x.job_id = job.job_id;
        IF open_now = 0 AND last IS NOT NULL THEN
            PERFORM agent2389.close_job(t, job.job_id, last, job.open_tasks, 0);
            ended := ended + 1;
        ELSIF open_now > 0 AND open_now <> job.open_tasks THEN
            UPDATE agent2389.jobs SET open_tasks = open_now WHERE tenant = t AND job_id = job.job_id;
            recounted := recounted + 1;
        END IF;
    END LOOP;
    INSERT INTO agent2389.board AS b (tenant, kind, key, payload)
    SELECT t, 'result', ARRAY[r.job_id], r.payload FROM agent2389.job_results r
    WHERE r.tenant = t AND r.at > clock_timestamp() - interval '1 hour'
    ON CONFLICT (tenant, kind, key) DO UPDATE
        SET payload = EXCLUDED.payload, version = b.version + 1, changed_at = clock_timestamp()
        WHERE b.payload IS DISTINCT FROM EXCLUDED.payload;
    GET DIAGNOSTICS shown = ROW_COUNT;
    UPDATE agent2389.outbox SET lease_until = NULL WHERE tenant = t AND lease_until IS NOT NULL;
    GET DIAGNOSTICS freed = ROW_COUNT;
    RETURN jsonb_build_object('jobs_recounted', recounted, 'jobs_ended', ended, 'results_shown', shown,
        'deliveries_freed', freed);
END $$;

-- For each task whose owner died: when it was claimed, by whom, when it was noticed and claimed again.
CREATE FUNCTION agent2389_v1.recoveries(since timestamptz) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH steps AS (
        SELECT e.task_id, e.agent_id, e.type, e.at, e.data,
            lag(e.at) OVER w AS before_at, lag(e.type) OVER w AS before_type,
            lead(e.at) OVER w AS after_at, lead(e.type) OVER w AS after_type
        FROM agent2389.events e WHERE e.tenant = agent2389.current_tenant() AND e.at >= since
            AND e.type IN ('task.claimed', 'task.lease_expired')
        WINDOW w AS (PARTITION BY e.job_id, e.task_id ORDER BY e.id))
    SELECT coalesce(jsonb_agg(jsonb_build_object('task_id', task_id, 'agent_id', agent_id,
        'claimed_at', extract(epoch FROM before_at), 'noticed_at', extract(epoch FROM at),
        'claimed_again_at', extract(epoch FROM after_at))), '[]')
    FROM steps WHERE type = 'task.lease_expired' AND before_type = 'task.claimed'
        AND (after_type IS NULL OR after_type = 'task.claimed')
$$;

-- How often each kind of event was written: refused writes, retries, crashes.
CREATE FUNCTION agent2389_v1.event_counts() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_object_agg(type, n), '{}') FROM (
        SELECT type, count(*) AS n FROM agent2389.events
        WHERE tenant = agent2389.current_tenant() GROUP BY type) counted
$$;

-- The newest links of the sealed chain, oldest first: what people did, and how jobs ended.
CREATE FUNCTION agent2389_v1.audit(before_number bigint, most integer) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object('number', e.number, 'at', agent2389.zulu(e.at), 'type', e.type,
        'job_id', e.job_id, 'task_id', e.task_id, 'data', e.data, 'hash', e.hash) ORDER BY e.number), '[]')
    FROM (SELECT * FROM agent2389.events WHERE tenant = agent2389.current_tenant() AND hash IS NOT NULL
        AND (before_number IS NULL OR number < before_number) ORDER BY number DESC LIMIT most) e
$$;

REVOKE ALL ON FUNCTION
    agent2389.is_over, agent2389.fsck_jobs, agent2389.fsck_tasks, agent2389.fsck_limits, agent2389.fsck_effects,
    agent2389.fsck_board,
    agent2389.fsck_house, agent2389_v1.fsck, agent2389_v1.fsck_retained, agent2389_v1.fsck_repair,
    agent2389_v1.fsck_transitions, agent2389_v1.recoveries, agent2389_v1.event_counts,
    agent2389_v1.audit
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    agent2389_v1.fsck, agent2389_v1.fsck_retained, agent2389_v1.fsck_repair, agent2389_v1.fsck_transitions,
    agent2389_v1.recoveries, agent2389_v1.event_counts, agent2389_v1.audit
    TO agent2389_operator;
