-- What the owner of a task writes: every function presents (task, epoch, token), the fence.

-- Locks job, then task, and checks the fence. `verdict` is ok | cancel | already | fenced.
CREATE FUNCTION agent2389.take_fenced(
    t text, of_task text, of_epoch integer, token text,
    OUT verdict text, OUT task agent2389.tasks, OUT job agent2389.jobs
)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE parent text;
BEGIN
    SELECT x.job_id INTO parent FROM agent2389.tasks x WHERE x.tenant = t AND x.task_id = of_task;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no such task' USING ERRCODE = 'A2404';
    END IF;
    SELECT * INTO job FROM agent2389.jobs j WHERE j.tenant = t AND j.job_id = parent FOR UPDATE;
    SELECT * INTO task FROM agent2389.tasks x WHERE x.tenant = t AND x.task_id = of_task FOR UPDATE;
    IF task.epoch = of_epoch AND task.token_hash = sha256(convert_to(token, 'UTF8')) AND task.lease_until > clock_timestamp() THEN
        verdict := CASE WHEN task.stop_requested IS NULL THEN 'ok' ELSE 'cancel' END;
    ELSIF EXISTS (SELECT FROM agent2389.results r WHERE r.tenant = t AND r.task_id = of_task
        AND r.epoch = of_epoch AND r.token_hash = sha256(convert_to(token, 'UTF8')) AND r.standing <> 'refused') THEN
        verdict := 'already';
    ELSE
        verdict := 'fenced';
    END IF;
END $$;

CREATE FUNCTION agent2389.written(said text, of_tenant text, of_task text, effects jsonb) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object('verdict', said, 'task_state', x.state,
        'job_state', agent2389.job_state(j), 'effects', effects)
    FROM agent2389.tasks x JOIN agent2389.jobs j USING (tenant, job_id)
    WHERE x.tenant = of_tenant AND x.task_id = of_task
$$;

-- T23: refused, counted, kept as evidence with the first 2,000 characters of what was to be written.
CREATE FUNCTION agent2389.refuse(
    task agent2389.tasks, of_epoch integer, what text, evidence text DEFAULT NULL
) RETURNS jsonb
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT agent2389.written('fenced', task.tenant, task.task_id, agent2389.with_effect(agent2389.no_effects(),
        'changes', agent2389.note(task.tenant, task.job_id, task.task_id, 'task.fenced', NULL,
            jsonb_build_object('write', what, 'epoch', of_epoch, 'current_epoch', task.epoch)
            || CASE WHEN evidence IS NULL THEN '{}' ELSE jsonb_build_object('evidence', left(evidence, 2000)) END)))
$$;

CREATE FUNCTION agent2389_v1.checkpoint(of_task text, of_epoch integer, token text, files jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t text := agent2389.current_tenant();
    f record;
BEGIN
    SELECT * INTO f FROM agent2389.take_fenced(t, of_task, of_epoch, token);
    IF f.verdict NOT IN ('ok', 'cancel') THEN
        RETURN agent2389.refuse(f.task, of_epoch, 'checkpoint');
    END IF;
    INSERT INTO agent2389.workspaces (tenant, task_id, manifest) VALUES (t, of_task, files)
    ON CONFLICT (tenant, task_id) DO UPDATE SET manifest = EXCLUDED.manifest, at = clock_timestamp();
    RETURN agent2389.written('ok', t, of_task, agent2389.no_effects());
END $$;

-- T15: result, hand-off, deliveries and job end in one transaction. `body` is records.Finish as JSON
-- with the id of every task that may follow filled in.
CREATE FUNCTION agent2389_v1.finish(of_task text, of_epoch integer, token text, body jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t text := agent2389.current_tenant();
    f record;
    task agent2389.tasks;
    asks_verdict boolean;
    asks_person boolean := coalesce((body ->> 'escalate')::boolean, false);
    too_far boolean;
    effects jsonb := agent2389.no_effects();
BEGIN
    SELECT * INTO f FROM agent2389.take_fenced(t, of_task, of_epoch, token);
    task := f.task;
    IF f.verdict = 'fenced' THEN
        RETURN agent2389.refuse(task, of_epoch, 'finish', body -> 'result' ->> 'text');
    ELSIF f.verdict <> 'ok' THEN
        RETURN agent2389.written(f.verdict, t, of_task, effects);
    END IF;
    too_far := agent2389.reaches_too_far(task, f.job, body);
    asks_verdict := nullif(body -> 'verify', 'null') IS NOT NULL AND task.verifies IS NULL;
    PERFORM agent2389.book(t, task.job_id, body -> 'usage');
    IF (body ->> 'rehearsal')::boolean AND NOT (f.job).rehearsal THEN
        UPDATE agent2389.jobs SET rehearsal = true WHERE tenant = t AND job_id = task.job_id;
    END IF;
    INSERT INTO agent2389.results (tenant, task_id, epoch, job_id, standing, outcome, payload, decision, usage,
        agent_id, incarnation, token_hash)
    VALUES (t, of_task, of_epoch, task.job_id,
        CASE WHEN asks_person OR asks_verdict OR too_far THEN 'proposed' ELSE 'current' END,
        'completed', body -> 'result', body -> 'decision', body -> 'usage', task.owner_agent,
        task.owner_incarnation, sha256(convert_to(token, 'UTF8')));
    UPDATE agent2389.agents SET tasks_total = tasks_total + 1
    WHERE tenant = t AND incarnation = task.owner_incarnation;
    INSERT INTO agent2389.workspaces (tenant, task_id, manifest) VALUES (t, of_task, body -> 'manifest')
    ON CONFLICT (tenant, task_id) DO UPDATE SET manifest = EXCLUDED.manifest, at = clock_timestamp();
    IF too_far THEN
        effects := agent2389.end_task(task, 'dead', jsonb_build_object('code', 'internal_error', 'message',
            'the hop limit of ' || (f.job).max_hops || ' is reached and the work is not complete'), 'task.dead');
    ELSIF asks_person THEN
        effects := agent2389.ask_person(task, jsonb_build_object('code', 'internal_error', 'message',
            coalesce(body -> 'decision' ->> 'reason', 'a person is asked')), task.owner_agent, body -> 'decision');
    ELSE
        UPDATE agent2389.tasks SET state = 'completed', owner_incarnation = NULL, lease_until = NULL,
            token_hash = NULL, finished_at = clock_timestamp(), error = NULL,
            held = CASE WHEN asks_verdict THEN body END
        WHERE tenant = t AND task_id = of_task;
        effects := agent2389.with_effect(effects, 'changes', agent2389.note(t, task.job_id, of_task,
            'task.completed', task.owner_agent, jsonb_build_object('hop', task.hop,
                'decision', jsonb_build_object('outcome', body -> 'decision' ->> 'outcome',
                    'chosen', body -> 'decision' ->> 'chosen', 'reason', body -> 'decision' ->> 'reason'))));
        effects := agent2389.joined(effects, CASE
            WHEN asks_verdict THEN agent2389.ask_verdict(task, body)
            WHEN task.verifies IS NOT NULL THEN agent2389.give_verdict(task, body)
            ELSE agent2389.go_on(task, body) END);
    END IF;
    RETURN agent2389.written('ok', t, of_task, effects);
END $$;

-- T12 to T14. Full-jitter back-off between 0 and 2 s x 2^attempt, at most 300 s; at least `wait` seconds.
-- A task that a person took (T28) goes to that person, whatever became of the attempt.
CREATE FUNCTION agent2389_v1.fail(of_task text, of_epoch integer, token text, body jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t text := agent2389.current_tenant();
    f record;
    task agent2389.tasks;
    problem jsonb := jsonb_build_object('code', body ->> 'code', 'message', left(body ->> 'message', 500));
    wait double precision;
    taken boolean;
    effects jsonb := agent2389.no_effects();
BEGIN
    SELECT * INTO f FROM agent2389.take_fenced(t, of_task, of_epoch, token);
    task := f.task;
    taken := coalesce(task.stop_requested = 'escalate', false);
    IF f.verdict NOT IN ('ok', 'cancel') THEN
        RETURN agent2389.refuse(task, of_epoch, 'fail', body ->> 'message');
    END IF;
    PERFORM agent2389.book(t, task.job_id, body -> 'usage');
    IF coalesce(body ->> 'partial', '') <> '' THEN
        INSERT INTO agent2389.results (tenant, task_id, epoch, job_id, standing, outcome, payload, usage,
            agent_id, incarnation, token_hash)
        VALUES (t, of_task, of_epoch, task.job_id, 'proposed', 'failed',
            jsonb_build_object('text', body ->> 'partial'), body -> 'usage', task.owner_agent,
            task.owner_incarnation, sha256(convert_to(token, 'UTF8')));
    END IF;
    IF f.verdict = 'cancel' AND task.stop_requested = 'cancel' THEN
        effects := agent2389.end_task(task, 'cancelled', NULL, 'task.cancelled');
    ELSIF NOT taken AND (body ->> 'retryable')::boolean AND task.attempt + 1 < task.max_attempts THEN
        wait := greatest(coalesce((body ->> 'retry_after')::double precision, 0),
            least(300, 2 * power(2, task.attempt)) * random());
        UPDATE agent2389.tasks SET state = 'queued', attempt = attempt + 1, error = problem,
            owner_incarnation = NULL, lease_until = NULL, token_hash = NULL, rung = false,
            run_after = clock_timestamp() + make_interval(secs => wait)
        WHERE tenant = t AND task_id = of_task;
        effects := agent2389.with_effect(effects, 'changes', agent2389.note(t, task.job_id, of_task,
            'task.retry', task.owner_agent, problem || jsonb_build_object('attempt', task.attempt + 1,
                'wait_seconds', round(wait::numeric, 3))));
    ELSE
        UPDATE agent2389.tasks SET attempt = least(attempt + 1, max_attempts)
        WHERE tenant = t AND task_id = of_task;
        effects := CASE WHEN taken OR (body ->> 'escalate')::boolean
            THEN agent2389.ask_person(task, problem, task.owner_agent, problem)
            ELSE agent2389.end_task(task, 'dead', problem, 'task.dead') END;
    END IF;
    RETURN agent2389.written('ok', t, of_task, effects);
END $$;

-- T9: back to the queue at once; attempt and journal stay.
CREATE FUNCTION agent2389_v1.release(of_task text, of_epoch integer, token text, why text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t text := agent2389.current_tenant();
    f record;
    task agent2389.tasks;
    effects jsonb := agent2389.no_effects();
BEGIN
    SELECT * INTO f FROM agent2389.take_fenced(t, of_task, of_epoch, token);
    IF f.verdict = 'cancel' THEN
        RETURN agent2389_v1.stop_task(of_task, of_epoch, token, '');
    ELSIF f.verdict <> 'ok' THEN
        RETURN agent2389.refuse(f.task, of_epoch, 'release');
    END IF;
    UPDATE agent2389.tasks SET state = 'queued', owner_incarnation = NULL, lease_until = NULL,
        token_hash = NULL, run_after = clock_timestamp()
    WHERE tenant = t AND task_id = of_task RETURNING * INTO task;
    effects := agent2389.with_effect(effects, 'wakes', agent2389.wake_of(task));
    effects := agent2389.with_effect(effects, 'changes', agent2389.note(t, task.job_id, of_task,
        'task.released', task.owner_agent, jsonb_build_object('reason', why)));
    RETURN agent2389.written('ok', t, of_task, effects);
END $$;

-- T29: the owner stopped after the beat's hint; what it was asked for decides the state.
CREATE FUNCTION agent2389_v1.stop_task(of_task text, of_epoch integer, token text, partial text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t text := agent2389.current_tenant();
    f record;
    task agent2389.tasks;
    effects jsonb;
BEGIN
    SELECT * INTO f FROM agent2389.take_fenced(t, of_task, of_epoch, token);
    task := f.task;
    IF f.verdict NOT IN ('ok', 'cancel') THEN
        RETURN agent2389.refuse(task, of_epoch, 'stop', nullif(partial, ''));
    END IF;
    IF partial <> '' THEN
        INSERT INTO agent2389.results (tenant, task_id, epoch, job_id, standing, outcome, payload, usage,
            agent_id, incarnation, token_hash)
        VALUES (t, of_task, of_epoch, task.job_id, 'proposed', 'stopped', jsonb_build_object('text', partial),
            '{}', task.owner_agent, task.owner_incarnation, sha256(convert_to(token, 'UTF8')));
    END IF;
    effects := CASE
        WHEN task.stop_requested = 'cancel'
            THEN agent2389.end_task(task, 'cancelled', NULL, 'task.cancelled')
        WHEN task.stop_requested = 'expire' OR task.deadline <= clock_timestamp()
            THEN agent2389.end_task(task, 'expired', NULL, 'task.expired')
        ELSE NULL END;
    IF effects IS NULL AND task.stop_requested = 'escalate' THEN
        effects := agent2389.ask_person(task, jsonb_build_object('code', 'internal_error', 'message',
            'a person took the task from its agent'), task.owner_agent, '{}');
    ELSIF effects IS NULL THEN
        UPDATE agent2389.tasks SET state = 'queued', owner_incarnation = NULL, lease_until = NULL,
            token_hash = NULL
        WHERE tenant = t AND task_id = of_task RETURNING * INTO task;
        effects := agent2389.with_effect(agent2389.with_effect(agent2389.no_effects(),
            'wakes', agent2389.wake_of(task)), 'changes',
            agent2389.note(t, task.job_id, of_task, 'task.queued', task.owner_agent, '{}'));
    END IF;
    RETURN agent2389.written('ok', t, of_task, effects);
END $$;
