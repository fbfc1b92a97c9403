-- Comparing the board with what a broker really holds.

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

REVOKE ALL ON FUNCTION agent2389_v1.board_shown, agent2389_v1.board_lost FROM PUBLIC;
GRANT EXECUTE ON FUNCTION agent2389_v1.board_shown, agent2389_v1.board_lost
    TO agent2389_agent, agent2389_operator;
