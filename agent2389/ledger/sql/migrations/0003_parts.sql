-- Parts that the public functions are made of. They run with the rights of their caller
-- (owner or upkeep) and take the tenant as an argument.

CREATE FUNCTION agent2389.zulu(moment timestamptz) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
$$;

-- Writes an event and returns it as the process publishes it.
CREATE FUNCTION agent2389.note(
    of_tenant text, of_job text, of_task text, what text, who text, detail jsonb
) RETURNS jsonb
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO agent2389.events (tenant, job_id, task_id, type, agent_id, data)
    VALUES (of_tenant, of_job, of_task, what, who, coalesce(detail, '{}'))
    RETURNING jsonb_build_object('tenant', tenant, 'job_id', job_id, 'task_id', task_id,
        'type', type, 'at', at, 'agent_id', agent_id, 'data', data)
$$;

CREATE FUNCTION agent2389.wake_of(task agent2389.tasks) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object('tenant', task.tenant, 'pool', task.pool, 'task_id', task.task_id,
        'job_id', task.job_id, 'epoch', task.epoch, 'priority', 9 - task.rank)
$$;

CREATE FUNCTION agent2389.no_effects() RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT '{"deliveries": [], "wakes": [], "changes": []}'::jsonb
$$;

CREATE FUNCTION agent2389.with_effect(effects jsonb, part text, item jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN item IS NULL THEN effects
        ELSE jsonb_set(effects, ARRAY[part], (effects -> part) || jsonb_build_array(item)) END
$$;

CREATE FUNCTION agent2389.joined(one jsonb, other jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object(
        'deliveries', (one -> 'deliveries') || (other -> 'deliveries'),
        'wakes', (one -> 'wakes') || (other -> 'wakes'),
        'changes', (one -> 'changes') || (other -> 'changes'))
$$;

-- Writes an outbox row and returns it as the committing process sends it from memory.
CREATE FUNCTION agent2389.deliver(
    of_tenant text, of_kind text, of_job text, who text, conversation text,
    to_topic text, correlate text, message jsonb
) RETURNS jsonb
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO agent2389.outbox (tenant, kind, job_id, agent_id, conversation_id, topic, correlation, body)
    VALUES (of_tenant, of_kind, of_job, who, conversation, to_topic, correlate, message::text)
    RETURNING jsonb_build_object('id', id, 'tenant', tenant, 'kind', kind, 'job_id', job_id,
        'agent_id', agent_id, 'conversation_id', conversation_id, 'topic', topic,
        'correlation', correlation, 'body', body)
$$;

CREATE FUNCTION agent2389.show_on_board(of_tenant text, of_kind text, of_key text[], message text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO agent2389.board AS b (tenant, kind, key, payload) VALUES (of_tenant, of_kind, of_key, message)
    ON CONFLICT (tenant, kind, key) DO UPDATE
        SET payload = EXCLUDED.payload, version = b.version + 1, changed_at = clock_timestamp()
        WHERE b.payload IS DISTINCT FROM EXCLUDED.payload
$$;

-- The state people see: derived from the tasks while the job is open.
CREATE FUNCTION agent2389.job_state(job agent2389.jobs) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE
        WHEN job.state <> 'open' THEN job.state
        WHEN EXISTS (SELECT FROM agent2389.tasks t WHERE t.tenant = job.tenant AND t.job_id = job.job_id
            AND (t.state = 'escalated' OR (t.state = 'waiting' AND t.waiting ->> 'for' <> 'join'))) THEN 'waiting'
        WHEN job.hops > 1 OR EXISTS (SELECT FROM agent2389.tasks t WHERE t.tenant = job.tenant
            AND t.job_id = job.job_id AND t.epoch > 0) THEN 'running'
        ELSE 'queued' END
$$;

CREATE FUNCTION agent2389.usage_of(job agent2389.jobs) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object('input_tokens', job.input_tokens, 'output_tokens', job.output_tokens,
        'model_calls', job.model_calls, 'tool_calls', job.tool_calls, 'cost_usd', job.cost_usd)
$$;

-- Books what an attempt consumed; one call of unknown price makes the sum unknown.
CREATE FUNCTION agent2389.book(of_tenant text, of_job text, used jsonb) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    UPDATE agent2389.jobs SET
        input_tokens = input_tokens + coalesce((used ->> 'input_tokens')::bigint, 0),
        output_tokens = output_tokens + coalesce((used ->> 'output_tokens')::bigint, 0),
        model_calls = model_calls + coalesce((used ->> 'model_calls')::integer, 0),
        tool_calls = tool_calls + coalesce((used ->> 'tool_calls')::integer, 0),
        cost_usd = cost_usd + (used ->> 'cost_usd')::numeric
    WHERE tenant = of_tenant AND job_id = of_job
$$;

-- The route as the terminal payload tells it: at least one entry.
CREATE FUNCTION agent2389.route_of(of_tenant text, of_job text) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object(
        'task_id', t.task_id, 'hop', t.hop, 'capability', coalesce(t.capability, t.pool),
        'agent_id', t.owner_agent, 'reason', t.reason,
        'started_at', agent2389.zulu(t.claimed_at), 'finished_at', agent2389.zulu(t.finished_at))
        ORDER BY t.hop, t.slot), '[]')
    FROM agent2389.tasks t WHERE t.tenant = of_tenant AND t.job_id = of_job
$$;

-- Ends one task without a result that counts and, with the last one, its job. What hangs on the task
-- learns of it: the task that joins its branch, the task that it was to judge (T31). The caller holds
-- the job's lock. Returns effects.
CREATE FUNCTION agent2389.end_task(task agent2389.tasks, into_state text, problem jsonb, what text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE effects jsonb := agent2389.no_effects();
BEGIN
    -- What nobody answered in time gives no time back.
    IF task.paused_at IS NOT NULL AND into_state <> 'expired' THEN
        PERFORM agent2389.give_time_back(task);
    END IF;
    UPDATE agent2389.tasks SET state = into_state, error = coalesce(problem, error),
        owner_incarnation = NULL, lease_until = NULL, token_hash = NULL, held = NULL, waiting = NULL,
        paused_at = NULL, finished_at = clock_timestamp()
    WHERE tenant = task.tenant AND task_id = task.task_id;
    effects := agent2389.with_effect(effects, 'changes', agent2389.note(task.tenant, task.job_id,
        task.task_id, what, task.owner_agent, coalesce(problem, '{}')));
    PERFORM agent2389.withdraw_approvals(task.tenant, task.task_id);
    IF task.join_needed IS NOT NULL THEN
        effects := agent2389.joined(effects, agent2389.call_off_branches(task));
    END IF;
    IF task.joins IS NOT NULL THEN
        effects := agent2389.joined(effects, agent2389.branch_ended(task, false));
    -- A result that has time left goes to a person when its verification took too long; one without expires, too.
    ELSIF task.verifies IS NOT NULL AND (into_state = 'dead' OR into_state = 'expired' AND EXISTS (
        SELECT FROM agent2389.tasks j WHERE j.tenant = task.tenant AND j.task_id = task.verifies
            AND j.deadline > clock_timestamp())) THEN
        effects := agent2389.joined(effects, agent2389.judged(task.tenant, task.verifies, NULL,
            'the verification ended without a verdict', task.owner_agent));
    END IF;
    RETURN agent2389.joined(effects, agent2389.close_job(task.tenant, task.job_id, task.task_id, 1, 0));
END $$;

-- Counts under the job's lock: `ended` tasks less, `born` more. With none left it ends the job:
-- state, terminal payload, board row, conversation answer. Returns effects.
CREATE FUNCTION agent2389.close_job(
    of_tenant text, of_job text, last_task text, ended integer, born integer
) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    job agent2389.jobs;
    last agent2389.tasks;
    outcome text;
    answer jsonb;
    problem jsonb;
    rendered jsonb;
    said jsonb;
    effects jsonb := agent2389.no_effects();
BEGIN
    SELECT * INTO STRICT job FROM agent2389.jobs WHERE tenant = of_tenant AND job_id = of_job;
    IF job.open_tasks - ended + born > 0 THEN
        UPDATE agent2389.jobs SET open_tasks = open_tasks - ended + born, hops = hops + born
        WHERE tenant = of_tenant AND job_id = of_job;
        RETURN effects;
    END IF;
    SELECT CASE
        WHEN bool_or(t.state = 'dead') THEN 'failed'
        WHEN bool_or(t.state = 'expired') THEN 'expired'
        WHEN bool_or(t.state = 'cancelled') THEN 'cancelled'
        ELSE 'completed' END
    INTO outcome FROM agent2389.tasks t
    WHERE t.tenant = of_tenant AND t.job_id = of_job AND agent2389.counts(t);
    SELECT * INTO last FROM agent2389.tasks WHERE tenant = of_tenant AND task_id = last_task;
    IF outcome = 'completed' THEN
        -- The answer is the last hop's, not that of whichever task happened to end last.
        SELECT t.* INTO last FROM agent2389.tasks t WHERE t.tenant = of_tenant AND t.job_id = of_job
            AND t.state IN ('completed', 'verified') AND agent2389.counts(t)
        ORDER BY t.hop DESC, t.branch, t.slot LIMIT 1;
        SELECT payload INTO answer FROM agent2389.results
        WHERE tenant = of_tenant AND task_id = last.task_id AND standing = 'current';
    ELSE
        SELECT t.error INTO problem FROM agent2389.tasks t
        WHERE t.tenant = of_tenant AND t.job_id = of_job AND t.error IS NOT NULL AND agent2389.counts(t)
        ORDER BY t.hop DESC, t.branch, t.slot LIMIT 1;
        problem := jsonb_build_object(
            'code', coalesce(problem ->> 'code', CASE outcome WHEN 'failed' THEN 'internal_error' ELSE outcome END),
            'message', coalesce(problem ->> 'message', CASE outcome
                WHEN 'expired' THEN 'the deadline passed' WHEN 'cancelled' THEN 'the job was cancelled'
                ELSE 'the job failed' END));
        -- What was answered before the end is kept.
        SELECT r.payload INTO answer FROM agent2389.results r
        WHERE r.tenant = of_tenant AND r.job_id = of_job AND r.standing IN ('current', 'proposed')
        ORDER BY r.at DESC LIMIT 1;
    END IF;
    UPDATE agent2389.jobs SET state = outcome, open_tasks = 0, finished_at = clock_timestamp()
    WHERE tenant = of_tenant AND job_id = of_job RETURNING * INTO job;
    rendered := jsonb_strip_nulls(jsonb_build_object('job_id', of_job, 'state', outcome))
        || CASE WHEN answer IS NULL THEN '{}' ELSE jsonb_build_object('result', answer) END
        || CASE WHEN problem IS NULL THEN '{}' ELSE jsonb_build_object('error', problem) END
        || jsonb_build_object(
            'route', agent2389.route_of(of_tenant, of_job),
            'usage', jsonb_build_object('tokens', job.input_tokens + job.output_tokens, 'cost_usd', job.cost_usd))
        || CASE WHEN job.rehearsal THEN '{"rehearsal": true}' ELSE '{}'::jsonb END
        || jsonb_build_object('finished_at', agent2389.zulu(job.finished_at));
    INSERT INTO agent2389.job_results (tenant, job_id, state, payload)
    VALUES (of_tenant, of_job, outcome, rendered::text);
    PERFORM agent2389.show_on_board(of_tenant, 'result', ARRAY[of_job], rendered::text);
    effects := agent2389.with_effect(effects, 'changes',
        agent2389.note(of_tenant, of_job, NULL, 'job.' || outcome, last.owner_agent, problem));
    IF job.conversation_id IS NOT NULL THEN
        said := CASE WHEN problem IS NULL
            THEN jsonb_build_object('response', coalesce(answer ->> 'text', ''),
                'task_id', coalesce(last.wire_task_id, last.task_id))
            ELSE jsonb_build_object('error', jsonb_build_object(
                    'code', CASE WHEN problem ->> 'code' IN ('tool_execution_failed', 'llm_error',
                        'invalid_input', 'pipeline_depth_exceeded') THEN problem ->> 'code'
                        ELSE 'internal_error' END,
                    'message', left(problem ->> 'message', 500)),
                'task_id', coalesce(last.wire_task_id, last.task_id)) END;
        effects := agent2389.with_effect(effects, 'deliveries', agent2389.deliver(of_tenant, 'conversation',
            of_job, coalesce(last.owner_agent, last.bound_agent, 'mesh'), job.conversation_id, NULL, NULL, said));
    END IF;
    RETURN effects;
END $$;

-- Whether a task decides how its job ended: verifications do not, nor do branches of a join that
-- had enough without them.
CREATE FUNCTION agent2389.counts(task agent2389.tasks) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT task.verifies IS NULL AND (task.joins IS NULL OR NOT EXISTS (
        WITH RECURSIVE up AS (
            SELECT j.tenant, j.joins, j.join_done, j.join_needed FROM agent2389.tasks j
            WHERE j.tenant = task.tenant AND j.task_id = task.joins
            UNION ALL
            SELECT j.tenant, j.joins, j.join_done, j.join_needed FROM up JOIN agent2389.tasks j
                ON j.tenant = up.tenant AND j.task_id = up.joins)
        SELECT FROM up WHERE join_done >= join_needed))
$$;

-- One incarnation as the fleet shows it.
CREATE FUNCTION agent2389.agent_record(a agent2389.agents, running bigint) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object('agent_id', a.agent_id, 'incarnation', a.incarnation, 'role', a.role,
        'state', CASE WHEN a.state <> 'stopped' AND a.last_beat < clock_timestamp() - interval '30 seconds'
            THEN 'lost' ELSE a.state END,
        'capabilities', a.capabilities, 'description', a.description, 'slots', a.slots,
        'free_slots', a.free_slots, 'version', a.version, 'config_sha256', a.config_sha256,
        'started_at', a.started_at, 'last_beat', a.last_beat, 'tasks_running', running,
        'tasks_total', a.tasks_total, 'metadata', a.metadata)
$$;
