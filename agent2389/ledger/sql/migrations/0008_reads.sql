-- What front doors read.

CREATE FUNCTION agent2389_v1.identity() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object('mesh_id', mesh_id, 'ledger_version', ledger_version,
        'tenant', agent2389.current_tenant()) FROM agent2389.meta
$$;

CREATE FUNCTION agent2389.job_row(job agent2389.jobs) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object('job_id', job.job_id, 'state', agent2389.job_state(job),
        'capability', coalesce(job.capability, ''), 'agent', job.agent, 'instruction', left(job.instruction, 500),
        'priority', job.priority, 'source', job.source, 'created_at', job.created_at,
        'finished_at', job.finished_at, 'open_tasks', job.open_tasks, 'hops', job.hops,
        'usage', agent2389.usage_of(job), 'note', job.note, 'retry_of', job.retry_of)
$$;

CREATE FUNCTION agent2389_v1.jobs(in_state text, most integer, before_job text) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_agg(agent2389.job_row(j) ORDER BY j.seq DESC), '[]') FROM (
        SELECT * FROM agent2389.jobs c
        WHERE c.tenant = agent2389.current_tenant()
            AND (in_state IS NULL OR (c.state = CASE WHEN in_state IN ('queued', 'running', 'waiting')
                THEN 'open' ELSE in_state END AND agent2389.job_state(c) = in_state))
            AND (before_job IS NULL OR c.seq < (SELECT b.seq FROM agent2389.jobs b
                WHERE b.tenant = c.tenant AND b.job_id = before_job))
        ORDER BY c.seq DESC LIMIT most) j
$$;

CREATE FUNCTION agent2389_v1.find_jobs(prefix text, most integer) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_agg(f.job_id), '[]') FROM (
        SELECT job_id FROM agent2389.jobs WHERE tenant = agent2389.current_tenant()
            AND (prefix = '@last' OR job_id = prefix OR starts_with(job_id, prefix))
        ORDER BY (job_id = prefix) DESC, seq DESC
        LIMIT CASE WHEN prefix = '@last' THEN 1 ELSE most END) f
$$;

CREATE FUNCTION agent2389_v1.job(of_job text) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object('job', agent2389.job_row(j), 'submission', j.submission, 'deadline', j.deadline,
        'budget', j.budget, 'conversation_id', j.conversation_id,
        'final', (SELECT payload FROM agent2389.job_results r WHERE r.tenant = j.tenant AND r.job_id = j.job_id),
        'changes', (SELECT coalesce(jsonb_agg(jsonb_build_object('tenant', e.tenant, 'job_id', e.job_id,
                'task_id', e.task_id, 'type', e.type, 'at', e.at, 'agent_id', e.agent_id, 'data', e.data)
                ORDER BY e.id), '[]')
            FROM agent2389.events e WHERE e.tenant = j.tenant AND e.job_id = j.job_id),
        'tasks', (SELECT coalesce(jsonb_agg(jsonb_build_object('task_id', x.task_id, 'hop', x.hop,
                'capability', coalesce(x.capability, x.pool), 'bound_agent', x.bound_agent, 'state', x.state,
                'priority', 9 - x.rank, 'attempt', x.attempt, 'crashes', x.crashes, 'epoch', x.epoch,
                'agent_id', x.owner_agent, 'reason', x.reason, 'queued_at', x.queued_at,
                'run_after', x.run_after, 'claimed_at', x.claimed_at, 'finished_at', x.finished_at,
                'result', r.payload, 'error', x.error, 'usage', coalesce(r.usage, '{}'), 'decision', r.decision,
                'waiting_for', x.waiting ->> 'for', 'feedback', x.feedback, 'verifies', x.verifies,
                'branch_of', x.joins)
                ORDER BY x.hop, x.slot), '[]')
            FROM agent2389.tasks x LEFT JOIN agent2389.results r ON r.tenant = x.tenant
                AND r.task_id = x.task_id AND r.epoch = x.epoch
            WHERE x.tenant = j.tenant AND x.job_id = j.job_id))
    FROM agent2389.jobs j WHERE j.tenant = agent2389.current_tenant() AND j.job_id = of_job
$$;

CREATE FUNCTION agent2389_v1.changes(of_job text, after_id bigint) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_array(e.id, jsonb_build_object('tenant', e.tenant, 'job_id', e.job_id,
        'task_id', e.task_id, 'type', e.type, 'at', e.at, 'agent_id', e.agent_id, 'data', e.data))
        ORDER BY e.id), '[]')
    FROM agent2389.events e
    WHERE e.tenant = agent2389.current_tenant() AND e.job_id = of_job AND e.id > after_id
$$;

CREATE FUNCTION agent2389_v1.agents() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_agg(agent2389.agent_record(a, (SELECT count(*) FROM agent2389.tasks x
            WHERE x.tenant = a.tenant AND x.owner_incarnation = a.incarnation
            AND x.state IN ('assigned', 'acked', 'in_progress')))
        ORDER BY a.state <> 'running', a.agent_id, a.started_at), '[]')
    FROM agent2389.agents a WHERE a.tenant = agent2389.current_tenant()
        AND a.last_beat > clock_timestamp() - interval '1 day'
$$;

CREATE FUNCTION agent2389_v1.pools() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH mine AS (SELECT agent2389.current_tenant() AS tenant), live AS (
        SELECT pool, count(*) AS agents, sum(a.free_slots) AS free FROM mine
        JOIN agent2389.agents a USING (tenant), unnest(a.pools) pool
        WHERE a.state = 'running' AND a.last_beat > clock_timestamp() - interval '30 seconds' GROUP BY pool
    ), work AS (
        SELECT x.pool, count(*) FILTER (WHERE x.state = 'queued') AS queued,
            count(*) FILTER (WHERE x.state <> 'queued') AS running,
            extract(epoch FROM clock_timestamp() - min(greatest(x.queued_at, x.run_after)) FILTER (
                WHERE x.state = 'queued' AND x.run_after <= clock_timestamp())) AS oldest
        FROM mine JOIN agent2389.tasks x USING (tenant)
        WHERE x.state IN ('queued', 'assigned', 'acked', 'in_progress') GROUP BY x.pool)
    SELECT coalesce(jsonb_agg(jsonb_build_object('pool', pool, 'queued', coalesce(queued, 0),
        'running', coalesce(running, 0), 'agents', coalesce(agents, 0), 'free_slots', coalesce(free, 0),
        'oldest_seconds', coalesce(oldest, 0)) ORDER BY pool), '[]')
    FROM live FULL JOIN work USING (pool)
$$;

CREATE FUNCTION agent2389_v1.job_counts() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_object_agg(state, n), '{}') FROM (
        SELECT agent2389.job_state(j) AS state, count(*) AS n FROM agent2389.jobs j
        WHERE j.tenant = agent2389.current_tenant()
            AND (j.state = 'open' OR j.finished_at > clock_timestamp() - interval '1 day')
        GROUP BY 1) counted
$$;

CREATE FUNCTION agent2389_v1.put_blob(sha256 text, kind text, body bytea) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO agent2389.blobs (tenant, sha256, media_type, content)
    VALUES (agent2389.current_tenant(), sha256, kind, body) ON CONFLICT DO NOTHING
$$;

CREATE FUNCTION agent2389_v1.get_blob(of_sha256 text) RETURNS TABLE (media_type text, content bytea)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT b.media_type, b.content FROM agent2389.blobs b
    WHERE b.tenant = agent2389.current_tenant() AND b.sha256 = of_sha256
$$;

CREATE FUNCTION agent2389_v1.missing_blobs(hashes text[]) RETURNS text[]
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(array_agg(h), '{}') FROM unnest(hashes) h WHERE NOT EXISTS (
        SELECT FROM agent2389.blobs b WHERE b.tenant = agent2389.current_tenant() AND b.sha256 = h)
$$;
