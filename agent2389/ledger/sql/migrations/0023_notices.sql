-- Durable notifications: how far the events of a tenant were told to a receiver outside, by name.

CREATE TABLE agent2389.notices (
    tenant text NOT NULL,
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 64),
    -- The sealed number up to which everything was told, given up, or is nobody's business.
    number bigint NOT NULL,
    failures integer NOT NULL DEFAULT 0 CHECK (failures >= 0),
    refusals integer NOT NULL DEFAULT 0 CHECK (refusals >= 0),
    reason text CHECK (length(reason) <= 500),
    -- Who tells now. From `free_at` on anybody may: a process that dies at it holds nobody up for long.
    holder text,
    free_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, name)
);

ALTER TABLE agent2389.notices ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON agent2389.notices TO agent2389_owner
    USING (tenant = (SELECT agent2389.current_tenant()));
CREATE POLICY upkeep ON agent2389.notices TO agent2389_upkeep USING (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON agent2389.notices TO agent2389_upkeep;

-- Events between two sealed numbers that somebody wants to hear of. A task that waits for its timer wants nobody.
CREATE FUNCTION agent2389.to_tell(t text, types text[], after_number bigint, upto bigint) RETURNS SETOF agent2389.events
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT * FROM agent2389.events WHERE tenant = t AND number > after_number AND number <= upto
        AND type = ANY (types) AND (type <> 'task.waiting' OR data ->> 'for' IS DISTINCT FROM 'timer')
$$;

CREATE FUNCTION agent2389.notices_place(n agent2389.notices) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object('number', n.number, 'failures', n.failures, 'refusals', n.refusals, 'reason', n.reason)
$$;

-- Takes the telling under a name for `lease` seconds, with the first events that wait; null when it is not
-- due or somebody is at it. A new name begins at the present end. At most `span` numbers are looked at.
CREATE FUNCTION agent2389_v1.take_notices(of_name text, of_holder text, lease double precision, types text[],
    span integer, most integer) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t text := agent2389.current_tenant();
    sealed bigint := (SELECT sealed_number FROM agent2389.meta);
    place agent2389.notices;
    upto bigint;
    waiting jsonb;
BEGIN
    INSERT INTO agent2389.notices (tenant, name, number) VALUES (t, of_name, sealed) ON CONFLICT DO NOTHING;
    UPDATE agent2389.notices n SET holder = of_holder, free_at = clock_timestamp() + make_interval(secs => lease)
    WHERE n.tenant = t AND n.name = of_name AND n.free_at <= clock_timestamp() RETURNING * INTO place;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    upto := greatest(place.number, least(sealed, place.number + span));
    SELECT coalesce(jsonb_agg(jsonb_build_array(e.number, jsonb_build_object('tenant', e.tenant, 'job_id', e.job_id,
        'task_id', e.task_id, 'type', e.type, 'at', e.at, 'agent_id', e.agent_id, 'data', e.data)) ORDER BY e.number), '[]')
    INTO waiting
    FROM (SELECT * FROM agent2389.to_tell(t, types, place.number, upto) ORDER BY number LIMIT most) e;
    IF jsonb_array_length(waiting) = most THEN
        upto := (waiting -> -1 ->> 0)::bigint;
    END IF;
    RETURN jsonb_build_object('place', agent2389.notices_place(place), 'upto', upto, 'events', waiting);
END $$;

-- Writes the place of whoever holds the telling and keeps it for `seconds`, or with `ends` gives it up and
-- rests so long. False: somebody else holds it.
CREATE FUNCTION agent2389_v1.keep_notices(of_name text, of_holder text, place jsonb, seconds double precision,
    ends boolean) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE agent2389.notices n SET number = greatest(n.number, (place ->> 'number')::bigint),
        failures = (place ->> 'failures')::integer, refusals = (place ->> 'refusals')::integer,
        reason = left(place ->> 'reason', 500), holder = CASE WHEN ends THEN NULL ELSE n.holder END,
        free_at = clock_timestamp() + make_interval(secs => seconds)
    WHERE n.tenant = agent2389.current_tenant() AND n.name = of_name AND n.holder = of_holder;
    RETURN FOUND;
END $$;

-- How a telling stands: its place, and how many events wait among the next `span` numbers (`more`: there are
-- numbers beyond). Null before the first one.
CREATE FUNCTION agent2389_v1.notices(of_name text, types text[], span integer) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object('place', agent2389.notices_place(n), 'more', m.sealed_number > n.number + span,
        'waiting', (SELECT count(*) FROM agent2389.to_tell(n.tenant, types, n.number, n.number + span)))
    FROM agent2389.notices n, agent2389.meta m
    WHERE n.tenant = agent2389.current_tenant() AND n.name = of_name
$$;

REVOKE ALL ON FUNCTION agent2389.to_tell, agent2389.notices_place, agent2389_v1.take_notices,
    agent2389_v1.keep_notices, agent2389_v1.notices FROM PUBLIC;
-- Agents have no receiver to tell, so they cannot take the telling away from ops either.
GRANT EXECUTE ON FUNCTION agent2389_v1.take_notices, agent2389_v1.keep_notices, agent2389_v1.notices
    TO agent2389_operator;
