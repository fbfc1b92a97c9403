-- What agents ask for before they work: register, beat, claim.

CREATE FUNCTION agent2389_v1.register(agent jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t text := agent2389.current_tenant();
    names text[] := ARRAY(SELECT jsonb_array_elements_text(agent -> 'capabilities'));
BEGIN
    IF (agent ->> 'singleton')::boolean THEN
        -- Two that start in one moment would each see nobody.
        PERFORM pg_advisory_xact_lock(hashtextextended(t || ' ' || (agent ->> 'agent_id'), 2389));
    END IF;
    IF (agent ->> 'singleton')::boolean AND EXISTS (SELECT FROM agent2389.agents
        WHERE tenant = t AND agent_id = agent ->> 'agent_id' AND incarnation <> agent ->> 'incarnation'
        AND state <> 'stopped' AND last_beat > clock_timestamp() - interval '30 seconds') THEN
        RAISE EXCEPTION 'another incarnation of this singleton agent lives' USING ERRCODE = 'A2409',
            HINT = 'stop the other one or wait 30 s after it died';
    END IF;
    INSERT INTO agent2389.agents (tenant, incarnation, agent_id, role, capabilities, pools, description, slots,
        free_slots, singleton, state, version, config_sha256, interval_s, metadata)
    VALUES (t, agent ->> 'incarnation', agent ->> 'agent_id', agent ->> 'role', names,
        CASE WHEN agent ->> 'role' = 'agent' THEN names || ('agent.' || (agent ->> 'agent_id')) ELSE '{}' END,
        agent ->> 'description', (agent ->> 'slots')::integer, (agent ->> 'slots')::integer,
        (agent ->> 'singleton')::boolean, 'starting', agent ->> 'version', agent ->> 'config_sha256',
        (agent ->> 'interval_s')::real, agent -> 'metadata')
    ON CONFLICT (tenant, incarnation) DO UPDATE SET last_beat = clock_timestamp(), presence_cleared = false;
END $$;

CREATE FUNCTION agent2389_v1.stopped(who text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t text := agent2389.current_tenant();
    name text;
BEGIN
    UPDATE agent2389.agents SET state = 'stopped', free_slots = 0, last_beat = clock_timestamp()
    WHERE tenant = t AND incarnation = who RETURNING agent_id INTO name;
    RETURN NOT EXISTS (SELECT FROM agent2389.agents WHERE tenant = t AND agent_id = name
        AND incarnation <> who AND state IN ('running', 'paused')
        AND last_beat > clock_timestamp() - interval '30 seconds');
END $$;

-- Tasks are locked before the own row, as whoever finishes a task does it: the other way round a beat and a
-- finish of the same agent waited for each other (measured: one in 600 tasks under load). Backlog is what
-- waited for a second: what is younger has its doorbell (measured: half of all claims of an idle pool of a
-- hundred came from beats that saw a task which somebody was about to claim).
CREATE FUNCTION agent2389_v1.beat(beat jsonb, intervals jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t text := agent2389.current_tenant();
    me agent2389.agents;
    fence jsonb;
    task agent2389.tasks;
    verdicts jsonb := '{}';
    mates jsonb;
    digest text;
BEGIN
    FOR fence IN SELECT value FROM jsonb_array_elements(beat -> 'held') ORDER BY value ->> 'task_id'
    LOOP
        UPDATE agent2389.tasks SET lease_until = clock_timestamp() + make_interval(secs => lease_seconds)
        WHERE tenant = t AND task_id = fence ->> 'task_id' AND epoch = (fence ->> 'epoch')::integer
            AND token_hash = sha256(convert_to(fence ->> 'token', 'UTF8')) AND lease_until > clock_timestamp()
        RETURNING * INTO task;
        verdicts := verdicts || jsonb_build_object(fence ->> 'task_id', CASE
            WHEN NOT FOUND THEN 'lost'
            WHEN task.stop_requested IS NOT NULL THEN task.stop_requested
            WHEN task.deadline <= clock_timestamp() THEN 'expire'
            ELSE 'ok' END);
    END LOOP;
    UPDATE agent2389.agents SET state = beat ->> 'state', free_slots = (beat ->> 'free_slots')::integer,
        last_beat = clock_timestamp(), presence_cleared = false
    WHERE tenant = t AND incarnation = beat ->> 'incarnation' AND state <> 'stopped' RETURNING * INTO me;
    SELECT coalesce(jsonb_object_agg(pool, members), '{}') INTO mates FROM (
        SELECT pool, jsonb_agg(incarnation ORDER BY incarnation) AS members FROM (
            SELECT pool, a.incarnation, row_number() OVER (PARTITION BY pool ORDER BY a.incarnation) AS n
            FROM agent2389.agents a, unnest(a.pools) pool
            WHERE a.tenant = t AND a.state = 'running' AND a.free_slots > 0 AND pool = ANY (me.pools)
                AND a.last_beat > clock_timestamp() - interval '30 seconds') ranked
        WHERE n <= 256 GROUP BY pool) grouped;
    digest := md5(mates::text);
    RETURN jsonb_build_object(
        'known', me.incarnation IS NOT NULL,
        'tasks', verdicts,
        'desired_state', CASE
            WHEN me.desired_state IS NOT NULL THEN me.desired_state
            WHEN EXISTS (SELECT FROM agent2389.pauses p WHERE p.tenant = t AND p.agent_id = me.agent_id)
                THEN 'paused'
            WHEN me.state = 'paused' THEN 'running' END,
        'peers_digest', digest,
        'peers', CASE WHEN digest = beat ->> 'known_peers' THEN NULL ELSE mates END,
        'backlog', EXISTS (SELECT FROM agent2389.tasks q WHERE q.tenant = t AND q.pool = ANY (me.pools)
            AND q.state = 'queued' AND greatest(q.run_after, q.queued_at) <= clock_timestamp() - interval '1 second'
            AND q.not_agent IS DISTINCT FROM me.agent_id),
        'due', (SELECT coalesce(jsonb_agg(i.key), '[]') FROM jsonb_each_text(intervals) i
            LEFT JOIN agent2389.upkeep u ON u.tenant = t AND u.chore = i.key
            WHERE coalesce(u.last_run, '-infinity')
                < clock_timestamp() - make_interval(secs => 2 * i.value::double precision)),
        'ops_alive', EXISTS (SELECT FROM agent2389.agents o WHERE o.tenant = t AND o.role = 'ops'
            AND o.state = 'running' AND o.last_beat > clock_timestamp() - interval '30 seconds'),
        'next_due_seconds', (SELECT extract(epoch FROM min(q.run_after) - clock_timestamp())
            FROM agent2389.tasks q WHERE q.state = 'queued' AND NOT q.rung AND q.tenant = t
            AND q.pool = ANY (me.pools)));
END $$;

-- Everything a winner needs. `token` is the secret; the row keeps its hash only.
CREATE FUNCTION agent2389.claim_record(task agent2389.tasks, token text) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object(
        'fence', jsonb_build_object('task_id', task.task_id, 'epoch', task.epoch, 'token', token),
        'tenant', task.tenant, 'job_id', task.job_id, 'capability', coalesce(task.capability, task.pool),
        'bound_agent', task.bound_agent, 'hop', task.hop, 'max_hops', j.max_hops, 'attempt', task.attempt,
        'crashes', task.crashes, 'priority', j.priority,
        'instruction', coalesce(task.instruction, j.instruction), 'input', task.input, 'next', task.next,
        'feedback', task.feedback, 'verifies', task.verifies, 'branch_of', task.joins,
        'approvals', coalesce((SELECT jsonb_object_agg(p.tool || ':' || p.arguments_sha256, p.state) FROM agent2389.approvals p
            WHERE p.tenant = task.tenant AND p.task_id = task.task_id), '{}'),
        'submission', j.submission,
        'manifest', coalesce((SELECT manifest FROM agent2389.workspaces w
            WHERE w.tenant = task.tenant AND w.task_id = task.task_id), '{}'),
        'history', CASE WHEN task.hop = 1 THEN '[]' ELSE coalesce((
            SELECT jsonb_agg(jsonb_build_object('hop', p.hop, 'capability', coalesce(p.capability, p.pool),
                'agent_id', coalesce(p.owner_agent, ''), 'text', left(r.payload ->> 'text', 2000))
                ORDER BY p.hop, p.slot)
            FROM agent2389.tasks p JOIN agent2389.results r
                ON r.tenant = p.tenant AND r.task_id = p.task_id AND r.standing = 'current'
            WHERE p.tenant = task.tenant AND p.job_id = task.job_id AND p.hop < task.hop), '[]') END,
        'budget', j.budget, 'used', agent2389.usage_of(j), 'lease_seconds', task.lease_seconds,
        'queued_at', task.queued_at, 'deadline', task.deadline, 'conversation_id', j.conversation_id,
        'wire_task_id', task.wire_task_id, 'traceparent', j.traceparent, 'source', j.source)
    FROM agent2389.jobs j WHERE j.tenant = task.tenant AND j.job_id = task.job_id
$$;

CREATE FUNCTION agent2389.new_token() RETURNS text
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT replace(gen_random_uuid()::text, '-', '')
$$;

-- T5 to T7: up to `most` tasks of the agent's pools, or the one named `one_task`; what an operator
-- assigned to this incarnation comes first. A self-claim passes assigned and acked in this one commit.
CREATE FUNCTION agent2389_v1.claim(who text, one_task text, most integer, lease real) RETURNS SETOF jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t text := agent2389.current_tenant();
    me agent2389.agents;
    found_id text;
    mine text[];
    ids text[];
    token text;
    task agent2389.tasks;
BEGIN
    SELECT * INTO me FROM agent2389.agents WHERE tenant = t AND incarnation = who AND state = 'running';
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT array_agg(c.task_id) INTO mine FROM (SELECT task_id FROM agent2389.tasks
        WHERE tenant = t AND owner_incarnation = who AND state = 'assigned'
            AND (one_task IS NULL OR task_id = one_task) AND lease_until > clock_timestamp()
        LIMIT most FOR UPDATE SKIP LOCKED) c;
    IF one_task IS NOT NULL THEN
        SELECT array_agg(c.task_id) INTO ids FROM (SELECT task_id FROM agent2389.tasks
            WHERE tenant = t AND task_id = one_task AND pool = ANY (me.pools) AND state = 'queued'
                AND run_after <= clock_timestamp() AND deadline > clock_timestamp()
                AND not_agent IS DISTINCT FROM me.agent_id
            FOR UPDATE SKIP LOCKED) c;
    ELSE
        SELECT array_agg(c.task_id ORDER BY c.rank, c.seq) INTO ids FROM (
            SELECT q.task_id, q.rank, q.seq FROM unnest(me.pools) one_pool
            CROSS JOIN LATERAL (SELECT * FROM agent2389.tasks
                WHERE tenant = t AND pool = one_pool AND state = 'queued'
                    AND run_after <= clock_timestamp() AND deadline > clock_timestamp()
                    AND not_agent IS DISTINCT FROM me.agent_id
                ORDER BY rank, seq LIMIT most FOR UPDATE SKIP LOCKED) q
            ORDER BY q.rank, q.seq LIMIT most - coalesce(array_length(mine, 1), 0)) c;
    END IF;
    FOREACH found_id IN ARRAY coalesce(mine, '{}') || coalesce(ids, '{}')
    LOOP
        token := agent2389.new_token();
        UPDATE agent2389.tasks SET state = 'acked' WHERE tenant = t AND task_id = found_id AND state = 'assigned';
        UPDATE agent2389.tasks SET state = 'in_progress', epoch = epoch + (state = 'queued')::integer,
            owner_incarnation = who, owner_agent = me.agent_id, token_hash = sha256(convert_to(token, 'UTF8')),
            lease_seconds = lease, lease_until = clock_timestamp() + make_interval(secs => lease),
            claimed_at = clock_timestamp(), rung = true
        WHERE tenant = t AND task_id = found_id RETURNING * INTO task;
        PERFORM agent2389.note(t, task.job_id, task.task_id, 'task.claimed', me.agent_id,
            jsonb_build_object('epoch', task.epoch, 'hop', task.hop));
        RETURN NEXT agent2389.claim_record(task, token);
    END LOOP;
END $$;
