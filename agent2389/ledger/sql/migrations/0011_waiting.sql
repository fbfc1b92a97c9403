-- What an owner waits for: a timer, a person, approvals of exact tool calls. Tasks sent to foreign agents.

-- T24: the lease is given up, the journal stays. `body` is records.Waiting as JSON. Nothing left to
-- wait for answers `already`: the owner looks at the decisions and goes on. A question that was withdrawn
-- is asked again under its old id.
CREATE FUNCTION agent2389_v1.wait(of_task text, of_epoch integer, token text, body jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t text := agent2389.current_tenant();
    f record;
    item jsonb;
    asked agent2389.approvals;
    effects jsonb := agent2389.no_effects();
BEGIN
    SELECT * INTO f FROM agent2389.take_fenced(t, of_task, of_epoch, token);
    IF f.verdict = 'cancel' THEN
        RETURN agent2389.written('cancel', t, of_task, effects);
    ELSIF f.verdict <> 'ok' THEN
        RETURN agent2389.refuse(f.task, of_epoch, 'wait');
    END IF;
    FOR item IN SELECT value FROM jsonb_array_elements(coalesce(body -> 'approvals', '[]'))
    LOOP
        INSERT INTO agent2389.approvals AS p (tenant, approval_id, job_id, task_id, tool, arguments, arguments_sha256,
            question)
        VALUES (t, item ->> 'approval_id', (f.task).job_id, of_task, item ->> 'tool', item ->> 'arguments',
            item ->> 'arguments_sha256', left(item ->> 'question', 2000))
        ON CONFLICT (tenant, task_id, tool, arguments_sha256) DO UPDATE
            SET state = 'pending', question = EXCLUDED.question, asked_at = clock_timestamp(), decided_at = NULL
            WHERE p.state = 'withdrawn' RETURNING * INTO asked;
        IF FOUND THEN
            PERFORM agent2389.show_on_board(t, 'approval', ARRAY[asked.approval_id], jsonb_build_object(
                'approval_id', asked.approval_id, 'job_id', asked.job_id, 'task_id', asked.task_id,
                'tool', asked.tool, 'arguments', left(asked.arguments, 4096),
                'arguments_sha256', asked.arguments_sha256, 'question', asked.question,
                'asked_at', agent2389.zulu(asked.asked_at))::text);
        END IF;
    END LOOP;
    IF body ->> 'for' = 'approval' AND NOT EXISTS (SELECT FROM agent2389.approvals
        WHERE tenant = t AND task_id = of_task AND state = 'pending') THEN
        RETURN agent2389.written('already', t, of_task, effects);
    END IF;
    PERFORM agent2389.book(t, (f.task).job_id, coalesce(body -> 'usage', '{"cost_usd": 0}'));
    UPDATE agent2389.tasks SET state = 'waiting', owner_incarnation = NULL, lease_until = NULL, token_hash = NULL,
        waiting = jsonb_strip_nulls(jsonb_build_object('for', body ->> 'for', 'question', left(body ->> 'question', 2000))),
        run_after = CASE WHEN body ->> 'for' = 'timer' THEN (body ->> 'until')::timestamptz ELSE run_after END,
        paused_at = CASE WHEN body ->> 'for' = 'timer' THEN NULL ELSE clock_timestamp() END
    WHERE tenant = t AND task_id = of_task;
    effects := agent2389.with_effect(effects, 'changes', agent2389.note(t, (f.task).job_id, of_task,
        'task.waiting', (f.task).owner_agent, jsonb_build_object('for', body ->> 'for',
            'question', left(body ->> 'question', 2000))));
    RETURN agent2389.written('ok', t, of_task, effects);
END $$;

CREATE FUNCTION agent2389.withdraw_approvals(of_tenant text, of_task text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE gone text;
BEGIN
    FOR gone IN UPDATE agent2389.approvals SET state = 'withdrawn', decided_at = clock_timestamp()
        WHERE tenant = of_tenant AND task_id = of_task AND state = 'pending' RETURNING approval_id
    LOOP
        PERFORM agent2389.show_on_board(of_tenant, 'approval', ARRAY[gone], NULL);
    END LOOP;
END $$;

CREATE FUNCTION agent2389.approval_row(asked agent2389.approvals) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object('approval_id', asked.approval_id, 'job_id', asked.job_id, 'task_id', asked.task_id,
        'tool', asked.tool, 'arguments', asked.arguments, 'arguments_sha256', asked.arguments_sha256,
        'question', asked.question, 'state', asked.state, 'actor', asked.actor, 'reason', asked.reason,
        'asked_at', asked.asked_at, 'decided_at', asked.decided_at)
$$;

CREATE FUNCTION agent2389_v1.approvals(in_state text, most integer) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_agg(agent2389.approval_row(p) ORDER BY p.asked_at DESC), '[]') FROM (
        SELECT * FROM agent2389.approvals WHERE tenant = agent2389.current_tenant()
            AND (in_state IS NULL OR state = in_state) ORDER BY asked_at DESC LIMIT most) p
$$;

-- A person decides about the exact arguments that were shown. The last decision wakes the task (T25).
CREATE FUNCTION agent2389_v1.decide_approval(
    of_approval text, decision text, of_arguments_sha256 text, who text, why text
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t text := agent2389.current_tenant();
    asked agent2389.approvals;
    task agent2389.tasks;
    effects jsonb := agent2389.no_effects();
BEGIN
    SELECT * INTO asked FROM agent2389.approvals WHERE tenant = t AND approval_id = of_approval;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no such approval' USING ERRCODE = 'A2404';
    ELSIF decision NOT IN ('approved', 'rejected') THEN
        RAISE EXCEPTION 'a decision is approved or rejected' USING ERRCODE = 'A2001', DETAIL = 'invalid';
    ELSIF asked.arguments_sha256 <> of_arguments_sha256 THEN
        RAISE EXCEPTION 'the decision is about other arguments than the question' USING ERRCODE = 'A2001', DETAIL = 'mismatch';
    END IF;
    PERFORM FROM agent2389.jobs j WHERE j.tenant = t AND j.job_id = asked.job_id FOR UPDATE;
    SELECT * INTO task FROM agent2389.tasks x WHERE x.tenant = t AND x.task_id = asked.task_id FOR UPDATE;
    SELECT * INTO asked FROM agent2389.approvals WHERE tenant = t AND approval_id = of_approval FOR UPDATE;
    IF asked.state = decision THEN
        RETURN agent2389.written('already', t, asked.task_id, effects);
    ELSIF asked.state <> 'pending' THEN
        RAISE EXCEPTION 'the approval is % already', asked.state USING ERRCODE = 'A2409';
    END IF;
    UPDATE agent2389.approvals SET state = decision, actor = who, reason = left(why, 2000),
        decided_at = clock_timestamp() WHERE tenant = t AND approval_id = of_approval;
    PERFORM agent2389.show_on_board(t, 'approval', ARRAY[of_approval], NULL);
    effects := agent2389.with_effect(effects, 'changes', agent2389.note(t, asked.job_id, asked.task_id,
        'approval.' || decision, NULL, jsonb_build_object('approval_id', of_approval, 'tool', asked.tool,
            'arguments_sha256', asked.arguments_sha256, 'actor', who, 'reason', why)));
    IF task.state = 'waiting' AND task.waiting ->> 'for' = 'approval' AND NOT EXISTS (SELECT FROM agent2389.approvals
        WHERE tenant = t AND task_id = asked.task_id AND state = 'pending') THEN
        effects := agent2389.joined(effects, agent2389.queue_again(task, 'task.resumed', '{}'));
    END IF;
    RETURN agent2389.written('ok', t, asked.task_id, effects);
END $$;

-- T26: sent to an agent that is not ours; `until` is the deadline of this hop.
CREATE FUNCTION agent2389_v1.forward(of_task text, until timestamptz) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t text := agent2389.current_tenant();
    task agent2389.tasks;
BEGIN
    UPDATE agent2389.tasks SET state = 'forwarded', run_after = least(until, deadline), claimed_at = clock_timestamp(),
        owner_agent = bound_agent, rung = true, forwards = forwards + 1
    WHERE tenant = t AND task_id = of_task AND state = 'queued' AND bound_agent IS NOT NULL
        AND run_after <= clock_timestamp() RETURNING * INTO task;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    RETURN agent2389.written('ok', t, of_task, agent2389.with_effect(agent2389.no_effects(), 'changes',
        agent2389.note(t, task.job_id, of_task, 'task.forwarded', task.bound_agent,
            jsonb_build_object('attempt', task.attempt))));
END $$;

-- T27: what came back for one sending; `of_attempt` is how often the task was sent before it. `body` is
-- records.Finish (an answer) or records.Failure. A repeat, or an answer after another sending, answers `already`.
-- An answer that would go on beyond the hop limit is kept for a person.
CREATE FUNCTION agent2389_v1.forward_ended(of_task text, of_attempt integer, well boolean, body jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t text := agent2389.current_tenant();
    parent text;
    job agent2389.jobs;
    task agent2389.tasks;
    too_far boolean;
    effects jsonb := agent2389.no_effects();
BEGIN
    SELECT job_id INTO parent FROM agent2389.tasks WHERE tenant = t AND task_id = of_task;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no such task' USING ERRCODE = 'A2404';
    END IF;
    SELECT * INTO job FROM agent2389.jobs WHERE tenant = t AND job_id = parent FOR UPDATE;
    SELECT * INTO task FROM agent2389.tasks x WHERE x.tenant = t AND x.task_id = of_task FOR UPDATE;
    IF task.state <> 'forwarded' OR task.forwards - 1 <> of_attempt THEN
        RETURN agent2389.written('already', t, of_task, effects);
    ELSIF NOT well THEN
        effects := agent2389.forward_failed(task, body ->> 'message');
        RETURN agent2389.written('ok', t, of_task, effects);
    END IF;
    too_far := agent2389.reaches_too_far(task, job, body);
    UPDATE agent2389.tasks SET state = CASE WHEN too_far THEN state ELSE 'completed' END, epoch = epoch + 1,
        finished_at = clock_timestamp(), error = NULL
    WHERE tenant = t AND task_id = of_task RETURNING * INTO task;
    INSERT INTO agent2389.results (tenant, task_id, epoch, job_id, standing, outcome, payload, decision, usage,
        agent_id, token_hash)
    VALUES (t, of_task, task.epoch, task.job_id, CASE WHEN too_far THEN 'proposed' ELSE 'current' END, 'completed',
        body -> 'result', body -> 'decision', body -> 'usage', task.owner_agent,
        sha256(convert_to(agent2389.new_token(), 'UTF8')));
    IF too_far THEN
        effects := agent2389.ask_person(task, jsonb_build_object('code', 'internal_error', 'message',
            'the hop limit of ' || job.max_hops || ' is reached and the work is not complete'), task.owner_agent, '{}');
        RETURN agent2389.written('ok', t, of_task, effects);
    END IF;
    effects := agent2389.with_effect(effects, 'changes', agent2389.note(t, task.job_id, of_task,
        'task.completed', task.owner_agent, jsonb_build_object('hop', task.hop, 'foreign', true)));
    body := body || jsonb_build_object('manifest', coalesce((SELECT manifest FROM agent2389.workspaces w
        WHERE w.tenant = t AND w.task_id = of_task), '{}'));
    effects := agent2389.joined(effects, agent2389.go_on(task, body));
    RETURN agent2389.written('ok', t, of_task, effects);
END $$;

CREATE FUNCTION agent2389.forward_failed(task agent2389.tasks, message text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    problem jsonb := jsonb_build_object('code', 'internal_error', 'message', left(message, 500));
BEGIN
    UPDATE agent2389.tasks SET attempt = attempt + 1, error = problem
    WHERE tenant = task.tenant AND task_id = task.task_id;
    IF task.attempt + 1 < task.max_attempts THEN
        RETURN agent2389.queue_again(task, 'task.retry', problem || jsonb_build_object('attempt', task.attempt + 1),
            least(300, 2 * power(2, task.attempt)) * random());
    END IF;
    RETURN agent2389.ask_person(task, problem, task.bound_agent, problem);
END $$;

-- Tasks that wait for agents that never registered here: at most `most` to be sent and `most` that were sent. The
-- agents take turns, so the backlog of one that is away hides nobody else's tasks.
CREATE FUNCTION agent2389_v1.foreign_tasks(most integer) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object('task_id', q.task_id, 'job_id', q.job_id, 'agent_id', q.bound_agent,
        'state', q.state, 'attempt', q.forwards - (q.state = 'forwarded')::integer, 'instruction', coalesce(q.instruction, q.job_instruction),
        'input', q.input, 'next', q.next, 'deadline', q.deadline, 'wire_task_id', q.wire_task_id,
        'conversation_id', q.conversation_id, 'hop', q.hop) ORDER BY q.rank, q.seq), '[]')
    FROM (SELECT x.*, j.instruction AS job_instruction, j.conversation_id
        FROM (SELECT y.*, row_number() OVER (PARTITION BY y.state ORDER BY y.turn, y.rank, y.seq) AS place
            FROM (SELECT z.*, row_number() OVER (PARTITION BY z.state, z.bound_agent ORDER BY z.rank, z.seq) AS turn
                FROM agent2389.tasks z
                WHERE z.tenant = agent2389.current_tenant() AND z.bound_agent IS NOT NULL
                    AND z.state IN ('queued', 'forwarded')
                    AND (z.state = 'forwarded' OR z.run_after <= clock_timestamp())
                    AND NOT EXISTS (SELECT FROM agent2389.agents a
                        WHERE a.tenant = z.tenant AND a.agent_id = z.bound_agent)) y) x
        JOIN agent2389.jobs j USING (tenant, job_id) WHERE x.place <= most) q
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA agent2389, agent2389_v1 FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA agent2389 TO agent2389_upkeep;
GRANT EXECUTE ON FUNCTION agent2389_v1.wait TO agent2389_agent;
GRANT EXECUTE ON FUNCTION
    agent2389_v1.forward, agent2389_v1.forward_ended, agent2389_v1.foreign_tasks
    TO agent2389_agent, agent2389_operator;
GRANT EXECUTE ON FUNCTION agent2389_v1.approvals, agent2389_v1.decide_approval TO agent2389_operator;
