-- Chores. Each works for the tenant of its caller, whose rows are all that it sees (0002); what spans
-- tenants, the sealed chain, belongs to agent2389_upkeep.

CREATE FUNCTION agent2389_v1.take_chore(name text, every double precision) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE t text := agent2389.current_tenant();
BEGIN
    INSERT INTO agent2389.upkeep (tenant, chore) VALUES (t, name) ON CONFLICT DO NOTHING;
    UPDATE agent2389.upkeep SET last_run = clock_timestamp() WHERE (tenant, chore) = (
        SELECT tenant, chore FROM agent2389.upkeep WHERE tenant = t AND chore = name
        AND last_run <= clock_timestamp() - make_interval(secs => every) FOR UPDATE SKIP LOCKED);
    RETURN FOUND;
END $$;

-- T8, T11, T20, T25, T27, T30. At most `most` tasks of each kind, so that a call stays short after an outage;
-- a task that cannot be reaped is left alone with a warning and holds up no other.
CREATE FUNCTION agent2389_v1.reap(most integer) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    late record;
    effects jsonb := agent2389.no_effects();
    moment timestamptz := clock_timestamp();
    long_ago timestamptz := moment - interval '15 minutes';
BEGIN
    FOR late IN WITH unserved AS MATERIALIZED (
            SELECT w.* FROM (SELECT DISTINCT q.tenant, q.pool, q.not_agent FROM agent2389.tasks q
                WHERE q.state = 'queued' AND greatest(q.run_after, q.queued_at) <= long_ago) w
            WHERE NOT agent2389.someone_lives(w.tenant, w.pool, w.not_agent))
        SELECT * FROM (
            (SELECT tenant, job_id, task_id FROM agent2389.tasks
                WHERE state IN ('assigned', 'acked', 'in_progress') AND lease_until <= moment LIMIT most)
            UNION (SELECT tenant, job_id, task_id FROM agent2389.tasks
                WHERE state IN ('queued', 'waiting', 'forwarded', 'completed') AND (state <> 'completed' OR held IS NOT NULL)
                    AND NOT agent2389.waits_on_person(tasks) AND paused_at IS NULL AND deadline <= moment LIMIT most)
            UNION (SELECT tenant, job_id, task_id FROM agent2389.tasks
                WHERE paused_at <= moment - interval '7 days' LIMIT most)
            UNION (SELECT tenant, job_id, task_id FROM agent2389.tasks
                WHERE state IN ('waiting', 'forwarded') AND run_after <= moment
                    AND coalesce(waiting ->> 'for', 'timer') = 'timer' LIMIT most)
            UNION (SELECT q.tenant, q.job_id, q.task_id FROM agent2389.tasks q JOIN unserved w
                    ON w.tenant = q.tenant AND w.pool = q.pool AND w.not_agent IS NOT DISTINCT FROM q.not_agent
                WHERE q.state = 'queued' AND greatest(q.run_after, q.queued_at) <= long_ago LIMIT most)) found
        ORDER BY tenant, job_id, task_id
    LOOP
        BEGIN
            effects := agent2389.joined(effects,
                agent2389.reap_one(late.tenant, late.job_id, late.task_id, moment, long_ago));
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING 'task % cannot be reaped: % (%)', late.task_id, SQLERRM, SQLSTATE;
        END;
    END LOOP;
    RETURN effects;
END $$;

-- What is due of a task now that its job is locked: something else may have moved it since it was found.
CREATE FUNCTION agent2389.reap_one(of_tenant text, of_job text, of_task text, moment timestamptz,
    long_ago timestamptz) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE task agent2389.tasks;
BEGIN
    PERFORM FROM agent2389.jobs j WHERE j.tenant = of_tenant AND j.job_id = of_job FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN agent2389.no_effects();
    END IF;
    SELECT * INTO task FROM agent2389.tasks x WHERE x.tenant = of_tenant AND x.task_id = of_task FOR UPDATE;
    IF task.owner_incarnation IS NOT NULL THEN
        IF task.lease_until <= moment THEN
            RETURN agent2389.reap_owned(task);
        END IF;
    -- Something earlier in this run may have ended it.
    ELSIF NOT agent2389.is_open(task) THEN
        RETURN agent2389.no_effects();
    ELSIF (task.paused_at IS NULL AND task.deadline <= moment AND NOT agent2389.waits_on_person(task))
        OR task.paused_at <= moment - interval '7 days' THEN
        RETURN agent2389.end_task(task, 'expired', NULL, 'task.expired');
    ELSIF task.state = 'waiting' AND task.waiting ->> 'for' = 'timer' AND task.run_after <= moment THEN
        RETURN agent2389.queue_again(task, 'task.resumed', '{}');
    ELSIF task.state = 'forwarded' AND task.run_after <= moment THEN
        RETURN agent2389.forward_failed(task, 'no answer came in time');
    ELSIF task.state = 'queued' AND greatest(task.run_after, task.queued_at) <= long_ago
        AND NOT agent2389.someone_lives(task.tenant, task.pool, task.not_agent) THEN
        RETURN agent2389.ask_person(task, jsonb_build_object(
            'code', 'internal_error', 'message', 'no live agent serves ' || task.pool || ' for 15 minutes'),
            NULL, jsonb_build_object('reason', 'no_live_agent', 'pool', task.pool));
    END IF;
    RETURN agent2389.no_effects();
END $$;

-- T8: an assignment that nobody acknowledged; T11: the owner is gone, and a third crash is poison.
CREATE FUNCTION agent2389.reap_owned(task agent2389.tasks) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF task.stop_requested = 'cancel' THEN
        RETURN agent2389.end_task(task, 'cancelled', NULL, 'task.cancelled');
    ELSIF task.deadline <= clock_timestamp() OR task.stop_requested = 'expire' THEN
        RETURN agent2389.end_task(task, 'expired', NULL, 'task.expired');
    ELSIF task.stop_requested = 'escalate' OR (task.state = 'assigned' AND task.misses + 1 >= 3) THEN
        RETURN agent2389.ask_person(task, jsonb_build_object('code', 'internal_error', 'message',
            CASE task.state WHEN 'assigned' THEN 'three assignments were not acknowledged'
                ELSE 'a person took the task from its agent' END), task.owner_agent, '{}');
    ELSIF task.state = 'assigned' THEN
        UPDATE agent2389.tasks SET misses = misses + 1 WHERE tenant = task.tenant AND task_id = task.task_id;
        RETURN agent2389.queue_again(task, 'task.not_acknowledged', jsonb_build_object('misses', task.misses + 1),
            2 * power(2, task.misses));
    ELSIF task.crashes + 1 >= task.max_crashes THEN
        UPDATE agent2389.tasks SET crashes = crashes + 1
        WHERE tenant = task.tenant AND task_id = task.task_id;
        RETURN agent2389.end_task(task, 'dead', jsonb_build_object('code', 'internal_error', 'message',
            'the agents that worked on this task died ' || task.max_crashes || ' times'), 'task.dead');
    END IF;
    UPDATE agent2389.tasks SET crashes = crashes + 1 WHERE tenant = task.tenant AND task_id = task.task_id;
    RETURN agent2389.queue_again(task, 'task.lease_expired', jsonb_build_object('crashes', task.crashes + 1));
END $$;

CREATE FUNCTION agent2389_v1.ring_due() RETURNS jsonb
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH due AS (
        UPDATE agent2389.tasks x SET rung = true WHERE (x.tenant, x.task_id) IN (
            SELECT tenant, task_id FROM agent2389.tasks WHERE state = 'queued' AND NOT rung
            AND run_after <= clock_timestamp() ORDER BY run_after LIMIT 500 FOR UPDATE SKIP LOCKED)
        RETURNING agent2389.wake_of(x) AS wake)
    SELECT coalesce(jsonb_agg(wake), '[]') FROM due
$$;

-- Brings the derived rows of the board in line with the tasks: what waits (the first 100 due tasks of each pool,
-- in claim order) and who owns what. Level-triggered, so it also repairs; at most five times a second. A pool
-- never has more than a hundred `open` topics on the broker: one that is still to be cleared there keeps its
-- place until its clear went out.
CREATE FUNCTION agent2389_v1.refresh_board() RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE settled timestamptz := clock_timestamp() - interval '250 milliseconds';
BEGIN
    IF NOT agent2389_v1.take_chore('refresh_board', 0.2) THEN
        RETURN false;
    END IF;
    WITH RECURSIVE pools AS (
        (SELECT tenant, pool FROM agent2389.tasks WHERE state = 'queued' ORDER BY tenant, pool LIMIT 1)
        UNION ALL
        SELECT n.tenant, n.pool FROM pools p CROSS JOIN LATERAL (
            SELECT tenant, pool FROM agent2389.tasks WHERE state = 'queued'
            AND (tenant, pool) > (p.tenant, p.pool) ORDER BY tenant, pool LIMIT 1) n
    ), wanted AS MATERIALIZED (
        SELECT q.tenant, 'open' AS kind, ARRAY[q.pool, q.task_id, q.epoch::text] AS key,
            jsonb_build_object('task_id', q.task_id, 'job_id', q.job_id, 'epoch', q.epoch, 'capability', q.pool,
                'priority', 9 - q.rank, 'since', agent2389.zulu(q.queued_at))::text AS payload,
            q.rank, q.seq
        FROM pools p CROSS JOIN LATERAL (SELECT * FROM agent2389.tasks x WHERE x.tenant = p.tenant
            AND x.pool = p.pool AND x.state = 'queued' AND x.run_after <= clock_timestamp()
            ORDER BY x.rank, x.seq LIMIT 100) q
        WHERE greatest(q.queued_at, q.run_after) <= settled
        UNION ALL
        SELECT o.tenant, 'claim', ARRAY[o.task_id, o.epoch::text],
            jsonb_build_object('task_id', o.task_id, 'job_id', o.job_id, 'epoch', o.epoch, 'capability', o.pool,
                'agent_id', o.owner_agent, 'since', agent2389.zulu(o.claimed_at))::text, o.rank, o.seq
        FROM agent2389.tasks o WHERE o.state IN ('assigned', 'acked', 'in_progress') AND o.claimed_at <= settled
    ), occupied AS (
        SELECT b.tenant, b.key, b.key[1] AS pool FROM agent2389.board b WHERE b.kind = 'open' AND (b.on_wire
            OR b.payload IS NOT NULL AND EXISTS (SELECT FROM wanted w
                WHERE w.tenant = b.tenant AND w.kind = b.kind AND w.key = b.key))
    ), fresh AS (
        SELECT w.tenant, w.key, row_number() OVER (PARTITION BY w.tenant, w.key[1] ORDER BY w.rank, w.seq)
            + (SELECT count(*) FROM occupied o WHERE o.tenant = w.tenant AND o.pool = w.key[1]) AS place
        FROM wanted w WHERE w.kind = 'open' AND NOT EXISTS (SELECT FROM occupied o
            WHERE o.tenant = w.tenant AND o.key = w.key)
    ), leaving AS (
        -- Rows that a sender holds just now wait for the next call: nobody ever waits here.
        SELECT b.tenant, b.kind, b.key FROM agent2389.board b
        WHERE b.kind IN ('open', 'claim') AND b.payload IS NOT NULL AND NOT EXISTS (
            SELECT FROM wanted w WHERE w.tenant = b.tenant AND w.kind = b.kind AND w.key = b.key)
        FOR UPDATE SKIP LOCKED
    ), cleared AS (
        UPDATE agent2389.board b SET payload = NULL, version = version + 1, changed_at = clock_timestamp()
        FROM leaving l WHERE b.tenant = l.tenant AND b.kind = l.kind AND b.key = l.key
    ), back AS (
        SELECT b.tenant, b.kind, b.key, w.payload FROM agent2389.board b
        JOIN wanted w ON w.tenant = b.tenant AND w.kind = b.kind AND w.key = b.key
        WHERE b.payload IS NULL FOR UPDATE OF b SKIP LOCKED
    ), shown_again AS (
        UPDATE agent2389.board b SET payload = r.payload, version = version + 1, changed_at = clock_timestamp()
        FROM back r WHERE b.tenant = r.tenant AND b.kind = r.kind AND b.key = r.key
    )
    INSERT INTO agent2389.board AS b (tenant, kind, key, payload)
    SELECT tenant, kind, key, payload FROM wanted w
    WHERE NOT EXISTS (SELECT FROM fresh f WHERE f.tenant = w.tenant AND f.key = w.key AND f.place > 100)
        AND NOT EXISTS (SELECT FROM agent2389.board b
            WHERE b.tenant = w.tenant AND b.kind = w.kind AND b.key = w.key)
    ON CONFLICT DO NOTHING;
    RETURN true;
END $$;

-- Takes unsent rows for ten seconds. A clear of what never reached the broker is dropped instead.
CREATE FUNCTION agent2389_v1.lease_board(most integer) RETURNS jsonb
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH moot AS (
        DELETE FROM agent2389.board WHERE (tenant, kind, key) IN (
            SELECT tenant, kind, key FROM agent2389.board
            WHERE payload IS NULL AND NOT on_wire AND lease IS NULL FOR UPDATE SKIP LOCKED)
    ), taken AS (
        UPDATE agent2389.board b SET lease = gen_random_uuid()::text, on_wire = true,
            lease_until = clock_timestamp() + interval '10 seconds'
        WHERE (b.tenant, b.kind, b.key) IN (
            SELECT tenant, kind, key FROM agent2389.board
            WHERE sent_version IS DISTINCT FROM version AND (payload IS NOT NULL OR on_wire)
                AND (lease_until IS NULL OR lease_until <= clock_timestamp())
            ORDER BY changed_at LIMIT most FOR UPDATE SKIP LOCKED)
        RETURNING b.tenant, b.kind, b.key, b.payload, b.version, b.lease)
    SELECT coalesce(jsonb_agg(to_jsonb(taken)), '[]') FROM taken
$$;

-- Sent for good only where the lease still stands and nothing changed; else it is sent again. A topic that
-- was cleared for good meanwhile is cleared once more: the late sender has set it again. Everybody locks rows
-- of the board in the order of tenant, kind and key.
CREATE FUNCTION agent2389_v1.board_sent(sent jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    WITH told AS MATERIALIZED (
        SELECT b.tenant, b.kind, b.key, s.value AS item FROM agent2389.board b
        JOIN jsonb_array_elements(sent) s ON b.tenant = s.value ->> 'tenant' AND b.kind = s.value ->> 'kind'
            AND b.key = ARRAY(SELECT jsonb_array_elements_text(s.value -> 'key'))
        ORDER BY b.tenant, b.kind, b.key FOR UPDATE OF b)
    UPDATE agent2389.board b SET
        sent_version = CASE WHEN b.lease = told.item ->> 'lease'
            AND b.version = (told.item ->> 'version')::bigint THEN b.version END,
        lease = NULL, lease_until = NULL
    FROM told WHERE b.tenant = told.tenant AND b.kind = told.kind AND b.key = told.key;
    DELETE FROM agent2389.board WHERE (tenant, kind, key) IN (
        SELECT tenant, kind, key FROM agent2389.board
        WHERE payload IS NULL AND sent_version = version FOR UPDATE SKIP LOCKED);
    INSERT INTO agent2389.board (tenant, kind, key, payload, version, on_wire)
    SELECT item ->> 'tenant', item ->> 'kind', ARRAY(SELECT jsonb_array_elements_text(item -> 'key')) AS ids,
        NULL, (item ->> 'version')::bigint + 1, true
    FROM (SELECT value AS item FROM jsonb_array_elements(sent)) s
    WHERE item ->> 'payload' IS NOT NULL
    ORDER BY item ->> 'tenant', item ->> 'kind', ids
    ON CONFLICT DO NOTHING;
END $$;

-- The broker forgot everything: every topic is sent again. Whoever is sending one at this moment sends
-- it to the broker that forgot, so no lease survives and no report of that sending counts.
CREATE FUNCTION agent2389_v1.board_reset() RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE agent2389.board b SET lease = NULL, lease_until = NULL,
        sent_version = CASE WHEN b.payload IS NULL THEN b.sent_version END,
        changed_at = CASE WHEN b.payload IS NULL THEN b.changed_at ELSE clock_timestamp() END
    FROM (SELECT tenant, kind, key FROM agent2389.board WHERE payload IS NOT NULL OR lease IS NOT NULL
        ORDER BY tenant, kind, key FOR UPDATE) held
    WHERE b.tenant = held.tenant AND b.kind = held.kind AND b.key = held.key
$$;

CREATE FUNCTION agent2389_v1.take_outbox(most integer) RETURNS jsonb
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH taken AS (
        UPDATE agent2389.outbox o SET lease_until = clock_timestamp() + interval '10 seconds'
        WHERE o.id IN (SELECT id FROM agent2389.outbox
            WHERE created_at < clock_timestamp() - interval '2 seconds'
                AND (lease_until IS NULL OR lease_until <= clock_timestamp())
            ORDER BY id LIMIT most FOR UPDATE SKIP LOCKED)
        RETURNING o.id, o.tenant, o.kind, o.job_id, o.agent_id, o.conversation_id, o.topic, o.correlation, o.body)
    SELECT coalesce(jsonb_agg(to_jsonb(taken) ORDER BY id), '[]') FROM taken
$$;

CREATE FUNCTION agent2389_v1.outbox_sent(ids bigint[]) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM agent2389.outbox WHERE id = ANY (ids)
$$;

-- Jobs that ended `keep_days` ago leave a tombstone: id and hash, so that a late repeat is still a repeat.
-- A job stays until the sealer has seen all of its events. Returns how many went.
CREATE FUNCTION agent2389.bury(most integer, keep_days double precision) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    old agent2389.jobs;
    buried integer := 0;
BEGIN
    FOR old IN SELECT * FROM agent2389.jobs j
        WHERE finished_at < clock_timestamp() - make_interval(secs => keep_days * 86400)
            AND NOT EXISTS (SELECT FROM agent2389.events e WHERE e.tenant = j.tenant
                AND e.job_id = j.job_id AND e.number IS NULL)
        ORDER BY finished_at LIMIT most FOR UPDATE SKIP LOCKED
    LOOP
        BEGIN
            PERFORM agent2389.bury_one(old);
            buried := buried + 1;
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING 'job % cannot be buried: % (%)', old.job_id, SQLERRM, SQLSTATE;
        END;
    END LOOP;
    RETURN buried;
END $$;

CREATE FUNCTION agent2389.bury_one(old agent2389.jobs) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO agent2389.tombstones (tenant, job_id, content_hash, state)
    VALUES (old.tenant, old.job_id, old.content_hash, old.state) ON CONFLICT DO NOTHING;
    DELETE FROM agent2389.workspaces w USING agent2389.tasks x WHERE w.tenant = x.tenant
        AND w.task_id = x.task_id AND x.tenant = old.tenant AND x.job_id = old.job_id;
    DELETE FROM agent2389.approvals WHERE tenant = old.tenant AND job_id = old.job_id;
    DELETE FROM agent2389.results WHERE tenant = old.tenant AND job_id = old.job_id;
    DELETE FROM agent2389.job_results WHERE tenant = old.tenant AND job_id = old.job_id;
    -- The same id begins with an empty account once its tombstone is gone.
    DELETE FROM agent2389.spend s WHERE s.tenant = old.tenant AND s.scope IN (SELECT 'job:' || old.job_id
        UNION ALL SELECT 'task:' || x.task_id FROM agent2389.tasks x
        WHERE x.tenant = old.tenant AND x.job_id = old.job_id);
    DELETE FROM agent2389.tasks WHERE tenant = old.tenant AND job_id = old.job_id;
    WITH gone AS (
        DELETE FROM agent2389.events WHERE tenant = old.tenant AND job_id = old.job_id RETURNING *)
    INSERT INTO agent2389.buried_links (number, previous_hash, hash)
    SELECT number, previous_hash, hash FROM gone WHERE hash IS NOT NULL;
    DELETE FROM agent2389.jobs WHERE tenant = old.tenant AND job_id = old.job_id;
    UPDATE agent2389.board SET payload = NULL, version = version + 1, changed_at = clock_timestamp()
    WHERE tenant = old.tenant AND kind = 'result' AND key = ARRAY[old.job_id] AND payload IS NOT NULL;
END $$;

-- Of the links before the oldest that any tenant keeps, the last hash is enough.
CREATE FUNCTION agent2389.forget_links() RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH forgotten AS (
        DELETE FROM agent2389.buried_links WHERE number < coalesce(
            (SELECT min(e.number) FROM agent2389.events e WHERE e.hash IS NOT NULL), number + 1)
        RETURNING number, hash)
    UPDATE agent2389.meta SET chain_begins = newest.hash
    FROM (SELECT hash FROM forgotten ORDER BY number DESC LIMIT 1) newest
$$;

-- Retention: the incarnations whose presence must be cleared from the broker, and how many jobs were buried,
-- at most `most`.
CREATE FUNCTION agent2389_v1.retire(keep_days double precision, most integer) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    gone jsonb;
    buried integer;
BEGIN
    UPDATE agent2389.board b SET payload = NULL, version = version + 1, changed_at = clock_timestamp()
    WHERE kind = 'result' AND payload IS NOT NULL AND EXISTS (SELECT FROM agent2389.job_results r
        WHERE r.tenant = b.tenant AND r.job_id = b.key[1] AND r.at < clock_timestamp() - interval '1 hour');
    DELETE FROM agent2389.intake_rejects WHERE at < clock_timestamp() - interval '7 days';
    buried := agent2389.bury(most, keep_days);
    PERFORM agent2389.forget_links();
    DELETE FROM agent2389.tombstones WHERE at < clock_timestamp() - interval '30 days';
    WITH cleared AS (
        UPDATE agent2389.agents a SET presence_cleared = true WHERE NOT presence_cleared
            AND (state = 'stopped' OR last_beat < clock_timestamp() - interval '30 seconds')
        RETURNING a.*)
    SELECT coalesce(jsonb_agg(agent2389.agent_record(cleared, 0)), '[]') INTO gone FROM cleared;
    DELETE FROM agent2389.agents WHERE presence_cleared AND last_beat < clock_timestamp() - interval '1 day';
    RETURN jsonb_build_object('agents', gone, 'jobs', buried);
END $$;
