-- What people read of the journal, and who may call what.

-- A job's conversations with their calls, in order; `most` entries after the first `skip`.
CREATE FUNCTION agent2389_v1.transcript(of_job text, skip integer, most integer) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH places AS (
        SELECT x.tenant, x.task_id, x.hop, x.slot AS place, coalesce(x.capability, x.pool) AS capability,
            p.generation, p.step, p.slot
        FROM agent2389.tasks x CROSS JOIN LATERAL (
            SELECT s.generation, s.step, s.slot FROM agent2389.transcript s
            WHERE s.tenant = x.tenant AND s.task_id = x.task_id
            UNION
            SELECT e.generation, e.step, e.call FROM agent2389.effects e
            WHERE e.tenant = x.tenant AND e.task_id = x.task_id) p
        WHERE x.tenant = agent2389.current_tenant() AND x.job_id = of_job
        ORDER BY x.hop, x.slot, p.generation, p.step, p.slot
        LIMIT most OFFSET skip)
    SELECT coalesce(jsonb_agg(jsonb_build_object('job_id', of_job, 'task_id', p.task_id, 'hop', p.hop,
        'capability', p.capability, 'generation', p.generation, 'step', p.step, 'slot', p.slot,
        'kind', coalesce(s.kind, 'note'), 'at', coalesce(s.at, e.started_at), 'body', m.body,
        'effect', CASE WHEN e.task_id IS NULL THEN NULL ELSE agent2389.effect_row(e) END)
        ORDER BY p.hop, p.place, p.generation, p.step, p.slot), '[]')
    FROM places p
    LEFT JOIN agent2389.transcript s ON (s.tenant, s.task_id, s.generation, s.step, s.slot)
        = (p.tenant, p.task_id, p.generation, p.step, p.slot)
    LEFT JOIN agent2389.messages m ON m.tenant = s.tenant AND m.sha256 = s.sha256
    LEFT JOIN agent2389.effects e ON (e.tenant, e.task_id, e.generation, e.step, e.call)
        = (p.tenant, p.task_id, p.generation, p.step, p.slot)
$$;

-- Messages that no conversation holds any more (their jobs are gone), at most `most` a call.
CREATE FUNCTION agent2389_v1.forget_messages(most integer) RETURNS integer
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH gone AS (
        DELETE FROM agent2389.messages m WHERE (m.tenant, m.sha256) IN (
            SELECT o.tenant, o.sha256 FROM agent2389.messages o
            WHERE o.at < clock_timestamp() - interval '1 hour' AND NOT EXISTS (
                SELECT FROM agent2389.transcript s WHERE s.tenant = o.tenant AND s.sha256 = o.sha256)
            LIMIT most)
        RETURNING 1)
    SELECT count(*)::integer FROM gone
$$;

REVOKE ALL ON FUNCTION
    agent2389.take_task, agent2389.begin_one, agent2389.answer_of, agent2389.keep_messages, agent2389.effect_row,
    agent2389_v1.effect_begin, agent2389_v1.effect_end, agent2389_v1.resume, agent2389_v1.escalate_task,
    agent2389_v1.resolve_effect, agent2389_v1.transcript, agent2389_v1.forget_messages FROM PUBLIC;
GRANT EXECUTE ON FUNCTION agent2389.take_task, agent2389.begin_one, agent2389.answer_of,
    agent2389.keep_messages, agent2389.effect_row TO agent2389_upkeep;
GRANT EXECUTE ON FUNCTION agent2389_v1.effect_begin, agent2389_v1.effect_end, agent2389_v1.resume,
    agent2389_v1.escalate_task, agent2389_v1.transcript, agent2389_v1.spending, agent2389_v1.forget_messages
    TO agent2389_agent;
GRANT EXECUTE ON FUNCTION agent2389_v1.resolve_effect, agent2389_v1.transcript, agent2389_v1.forget_messages
    TO agent2389_operator;

-- Serves all tenants at once.
GRANT CREATE ON SCHEMA agent2389_v1 TO agent2389_upkeep;
ALTER FUNCTION agent2389_v1.forget_messages OWNER TO agent2389_upkeep;
REVOKE CREATE ON SCHEMA agent2389_v1 FROM agent2389_upkeep;
