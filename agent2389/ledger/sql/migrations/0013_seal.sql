-- The sealer gives events their numbers and links; readers resume by number and miss nothing.

-- Operator acts and the ends of jobs are chained by hash; every event is numbered. One sealer at a time.
CREATE FUNCTION agent2389_v1.seal(most integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    place agent2389.meta;
    event agent2389.events;
    sealed integer := 0;
BEGIN
    SELECT * INTO place FROM agent2389.meta FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    FOR event IN SELECT * FROM agent2389.events WHERE number IS NULL ORDER BY id LIMIT most
    LOOP
        place.sealed_number := place.sealed_number + 1;
        IF agent2389.is_chained(event) THEN
            UPDATE agent2389.events SET number = place.sealed_number, previous_hash = place.sealed_hash,
                hash = agent2389.link(event, place.sealed_number, place.sealed_hash)
            WHERE id = event.id RETURNING hash INTO place.sealed_hash;
        ELSE
            UPDATE agent2389.events SET number = place.sealed_number WHERE id = event.id;
        END IF;
        sealed := sealed + 1;
    END LOOP;
    IF sealed > 0 THEN
        UPDATE agent2389.meta SET sealed_number = place.sealed_number, sealed_hash = place.sealed_hash;
    END IF;
    RETURN sealed;
END $$;

CREATE FUNCTION agent2389.is_chained(event agent2389.events) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT event.data ? 'actor'
        OR event.type IN ('job.completed', 'job.failed', 'job.cancelled', 'job.expired')
$$;

CREATE FUNCTION agent2389.link(event agent2389.events, place bigint, previous text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT encode(sha256(convert_to(previous || chr(31) || place || chr(31) || jsonb_build_array(event.tenant,
        event.job_id, event.task_id, event.type, agent2389.zulu(event.at), event.agent_id, event.data)::text,
        'UTF8')), 'hex')
$$;

-- Events after a number, in order: what a reader has missed.
CREATE FUNCTION agent2389_v1.sealed_changes(after_number bigint, most integer) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_array(e.number, jsonb_build_object('tenant', e.tenant, 'job_id', e.job_id,
        'task_id', e.task_id, 'type', e.type, 'at', e.at, 'agent_id', e.agent_id, 'data', e.data)) ORDER BY e.number), '[]')
    FROM (SELECT * FROM agent2389.events WHERE tenant = agent2389.current_tenant() AND number > after_number
        ORDER BY number LIMIT most) e
$$;

-- Numbers at which the chain does not verify: an event that is not what was sealed, one whose predecessor is
-- gone, and the last sealed number when the newest link is gone. What retention took away counts as it was.
CREATE FUNCTION agent2389_v1.broken_links(most integer) RETURNS bigint[]
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH links AS (
        SELECT number, previous_hash, hash FROM agent2389.events WHERE hash IS NOT NULL
        UNION ALL
        SELECT number, previous_hash, hash FROM agent2389.buried_links
    ), found AS (
        SELECT e.number FROM agent2389.events e WHERE e.hash IS NOT NULL
            AND e.hash <> agent2389.link(e, e.number, e.previous_hash)
        UNION
        SELECT number FROM (SELECT l.number, l.previous_hash,
            lag(l.hash, 1, m.chain_begins) OVER (ORDER BY l.number) AS follows
            FROM links l, agent2389.meta m) placed
        WHERE previous_hash <> follows
        UNION
        SELECT m.sealed_number FROM agent2389.meta m
        WHERE m.sealed_hash <> coalesce((SELECT hash FROM links ORDER BY number DESC LIMIT 1), m.chain_begins)
    )
    SELECT coalesce(array_agg(number ORDER BY number), '{}')
    FROM (SELECT number FROM found ORDER BY number LIMIT most) shown
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA agent2389, agent2389_v1 FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA agent2389 TO agent2389_upkeep;
GRANT EXECUTE ON FUNCTION agent2389_v1.seal TO agent2389_agent, agent2389_operator;
GRANT EXECUTE ON FUNCTION agent2389_v1.sealed_changes, agent2389_v1.broken_links TO agent2389_operator;
GRANT CREATE ON SCHEMA agent2389_v1 TO agent2389_upkeep;
ALTER FUNCTION agent2389_v1.seal OWNER TO agent2389_upkeep;
ALTER FUNCTION agent2389_v1.broken_links OWNER TO agent2389_upkeep;
REVOKE CREATE ON SCHEMA agent2389_v1 FROM agent2389_upkeep;
