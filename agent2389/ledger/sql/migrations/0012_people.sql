-- What people may do to work and to agents. Every act is an event with its actor.

-- T21, and a person's word in place of a judge's. `action`: retry (with guidance in `words`), accept (the
-- proposed result stands), answer (`words` are the result), cancel. `body` may name a hand-off in `next`.
-- About a verification, accept and answer are the verdict that the judged result stands; cancelled, it ends
-- without a verdict and a person is asked about the judged result itself (T31).
CREATE FUNCTION agent2389_v1.decide(of_task text, action text, words text, who text, body jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t text := agent2389.current_tenant();
    parent text;
    job agent2389.jobs;
    task agent2389.tasks;
    proposed agent2389.results;
    way_on jsonb;
    detail jsonb := jsonb_strip_nulls(jsonb_build_object('actor', who, 'words', left(words, 2000)));
    effects jsonb := agent2389.no_effects();
BEGIN
    SELECT job_id INTO parent FROM agent2389.tasks WHERE tenant = t AND task_id = of_task;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no such task' USING ERRCODE = 'A2404';
    END IF;
    SELECT * INTO job FROM agent2389.jobs WHERE tenant = t AND job_id = parent FOR UPDATE;
    SELECT * INTO task FROM agent2389.tasks x WHERE x.tenant = t AND x.task_id = of_task FOR UPDATE;
    IF NOT (task.state = 'escalated' OR (task.state = 'completed' AND task.held IS NOT NULL)
        OR (task.state = 'waiting' AND task.waiting ->> 'for' IN ('person', 'approval'))) THEN
        RAISE EXCEPTION 'the task is % and does not wait for a person', task.state USING ERRCODE = 'A2409';
    END IF;
    SELECT * INTO proposed FROM agent2389.results WHERE tenant = t AND task_id = of_task AND standing = 'proposed'
    ORDER BY epoch DESC LIMIT 1;
    effects := agent2389.with_effect(effects, 'changes',
        agent2389.note(t, parent, of_task, 'task.' || action || '_by_person', NULL, detail));
    PERFORM agent2389.withdraw_approvals(t, of_task);
    effects := agent2389.joined(effects, agent2389.call_off_verdict(task));
    task := agent2389.give_time_back(task);
    IF action = 'cancel' THEN
        effects := agent2389.joined(effects, agent2389.end_task(task, 'cancelled', NULL, 'task.cancelled'));
        IF task.verifies IS NOT NULL THEN
            effects := agent2389.joined(effects, agent2389.judged(t, task.verifies, NULL,
                coalesce(nullif(words, ''), 'the verification ended without a verdict'), 'person:' || who));
        END IF;
        RETURN agent2389.written('ok', t, of_task, effects);
    ELSIF action = 'retry' THEN
        UPDATE agent2389.results SET standing = 'superseded'
        WHERE tenant = t AND task_id = of_task AND standing = 'proposed';
        UPDATE agent2389.tasks SET attempt = 0, crashes = 0, misses = 0, error = NULL, stop_requested = NULL,
            feedback = coalesce(left(words, 8000), feedback)
        WHERE tenant = t AND task_id = of_task;
        effects := agent2389.joined(effects, agent2389.queue_again(task, 'task.retry', detail));
        RETURN agent2389.written('ok', t, of_task, effects);
    ELSIF action NOT IN ('accept', 'answer') THEN
        RAISE EXCEPTION 'an action is retry, accept, answer or cancel' USING ERRCODE = 'A2001', DETAIL = 'invalid';
    ELSIF action = 'accept' AND proposed.epoch IS NULL THEN
        RAISE EXCEPTION 'the task proposed no result that could be accepted' USING ERRCODE = 'A2409';
    ELSIF action = 'answer' AND coalesce(words, '') = '' THEN
        RAISE EXCEPTION 'an answer needs words' USING ERRCODE = 'A2001', DETAIL = 'invalid';
    ELSIF task.verifies IS NOT NULL AND body IS NOT NULL THEN
        RAISE EXCEPTION 'nothing follows a verification but what it judges' USING ERRCODE = 'A2001', DETAIL = 'invalid';
    ELSIF body IS NOT NULL AND agent2389.reaches_too_far(task, job, body) THEN
        RAISE EXCEPTION 'the hop limit of % is reached: nothing can follow the task', job.max_hops
            USING ERRCODE = 'A2409';
    END IF;
    way_on := jsonb_build_object('next', '[]'::jsonb, 'manifest', coalesce((SELECT manifest
            FROM agent2389.workspaces w WHERE w.tenant = t AND w.task_id = of_task), '{}'))
        || coalesce(task.held, '{}') || coalesce(body, '{}');
    IF action = 'accept' THEN
        UPDATE agent2389.results SET standing = CASE WHEN epoch = proposed.epoch THEN 'current' ELSE 'superseded' END
        WHERE tenant = t AND task_id = of_task AND standing = 'proposed';
    ELSE
        UPDATE agent2389.results SET standing = 'superseded'
        WHERE tenant = t AND task_id = of_task AND standing = 'proposed';
        INSERT INTO agent2389.results (tenant, task_id, epoch, job_id, standing, outcome, payload, usage,
            agent_id, token_hash)
        VALUES (t, of_task, task.epoch + 1, parent, 'current', 'answered', jsonb_build_object('text', words), '{}',
            'person:' || who, sha256(convert_to(agent2389.new_token(), 'UTF8')));
    END IF;
    UPDATE agent2389.tasks SET state = CASE state WHEN 'completed' THEN 'verified' ELSE 'completed' END,
        epoch = epoch + (action = 'answer')::integer, held = NULL, waiting = NULL, paused_at = NULL, error = NULL,
        stop_requested = NULL, finished_at = clock_timestamp()
    WHERE tenant = t AND task_id = of_task;
    effects := agent2389.with_effect(effects, 'changes',
        agent2389.note(t, parent, of_task, 'task.completed', NULL, detail || jsonb_build_object('hop', task.hop)));
    IF task.verifies IS NULL THEN
        effects := agent2389.joined(effects, agent2389.go_on(task, way_on));
    ELSE
        effects := agent2389.joined(effects, agent2389.judged(t, task.verifies, 'approved',
            CASE action WHEN 'answer' THEN words ELSE proposed.payload ->> 'text' END, 'person:' || who));
        effects := agent2389.joined(effects, agent2389.close_job(t, parent, of_task, 1, 0));
    END IF;
    RETURN agent2389.written('ok', t, of_task, effects);
END $$;

-- The verification that runs meanwhile has nothing to judge any more.
CREATE FUNCTION agent2389.call_off_verdict(task agent2389.tasks) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    judge agent2389.tasks;
    effects jsonb := agent2389.no_effects();
BEGIN
    FOR judge IN SELECT * FROM agent2389.tasks v WHERE v.tenant = task.tenant AND v.job_id = task.job_id
        AND v.verifies = task.task_id AND agent2389.is_open(v)
    LOOP
        effects := agent2389.joined(effects, agent2389.call_off(judge));
    END LOOP;
    RETURN effects;
END $$;

-- T28: one task, or every open task of the job.
CREATE FUNCTION agent2389_v1.escalate(of_job text, of_task text, who text, why text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t text := agent2389.current_tenant();
    job agent2389.jobs;
    task agent2389.tasks;
    effects jsonb := agent2389.no_effects();
BEGIN
    SELECT * INTO job FROM agent2389.jobs WHERE tenant = t AND job_id = of_job FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no such job' USING ERRCODE = 'A2404';
    ELSIF job.state <> 'open' THEN
        RETURN jsonb_build_object('verdict', 'already', 'job_state', job.state, 'effects', effects);
    END IF;
    effects := agent2389.with_effect(effects, 'changes', agent2389.note(t, of_job, of_task, 'job.escalation_requested',
        NULL, jsonb_build_object('actor', who, 'reason', why)));
    FOR task IN SELECT * FROM agent2389.tasks x WHERE x.tenant = t AND x.job_id = of_job
        AND (of_task IS NULL OR x.task_id = of_task) AND agent2389.is_open(x) AND x.state <> 'escalated'
        AND coalesce(x.waiting ->> 'for', '') <> 'join' AND x.verifies IS NULL ORDER BY x.task_id FOR UPDATE
    LOOP
        IF task.owner_incarnation IS NOT NULL THEN
            UPDATE agent2389.tasks SET stop_requested = coalesce(stop_requested, 'escalate')
            WHERE tenant = t AND task_id = task.task_id;
        ELSE
            effects := agent2389.joined(effects, agent2389.call_off_verdict(task));
            effects := agent2389.joined(effects, agent2389.ask_person(task, jsonb_build_object('code', 'internal_error',
                'message', coalesce(why, 'a person took the task')), NULL, jsonb_build_object('actor', who)));
        END IF;
    END LOOP;
    SELECT * INTO job FROM agent2389.jobs WHERE tenant = t AND job_id = of_job;
    RETURN jsonb_build_object('verdict', 'ok', 'job_state', agent2389.job_state(job), 'effects', effects);
END $$;

-- T22: terminal rows never move. A new job with the same submission, or, with `correction`, one that is
-- complete with the corrected result at once.
CREATE FUNCTION agent2389_v1.clone(of_job text, new_id text, first_task text, who text, correction text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t text := agent2389.current_tenant();
    source agent2389.jobs;
    made agent2389.jobs;
    origin agent2389.tasks;
    task agent2389.tasks;
    decided jsonb;
    effects jsonb := agent2389.no_effects();
BEGIN
    SELECT * INTO source FROM agent2389.jobs WHERE tenant = t AND job_id = of_job;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no such job' USING ERRCODE = 'A2404';
    ELSIF source.state = 'open' THEN
        RAISE EXCEPTION 'the job is still open' USING ERRCODE = 'A2409';
    ELSIF correction IS NOT NULL AND source.state <> 'completed' THEN
        RAISE EXCEPTION 'only a completed result can be corrected' USING ERRCODE = 'A2409';
    ELSIF EXISTS (SELECT FROM agent2389.jobs WHERE tenant = t AND job_id = new_id) THEN
        RAISE EXCEPTION 'another job has this id' USING ERRCODE = 'A2409';
    END IF;
    INSERT INTO agent2389.jobs (tenant, job_id, content_hash, capability, agent, instruction, submission, files,
        source, priority, max_hops, budget, deadline, traceparent, open_tasks, retry_of)
    VALUES (t, new_id, encode(sha256(convert_to(source.content_hash || new_id, 'UTF8')), 'hex'), source.capability,
        source.agent, source.instruction, source.submission,
        source.files, 'clone', source.priority, source.max_hops,
        source.budget, clock_timestamp() + (source.deadline - source.created_at), source.traceparent, 1, of_job)
    RETURNING * INTO made;
    -- Looked at after the insert, which waits for a burial that is under way.
    IF EXISTS (SELECT FROM agent2389.tombstones WHERE tenant = t AND job_id = new_id) THEN
        RAISE EXCEPTION 'another job had this id' USING ERRCODE = 'A2409';
    END IF;
    SELECT * INTO origin FROM agent2389.tasks x WHERE x.tenant = t AND x.job_id = of_job AND x.parent_task IS NULL;
    INSERT INTO agent2389.tasks (tenant, task_id, job_id, hop, pool, capability, bound_agent, instruction, input,
        next, reason, rank, deadline)
    VALUES (t, first_task, new_id, 1, origin.pool, origin.capability, origin.bound_agent, origin.instruction,
        origin.input, origin.next, 'clone of ' || of_job, origin.rank, made.deadline)
    RETURNING * INTO task;
    INSERT INTO agent2389.workspaces (tenant, task_id, manifest)
    SELECT t, first_task, coalesce(jsonb_object_agg(file ->> 'name', file), '{}')
    FROM jsonb_array_elements(source.files) file;
    effects := agent2389.with_effect(effects, 'changes', agent2389.note(t, new_id, first_task, 'job.accepted', NULL,
        jsonb_build_object('pool', task.pool, 'source', 'clone', 'retry_of', of_job, 'actor', who)));
    IF correction IS NULL THEN
        effects := agent2389.with_effect(effects, 'wakes', agent2389.wake_of(task));
    ELSE
        effects := agent2389.joined(effects, agent2389.ask_person(task,
            '{"code": "internal_error", "message": "a person corrects the result"}', NULL, '{}'));
        decided := agent2389_v1.decide(first_task, 'answer', correction, who, NULL);
        effects := agent2389.joined(effects, decided -> 'effects');
        SELECT * INTO made FROM agent2389.jobs WHERE tenant = t AND job_id = new_id;
    END IF;
    RETURN jsonb_build_object('job_id', new_id, 'verdict', 'accepted', 'state', agent2389.job_state(made),
        'effects', effects);
END $$;

-- T5 by an operator: the named incarnation has thirty seconds to take it.
CREATE FUNCTION agent2389_v1.assign(of_task text, to_incarnation text, who text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t text := agent2389.current_tenant();
    them agent2389.agents;
    task agent2389.tasks;
    effects jsonb := agent2389.no_effects();
BEGIN
    SELECT * INTO them FROM agent2389.agents WHERE tenant = t AND incarnation = to_incarnation AND state = 'running'
        AND last_beat > clock_timestamp() - interval '30 seconds';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no such incarnation is running' USING ERRCODE = 'A2404';
    END IF;
    UPDATE agent2389.tasks SET state = 'assigned', epoch = epoch + 1, owner_incarnation = to_incarnation,
        owner_agent = them.agent_id, token_hash = sha256(convert_to(agent2389.new_token(), 'UTF8')),
        lease_seconds = 30, lease_until = clock_timestamp() + interval '30 seconds', claimed_at = clock_timestamp(),
        rung = true
    WHERE tenant = t AND task_id = of_task AND state = 'queued' AND pool = ANY (them.pools)
        AND not_agent IS DISTINCT FROM them.agent_id RETURNING * INTO task;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the task is not queued for that agent' USING ERRCODE = 'A2409';
    END IF;
    effects := agent2389.with_effect(effects, 'wakes',
        agent2389.wake_of(task) || jsonb_build_object('pool', 'agent.' || them.agent_id));
    effects := agent2389.with_effect(effects, 'changes', agent2389.note(t, task.job_id, of_task, 'task.assigned',
        them.agent_id, jsonb_build_object('actor', who, 'incarnation', to_incarnation, 'epoch', task.epoch)));
    RETURN agent2389.written('ok', t, of_task, effects);
END $$;

-- Returns the incarnations that the command concerns. A pause belongs to the agent id.
CREATE FUNCTION agent2389_v1.command(
    of_command text, of_agent text, of_incarnation text, what text, who text
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t text := agent2389.current_tenant();
    concerned jsonb;
BEGIN
    IF what NOT IN ('pause', 'resume', 'drain', 'stop', 'restart') THEN
        RAISE EXCEPTION 'an action is pause, resume, drain, stop or restart' USING ERRCODE = 'A2001', DETAIL = 'invalid';
    ELSIF NOT EXISTS (SELECT FROM agent2389.agents WHERE tenant = t AND agent_id = of_agent) THEN
        RAISE EXCEPTION 'there is no such agent' USING ERRCODE = 'A2404';
    END IF;
    INSERT INTO agent2389.commands (tenant, command_id, agent_id, incarnation, action, actor)
    VALUES (t, of_command, of_agent, of_incarnation, what, who) ON CONFLICT DO NOTHING;
    IF what = 'pause' THEN
        INSERT INTO agent2389.pauses (tenant, agent_id, actor) VALUES (t, of_agent, who) ON CONFLICT DO NOTHING;
    ELSIF what = 'resume' THEN
        DELETE FROM agent2389.pauses WHERE tenant = t AND agent_id = of_agent;
    ELSE
        UPDATE agent2389.agents SET desired_state = CASE what WHEN 'drain' THEN 'draining' WHEN 'stop' THEN 'stopped'
            ELSE 'restarting' END
        WHERE tenant = t AND agent_id = of_agent AND state <> 'stopped'
            AND (of_incarnation IS NULL OR incarnation = of_incarnation);
    END IF;
    SELECT coalesce(jsonb_agg(a.incarnation ORDER BY a.started_at), '[]') INTO concerned FROM agent2389.agents a
    WHERE a.tenant = t AND a.agent_id = of_agent AND a.state <> 'stopped'
        AND a.last_beat > clock_timestamp() - interval '30 seconds'
        AND (of_incarnation IS NULL OR a.incarnation = of_incarnation);
    RETURN concerned;
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA agent2389, agent2389_v1 FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA agent2389 TO agent2389_upkeep;
GRANT EXECUTE ON FUNCTION
    agent2389_v1.decide, agent2389_v1.escalate, agent2389_v1.clone, agent2389_v1.assign, agent2389_v1.command
    TO agent2389_operator;
-- An agent's own /action endpoint pauses through the ledger, too.
GRANT EXECUTE ON FUNCTION agent2389_v1.command TO agent2389_agent;
