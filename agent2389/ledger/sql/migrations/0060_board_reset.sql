-- The broker forgot everything: every topic is sent again. Whoever is sending one at this moment sends
-- it to the broker that forgot, so no lease survives and no report of that sending counts.
CREATE OR REPLACE FUNCTION agent2389_v1.board_reset() RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE agent2389.board SET lease = NULL, lease_until = NULL,
        sent_version = CASE WHEN payload IS NULL THEN sent_version END,
        changed_at = CASE WHEN payload IS NULL THEN changed_at ELSE clock_timestamp() END
$$;
