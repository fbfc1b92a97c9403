-- One order of locks for everybody: jobs, tasks, agents; rows of the board by tenant, kind and key.

-- As before, but the tasks first and the own row last, as whoever finishes a task does it. The other way
-- round a beat and a finish of the same agent waited for each other (measured: one in 600 tasks under load).
-- Backlog is what waited for a second: what is younger has its doorbell (measured: half of all claims of an
-- idle pool of a hundred came from beats that saw a task which somebody was about to claim).
CREATE OR REPLACE FUNCTION agent2389_v1.beat(beat jsonb, intervals jsonb) RETURNS jsonb
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
            LEFT JOIN agent2389.upkeep u ON u.chore = i.key
            WHERE coalesce(u.last_run, '-infinity')
                < clock_timestamp() - make_interval(secs => 2 * i.value::double precision)),
        'ops_alive', EXISTS (SELECT FROM agent2389.agents o WHERE o.tenant = t AND o.role = 'ops'
            AND o.state = 'running' AND o.last_beat > clock_timestamp() - interval '30 seconds'),
        'next_due_seconds', (SELECT extract(epoch FROM min(q.run_after) - clock_timestamp())
            FROM agent2389.tasks q WHERE q.state = 'queued' AND NOT q.rung AND q.tenant = t
            AND q.pool = ANY (me.pools)));
END $$;


-- Rows to be cleared are few among results that stay for an hour.
CREATE INDEX board_cleared ON agent2389.board (tenant, kind, key) WHERE payload IS NULL;

-- As before, without waiting for rows that somebody else clears.
CREATE OR REPLACE FUNCTION agent2389_v1.lease_board(most integer) RETURNS jsonb
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

CREATE OR REPLACE FUNCTION agent2389_v1.board_sent(sent jsonb) RETURNS void
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
END $$;

CREATE OR REPLACE FUNCTION agent2389_v1.board_reset() RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE agent2389.board b SET sent_version = NULL, changed_at = clock_timestamp()
    FROM (SELECT tenant, kind, key FROM agent2389.board WHERE payload IS NOT NULL
        ORDER BY tenant, kind, key FOR UPDATE) held
    WHERE b.tenant = held.tenant AND b.kind = held.kind AND b.key = held.key
$$;
