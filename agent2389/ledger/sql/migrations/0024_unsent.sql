-- What is still to be sent, for whoever watches the mesh.

-- Deliveries of the tenant that nobody has sent yet, and the age of the oldest in seconds.
CREATE FUNCTION agent2389_v1.unsent() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object('pending', count(*),
        'oldest_seconds', coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0))
    FROM agent2389.outbox WHERE tenant = agent2389.current_tenant()
$$;

REVOKE ALL ON FUNCTION agent2389_v1.unsent FROM PUBLIC;
GRANT EXECUTE ON FUNCTION agent2389_v1.unsent TO agent2389_operator;
