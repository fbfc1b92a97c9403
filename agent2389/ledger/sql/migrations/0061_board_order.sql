-- The two of 0060 again, with the order of locks of 0032: rows of the board by tenant, kind and key.

CREATE OR REPLACE FUNCTION agent2389_v1.board_reset() RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE agent2389.board b SET lease = NULL, lease_until = NULL,
        sent_version = CASE WHEN b.payload IS NULL THEN b.sent_version END,
        changed_at = CASE WHEN b.payload IS NULL THEN b.changed_at ELSE clock_timestamp() END
    FROM (SELECT tenant, kind, key FROM agent2389.board WHERE payload IS NOT NULL OR lease IS NOT NULL
        ORDER BY tenant, kind, key FOR UPDATE) held
    WHERE b.tenant = held.tenant AND b.kind = held.kind AND b.key = held.key
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
    INSERT INTO agent2389.board (tenant, kind, key, payload, version, on_wire)
    SELECT item ->> 'tenant', item ->> 'kind', ARRAY(SELECT jsonb_array_elements_text(item -> 'key')) AS ids,
        NULL, (item ->> 'version')::bigint + 1, true
    FROM (SELECT value AS item FROM jsonb_array_elements(sent)) s
    WHERE item ->> 'payload' IS NOT NULL
    ORDER BY item ->> 'tenant', item ->> 'kind', ids
    ON CONFLICT DO NOTHING;
END $$;
