-- Routing decisions with what was known when they were made, for replay and grading.

CREATE INDEX results_decided ON agent2389.results (tenant, at DESC, task_id DESC)
    WHERE decision IS NOT NULL;

-- Newest first, at most `age` seconds old; `before_at` and `before_task` are the last row of the page before.
CREATE FUNCTION agent2389_v1.decisions(
    age double precision, most integer, before_at timestamptz, before_task text) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object(
        'job_id', r.job_id, 'task_id', r.task_id, 'hop', x.hop, 'max_hops', j.max_hops, 'at', r.at,
        'capability', coalesce(x.capability, x.pool), 'agent_id', coalesce(r.agent_id, ''),
        'instruction', coalesce(x.instruction, j.instruction, ''), 'answer', left(r.payload ->> 'text', 6000),
        'next', x.next, 'decision', r.decision,
        'history', coalesce((
            SELECT jsonb_agg(jsonb_build_object('hop', p.hop, 'capability', coalesce(p.capability, p.pool),
                'agent_id', coalesce(p.owner_agent, ''), 'text', left(q.payload ->> 'text', 2000))
                ORDER BY p.hop, p.slot)
            FROM agent2389.tasks p JOIN agent2389.results q
                ON q.tenant = p.tenant AND q.task_id = p.task_id AND q.standing = 'current'
            WHERE p.tenant = x.tenant AND p.job_id = x.job_id AND p.hop < x.hop), '[]'))
        ORDER BY r.at DESC, r.task_id DESC), '[]')
    FROM (
        SELECT * FROM agent2389.results c
        WHERE c.tenant = agent2389.current_tenant() AND c.decision IS NOT NULL
            AND c.at > clock_timestamp() - make_interval(secs => age)
            AND (before_at IS NULL OR (c.at, c.task_id) < (before_at, before_task))
        ORDER BY c.at DESC, c.task_id DESC LIMIT most) r
    JOIN agent2389.tasks x ON x.tenant = r.tenant AND x.task_id = r.task_id
    JOIN agent2389.jobs j ON j.tenant = r.tenant AND j.job_id = r.job_id
$$;

REVOKE ALL ON FUNCTION agent2389_v1.decisions FROM PUBLIC;
GRANT EXECUTE ON FUNCTION agent2389_v1.decisions TO agent2389_operator, agent2389_upkeep;
