-- What an owner asks of the journal around its calls: begin, end, resume, escalate.

-- The fence alone, without the job's lock: siblings of one job do not wait for each other's calls.
CREATE FUNCTION agent2389.take_task(
    t text, of_task text, of_epoch integer, token text, OUT verdict text, OUT task agent2389.tasks
)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    SELECT * INTO task FROM agent2389.tasks x WHERE x.tenant = t AND x.task_id = of_task FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no such task' USING ERRCODE = 'A2404';
    END IF;
    verdict := CASE
        WHEN task.epoch IS DISTINCT FROM of_epoch OR task.lease_until <= clock_timestamp()
            OR task.token_hash IS DISTINCT FROM sha256(convert_to(token, 'UTF8')) THEN 'fenced'
        WHEN task.stop_requested IS NOT NULL THEN 'cancel'
        ELSE 'ok' END;
END $$;

-- Begins one call: journals it and reserves what it may cost. Raises A2311 for an unsafe call in doubt.
CREATE FUNCTION agent2389.begin_one(task agent2389.tasks, item jsonb, own jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    known agent2389.effects;
    twin agent2389.effects;
    price jsonb := item -> 'reserve';
    held jsonb;
BEGIN
    SELECT * INTO known FROM agent2389.effects e WHERE e.tenant = task.tenant AND e.task_id = task.task_id
        AND e.generation = task.generation AND e.step = (item ->> 'step')::integer AND e.call = (item ->> 'call')::smallint;
    IF known.state = 'done' THEN
        RETURN agent2389.answer_of(known);
    ELSIF known.state = 'started' AND known.epoch = task.epoch THEN
        -- The answer to the first asking was lost; the call was not made yet.
        RETURN jsonb_build_object('verdict', 'fresh', 'repeated', known.tries > 1);
    ELSIF known.state IN ('started', 'in_doubt') AND known.repeat = 'unsafe' THEN
        RAISE EXCEPTION 'in doubt' USING ERRCODE = 'A2311', DETAIL = known.name;
    END IF;
    IF known.state IS NULL AND item ->> 'repeat' IN ('keyed', 'unsafe') THEN
        SELECT * INTO twin FROM agent2389.effects e WHERE e.tenant = task.tenant AND e.task_id = task.task_id
            AND e.key = item ->> 'key' AND e.state <> 'void' AND NOT e.reused
            AND NOT (e.repeat = 'keyed' AND e.failed)
        ORDER BY e.generation DESC, e.step DESC LIMIT 1;
        IF twin.state = 'done' THEN
            INSERT INTO agent2389.effects (tenant, task_id, job_id, generation, step, call, kind, name, repeat,
                request_hash, key, state, failed, reused, response, epoch, agent_id, ended_at)
            VALUES (task.tenant, task.task_id, task.job_id, task.generation, (item ->> 'step')::integer,
                (item ->> 'call')::smallint, item ->> 'kind', item ->> 'name', item ->> 'repeat',
                item ->> 'request_hash', item ->> 'key', 'done', twin.failed, true, twin.response, task.epoch,
                task.owner_agent, clock_timestamp());
            RETURN agent2389.answer_of(twin);
        ELSIF twin.state IS NOT NULL AND twin.repeat = 'unsafe' THEN
            RAISE EXCEPTION 'in doubt' USING ERRCODE = 'A2311', DETAIL = twin.name;
        END IF;
    END IF;
    held := agent2389.reserve(task, own, jsonb_build_object('cost_usd', price -> 'cost_usd',
        'tokens', (price ->> 'input_tokens')::bigint + (price ->> 'output_tokens')::bigint,
        'tool_calls', CASE item ->> 'kind' WHEN 'tool' THEN 1 ELSE 0 END, 'seconds', price -> 'seconds'));
    INSERT INTO agent2389.effects AS e (tenant, task_id, job_id, generation, step, call, kind, name, repeat,
        request_hash, key, state, epoch, agent_id, reserved_cost, reserved_input, reserved_output,
        reserved_seconds, holds)
    VALUES (task.tenant, task.task_id, task.job_id, task.generation, (item ->> 'step')::integer,
        (item ->> 'call')::smallint, item ->> 'kind', item ->> 'name', item ->> 'repeat', item ->> 'request_hash',
        item ->> 'key', 'started', task.epoch, task.owner_agent, (price ->> 'cost_usd')::numeric,
        (price ->> 'input_tokens')::bigint, (price ->> 'output_tokens')::bigint,
        (price ->> 'seconds')::double precision, held)
    ON CONFLICT (tenant, task_id, generation, step, call) DO UPDATE SET kind = EXCLUDED.kind, name = EXCLUDED.name,
        repeat = EXCLUDED.repeat, request_hash = EXCLUDED.request_hash, key = EXCLUDED.key, state = 'started',
        epoch = EXCLUDED.epoch, agent_id = EXCLUDED.agent_id, tries = e.tries + 1,
        started_at = clock_timestamp(), ended_at = NULL,
        reserved_cost = EXCLUDED.reserved_cost, reserved_input = EXCLUDED.reserved_input,
        reserved_output = EXCLUDED.reserved_output, reserved_seconds = EXCLUDED.reserved_seconds,
        holds = EXCLUDED.holds, failed = false;
    RETURN jsonb_build_object('verdict', 'fresh', 'repeated', known.state IS NOT NULL);
END $$;

CREATE FUNCTION agent2389.answer_of(effect agent2389.effects) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object('verdict', 'done', 'failed', effect.failed, 'response',
        (SELECT m.body FROM agent2389.messages m WHERE m.tenant = effect.tenant AND m.sha256 = effect.response))
$$;

-- Begins all of `starts` (records of journal.EffectStart) or none of them.
CREATE FUNCTION agent2389_v1.effect_begin(of_task text, of_epoch integer, token text, starts jsonb, own jsonb)
RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    f record;
    item jsonb;
    answers jsonb := '[]';
    detail text;
BEGIN
    SELECT * INTO f FROM agent2389.take_task(agent2389.current_tenant(), of_task, of_epoch, token);
    IF f.verdict <> 'ok' THEN
        IF f.verdict = 'fenced' THEN
            PERFORM agent2389.refuse(f.task, of_epoch, 'effect_begin');
        END IF;
        RETURN jsonb_build_object('verdict', f.verdict);
    END IF;
    BEGIN
        FOR item IN SELECT value FROM jsonb_array_elements(starts)
        LOOP
            answers := answers || jsonb_build_array(agent2389.begin_one(f.task, item, own));
        END LOOP;
    EXCEPTION
        WHEN SQLSTATE 'A2310' THEN
            GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
            RETURN jsonb_build_object('verdict', 'refused', 'refusal', detail::jsonb);
        WHEN SQLSTATE 'A2311' THEN
            GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
            RETURN jsonb_build_object('verdict', 'in_doubt', 'doubtful', detail);
    END;
    RETURN jsonb_build_object('verdict', 'ok', 'answers', answers);
END $$;

-- Keeps messages: bodies once, places in the conversation as they are told.
CREATE FUNCTION agent2389.keep_messages(task agent2389.tasks, items jsonb) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    -- One that comes again is young again, so that retention does not take it in the same moment.
    INSERT INTO agent2389.messages AS m (tenant, sha256, body)
    SELECT DISTINCT task.tenant, sha256(convert_to(i ->> 'body', 'UTF8')), i ->> 'body'
    FROM jsonb_array_elements(items) i
    ORDER BY 2 ON CONFLICT (tenant, sha256) DO UPDATE SET at = clock_timestamp()
        WHERE m.at < clock_timestamp() - interval '30 minutes';
    INSERT INTO agent2389.transcript (tenant, task_id, generation, step, slot, kind, sha256, epoch)
    SELECT task.tenant, task.task_id, task.generation, (i ->> 'step')::integer, (i ->> 'slot')::smallint,
        i ->> 'kind', sha256(convert_to(i ->> 'body', 'UTF8')), task.epoch
    FROM jsonb_array_elements(items) i
    ON CONFLICT DO NOTHING
$$;

-- Ends calls: done, settled, messages and the workspace as it is now, in one transaction. `body` is
-- {ends, messages, manifest}. Repeated by the same owner it answers `already`.
CREATE FUNCTION agent2389_v1.effect_end(of_task text, of_epoch integer, token text, body jsonb) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    f record;
    item jsonb;
    used jsonb;
    effect agent2389.effects;
BEGIN
    SELECT * INTO f FROM agent2389.take_task(agent2389.current_tenant(), of_task, of_epoch, token);
    IF f.verdict = 'fenced' THEN
        PERFORM agent2389.refuse(f.task, of_epoch, 'effect_end');
        RETURN 'fenced';
    END IF;
    PERFORM agent2389.keep_messages(f.task, body -> 'messages');
    FOR item IN SELECT value FROM jsonb_array_elements(body -> 'ends')
    LOOP
        SELECT * INTO effect FROM agent2389.effects e WHERE e.tenant = (f.task).tenant AND e.task_id = of_task
            AND e.generation = (f.task).generation AND e.step = (item ->> 'step')::integer
            AND e.call = (item ->> 'call')::smallint;
        IF effect.state IN ('done', 'void') AND effect.epoch = of_epoch THEN
            RETURN 'already';
        ELSIF effect.state IS DISTINCT FROM 'started' OR effect.epoch <> of_epoch THEN
            RAISE EXCEPTION 'a call ends that did not begin' USING ERRCODE = 'A2901';
        END IF;
        used := item -> 'used';
        PERFORM agent2389.settle(effect, (used ->> 'cost_usd')::numeric,
            (used ->> 'input_tokens')::numeric + (used ->> 'output_tokens')::numeric, 1, (used ->> 'seconds')::numeric);
        UPDATE agent2389.effects e SET state = CASE WHEN (item ->> 'void')::boolean THEN 'void' ELSE 'done' END,
            failed = (item ->> 'failed')::boolean, ended_at = clock_timestamp(), holds = '[]',
            cost_usd = e.cost_usd + (used ->> 'cost_usd')::numeric,
            input_tokens = e.input_tokens + (used ->> 'input_tokens')::bigint,
            output_tokens = e.output_tokens + (used ->> 'output_tokens')::bigint,
            seconds = e.seconds + (used ->> 'seconds')::double precision,
            reserved_cost = 0, reserved_input = 0, reserved_output = 0, reserved_seconds = 0,
            response = (SELECT s.sha256 FROM agent2389.transcript s WHERE s.tenant = e.tenant AND s.task_id = e.task_id
                AND s.generation = e.generation AND s.step = e.step AND s.slot = e.call)
        WHERE e.tenant = effect.tenant AND e.task_id = of_task AND e.generation = effect.generation
            AND e.step = effect.step AND e.call = effect.call;
    END LOOP;
    IF jsonb_typeof(body -> 'manifest') = 'object' THEN
        INSERT INTO agent2389.workspaces (tenant, task_id, manifest) VALUES ((f.task).tenant, of_task, body -> 'manifest')
        ON CONFLICT (tenant, task_id) DO UPDATE SET manifest = EXCLUDED.manifest, at = clock_timestamp();
    END IF;
    RETURN 'ok';
END $$;

-- What a new owner goes on from: the conversation and the effects of the current generation.
CREATE FUNCTION agent2389_v1.resume(of_task text, of_epoch integer, token text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    f record;
BEGIN
    SELECT * INTO f FROM agent2389.take_task(agent2389.current_tenant(), of_task, of_epoch, token);
    IF f.verdict = 'fenced' THEN
        RETURN jsonb_build_object('verdict', 'fenced');
    END IF;
    RETURN jsonb_build_object('verdict', f.verdict, 'messages', (
            SELECT coalesce(jsonb_agg(jsonb_build_object('step', s.step, 'slot', s.slot, 'kind', s.kind, 'body', m.body)
                ORDER BY s.step, s.slot), '[]')
            FROM agent2389.transcript s JOIN agent2389.messages m USING (tenant, sha256)
            WHERE s.tenant = (f.task).tenant AND s.task_id = of_task AND s.generation = (f.task).generation),
        'effects', (SELECT coalesce(jsonb_agg(agent2389.effect_row(e) ORDER BY e.step, e.call), '[]')
            FROM agent2389.effects e
            WHERE e.tenant = (f.task).tenant AND e.task_id = of_task AND e.generation = (f.task).generation));
END $$;

CREATE FUNCTION agent2389.effect_row(e agent2389.effects) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object('task_id', e.task_id, 'generation', e.generation, 'step', e.step, 'call', e.call,
        'kind', e.kind, 'name', e.name, 'repeat', e.repeat, 'state', e.state, 'failed', e.failed,
        'reused', e.reused, 'tries', e.tries, 'epoch', e.epoch, 'agent_id', e.agent_id, 'key', e.key,
        'used', jsonb_build_object('cost_usd', e.cost_usd, 'input_tokens', e.input_tokens,
            'output_tokens', e.output_tokens, 'seconds', e.seconds),
        'started_at', e.started_at, 'ended_at', e.ended_at)
$$;

-- The owner asks a person: the lease is given up, journal and partial answer are kept. `body` is
-- {reason, message, partial}.
CREATE FUNCTION agent2389_v1.escalate_task(of_task text, of_epoch integer, token text, body jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t text := agent2389.current_tenant();
    f record;
    task agent2389.tasks;
    effects jsonb;
BEGIN
    SELECT * INTO f FROM agent2389.take_fenced(t, of_task, of_epoch, token);
    task := f.task;
    IF f.verdict = 'cancel' THEN
        RETURN agent2389_v1.stop_task(of_task, of_epoch, token, coalesce(body ->> 'partial', ''));
    ELSIF f.verdict <> 'ok' THEN
        RETURN agent2389.refuse(task, of_epoch, 'escalate');
    END IF;
    IF coalesce(body ->> 'partial', '') <> '' THEN
        INSERT INTO agent2389.results (tenant, task_id, epoch, job_id, standing, outcome, payload, usage,
            agent_id, incarnation, token_hash)
        VALUES (t, of_task, of_epoch, task.job_id, 'proposed', 'stopped',
            jsonb_build_object('text', body ->> 'partial'), '{}', task.owner_agent, task.owner_incarnation,
            task.token_hash);
    END IF;
    effects := agent2389.ask_person(task,
        jsonb_build_object('code', 'internal_error', 'message', left(body ->> 'message', 500)),
        task.owner_agent, jsonb_build_object('reason', body ->> 'reason'));
    RETURN agent2389.written('ok', t, of_task, effects);
END $$;

-- A person says what became of an unsafe call in doubt: it happened (and answered `answer`) or it did
-- not. When none of the task's calls is in doubt any more, an escalated task waits for an agent again.
CREATE FUNCTION agent2389_v1.resolve_effect(
    of_task text, of_step integer, of_call integer, happened boolean, answer text, who text
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t text := agent2389.current_tenant();
    task agent2389.tasks;
    effect agent2389.effects;
    said text := jsonb_build_object('role', 'tool', 'text', answer)::text;
    effects jsonb := agent2389.no_effects();
BEGIN
    PERFORM 1 FROM agent2389.jobs j WHERE j.tenant = t AND j.job_id = (SELECT x.job_id FROM agent2389.tasks x
        WHERE x.tenant = t AND x.task_id = of_task) FOR UPDATE;
    SELECT * INTO task FROM agent2389.tasks x WHERE x.tenant = t AND x.task_id = of_task FOR UPDATE;
    SELECT * INTO effect FROM agent2389.effects e WHERE e.tenant = t AND e.task_id = of_task
        AND e.step = of_step AND e.call = of_call AND e.state = 'in_doubt' ORDER BY e.generation DESC LIMIT 1;
    IF effect.task_id IS NULL OR task.owner_incarnation IS NOT NULL THEN
        RAISE EXCEPTION 'there is no such call in doubt' USING ERRCODE = 'A2404';
    END IF;
    IF happened THEN
        -- The answer belongs to the conversation in which the call was made, which need not be the current one.
        task.generation := effect.generation;
        PERFORM agent2389.keep_messages(task, jsonb_build_array(jsonb_build_object(
            'step', of_step, 'slot', of_call, 'kind', 'turn', 'body', said)));
    END IF;
    UPDATE agent2389.effects e SET state = CASE WHEN happened THEN 'done' ELSE 'void' END,
        response = CASE WHEN happened THEN sha256(convert_to(said, 'UTF8')) END
    WHERE e.tenant = t AND e.task_id = of_task AND e.generation = effect.generation AND e.step = of_step
        AND e.call = of_call;
    effects := agent2389.with_effect(effects, 'changes', agent2389.note(t, task.job_id, of_task,
        'effect.resolved', NULL, jsonb_build_object('actor', who, 'tool', effect.name, 'happened', happened)));
    IF task.state = 'escalated' AND NOT EXISTS (SELECT FROM agent2389.effects e WHERE e.tenant = t
        AND e.task_id = of_task AND e.state = 'in_doubt' AND e.repeat = 'unsafe') THEN
        UPDATE agent2389.tasks SET error = NULL WHERE tenant = t AND task_id = of_task;
        effects := agent2389.joined(effects, agent2389.queue_again(task, 'task.resumed', '{}'));
    END IF;
    RETURN agent2389.written('ok', t, of_task, effects);
END $$;
