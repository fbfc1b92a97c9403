-- Comparing the board with what a broker really holds, and a window that holds on the broker too.

-- What the board says the broker holds of the caller's tenant, in order of kind and key. `digest` is the
-- SHA-256 of the payload, null where a clear is under way; `sent` whether this version went out.
CREATE FUNCTION agent2389_v1.board_shown(kinds text[], after_key text[], most integer) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object('kind', kind, 'key', key, 'version', version,
        'sent', sent_version IS NOT DISTINCT FROM version,
        'digest', encode(sha256(convert_to(payload, 'UTF8')), 'hex')) ORDER BY kind, key), '[]')
    FROM (SELECT * FROM agent2389.board
        WHERE tenant = agent2389.current_tenant() AND kind = ANY (kinds) AND key > after_key
        ORDER BY kind, key LIMIT most) b
$$;

-- Rows that a broker was seen not to hold go out again, unless they changed since they were looked at.
CREATE FUNCTION agent2389_v1.board_lost(lost jsonb) RETURNS integer
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH again AS (
        UPDATE agent2389.board b SET sent_version = NULL, changed_at = clock_timestamp()
        FROM (SELECT x.tenant, x.kind, x.key FROM agent2389.board x
            JOIN jsonb_array_elements(lost) l ON x.kind = l.value ->> 'kind'
                AND x.key = ARRAY(SELECT jsonb_array_elements_text(l.value -> 'key'))
                AND x.version = (l.value ->> 'version')::bigint
            WHERE x.tenant = agent2389.current_tenant() AND x.payload IS NOT NULL AND x.sent_version = x.version
            ORDER BY x.tenant, x.kind, x.key FOR UPDATE OF x) held
        WHERE b.tenant = held.tenant AND b.kind = held.kind AND b.key = held.key
        RETURNING 1)
    SELECT count(*)::integer FROM again
$$;

-- As before, but a pool never has more than a hundred `open` topics on the broker: one that is still
-- to be cleared there keeps its place until its clear went out.
CREATE OR REPLACE FUNCTION agent2389_v1.refresh_board() RETURNS boolean
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
            AND x.pool = p.pool AND x.state = 'queued' ORDER BY x.rank, x.seq LIMIT 100) q
        WHERE q.run_after <= clock_timestamp() AND greatest(q.queued_at, q.run_after) <= settled
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

REVOKE ALL ON FUNCTION agent2389_v1.board_shown, agent2389_v1.board_lost FROM PUBLIC;
GRANT EXECUTE ON FUNCTION agent2389_v1.board_shown, agent2389_v1.board_lost
    TO agent2389_agent, agent2389_operator;
