-- The broker forgot everything: every topic is sent again. Whoever is sending one at this moment sends
-- it to the broker that forgot, so no lease survives and no report of that sending counts.
CREATE OR REPLACE FUNCTION agent2389_v1.board_reset() RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE agent2389.board SET lease = NULL, lease_until = NULL,
        sent_version = CASE WHEN payload IS NULL THEN sent_version END,
        changed_at = CASE WHEN payload IS NULL THEN changed_at ELSE clock_timestamp() END
$$;

-- Sent for good only where the lease still stands and nothing changed; else it is sent again. A topic that
-- was cleared for good meanwhile is cleared once more: the late sender has set it again.
CREATE OR REPLACE FUNCTION agent2389_v1.board_sent(sent jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE agent2389.board b SET
        sent_version = CASE WHEN b.lease = s.item ->> 'lease' AND b.version = (s.item ->> 'version')::bigint
            THEN b.version END,
        lease = NULL, lease_until = NULL
    FROM (SELECT value AS item FROM jsonb_array_elements(sent)) s
    WHERE b.tenant = s.item ->> 'tenant' AND b.kind = s.item ->> 'kind'
        AND b.key = ARRAY(SELECT jsonb_array_elements_text(s.item -> 'key'));
    DELETE FROM agent2389.board WHERE payload IS NULL AND sent_version = version;
    INSERT INTO agent2389.board (tenant, kind, key, payload, version, on_wire)
    SELECT item ->> 'tenant', item ->> 'kind', ARRAY(SELECT jsonb_array_elements_text(item -> 'key')),
        NULL, (item ->> 'version')::bigint + 1, true
    FROM (SELECT value AS item FROM jsonb_array_elements(sent)) s
    WHERE item ->> 'payload' IS NOT NULL
    ON CONFLICT DO NOTHING;
END $$;
