-- What `agent2389 doctor` asks of the ledger.

-- Its clock, its identity, and agents that must be alone and are not.
CREATE FUNCTION agent2389_v1.soundings() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object(
        'now', extract(epoch FROM clock_timestamp()),
        'mesh_id', (SELECT agent2389_v1.identity() ->> 'mesh_id'),
        'tenant', agent2389.current_tenant(),
        'twins', (SELECT coalesce(jsonb_agg(agent_id ORDER BY agent_id), '[]') FROM (
            SELECT agent_id FROM agent2389.agents
            WHERE tenant = agent2389.current_tenant() AND singleton AND state <> 'stopped'
                AND last_beat > clock_timestamp() - interval '30 seconds'
            GROUP BY agent_id HAVING count(*) > 1) twice))
$$;

REVOKE ALL ON FUNCTION agent2389_v1.soundings FROM PUBLIC;
GRANT EXECUTE ON FUNCTION agent2389_v1.soundings TO agent2389_operator;
