-- What follows from a finished task: the next one, branches and the task that joins them, a verdict,
-- a person. All of it runs under the job's lock and returns effects.

-- Whether a person has the word about something that the task waits for: its verification, a branch of it.
CREATE FUNCTION agent2389.waits_on_person(task agent2389.tasks) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE awaited AS (
        SELECT task.task_id AS task_id, false AS asks
        UNION
        SELECT x.task_id, x.paused_at IS NOT NULL FROM awaited a JOIN agent2389.tasks x
            ON x.tenant = task.tenant AND x.job_id = task.job_id AND a.task_id IN (x.joins, x.verifies)
            AND agent2389.is_open(x)
    )
    SELECT task.state IN ('waiting', 'completed') AND EXISTS (SELECT FROM awaited WHERE asks)
$$;

-- Ends a pause: the time that a person took is added to the deadline, and whatever waits for the task has at
-- least as long. Two pauses at once are not added up. Returns the task as it is now.
CREATE FUNCTION agent2389.give_time_back(task agent2389.tasks) RETURNS agent2389.tasks
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE fresh agent2389.tasks;
BEGIN
    UPDATE agent2389.tasks SET deadline = deadline + (clock_timestamp() - paused_at), paused_at = NULL
    WHERE tenant = task.tenant AND task_id = task.task_id AND paused_at IS NOT NULL RETURNING * INTO fresh;
    IF NOT FOUND THEN
        SELECT * INTO fresh FROM agent2389.tasks WHERE tenant = task.tenant AND task_id = task.task_id;
        RETURN fresh;
    END IF;
    WITH RECURSIVE above AS (
        SELECT coalesce(fresh.verifies, fresh.joins) AS task_id
        UNION
        SELECT coalesce(x.verifies, x.joins) FROM above a JOIN agent2389.tasks x
            ON x.tenant = fresh.tenant AND x.task_id = a.task_id
    )
    UPDATE agent2389.tasks x SET deadline = fresh.deadline
    WHERE x.tenant = fresh.tenant AND x.task_id IN (SELECT a.task_id FROM above a)
        AND x.deadline < fresh.deadline AND agent2389.is_open(x);
    RETURN fresh;
END $$;

-- Back to the queue, at once or after `wait` seconds; time that a person took is added to the deadline.
CREATE FUNCTION agent2389.queue_again(
    task agent2389.tasks, what text, detail jsonb, wait double precision DEFAULT 0
) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    again agent2389.tasks;
    effects jsonb := agent2389.no_effects();
BEGIN
    IF task.paused_at IS NOT NULL THEN
        PERFORM agent2389.give_time_back(task);
    END IF;
    UPDATE agent2389.tasks SET state = 'queued', owner_incarnation = NULL, lease_until = NULL, token_hash = NULL,
        held = NULL, waiting = NULL, finished_at = NULL,
        run_after = clock_timestamp() + make_interval(secs => wait), rung = wait <= 0
    WHERE tenant = task.tenant AND task_id = task.task_id RETURNING * INTO again;
    IF wait <= 0 THEN
        effects := agent2389.with_effect(effects, 'wakes', agent2389.wake_of(again));
    END IF;
    RETURN agent2389.with_effect(effects, 'changes',
        agent2389.note(task.tenant, task.job_id, task.task_id, what, task.owner_agent, detail));
END $$;

-- A person has the word; deadlines do not run meanwhile.
CREATE FUNCTION agent2389.ask_person(task agent2389.tasks, problem jsonb, who text, detail jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE agent2389.tasks SET state = 'escalated', owner_incarnation = NULL, lease_until = NULL,
        token_hash = NULL, stop_requested = NULL, waiting = NULL, finished_at = NULL, error = problem,
        paused_at = coalesce(paused_at, clock_timestamp())
    WHERE tenant = task.tenant AND task_id = task.task_id;
    RETURN agent2389.with_effect(agent2389.no_effects(), 'changes', agent2389.note(task.tenant, task.job_id,
        task.task_id, 'task.escalated', who, detail || jsonb_build_object('message', problem ->> 'message')));
END $$;

-- Whether a hand-off would pass the hop limit; a branch leaves one hop for the task that joins it.
CREATE FUNCTION agent2389.reaches_too_far(task agent2389.tasks, job agent2389.jobs, body jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_array_length(body -> 'next') > 0
        AND task.hop + 1 + (nullif(body -> 'join', 'null') IS NOT NULL)::integer + (task.joins IS NOT NULL)::integer
            > job.max_hops
$$;

-- One task more. The ids come from Python: the same parent and slot give the same id.
CREATE FUNCTION agent2389.add_task(
    parent agent2389.tasks, item jsonb, files jsonb, of_join text, of_branch integer
) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    child agent2389.tasks;
    effects jsonb := agent2389.no_effects();
BEGIN
    INSERT INTO agent2389.tasks (tenant, task_id, job_id, parent_task, slot, hop, pool, capability,
        bound_agent, instruction, input, next, reason, rank, deadline, wire_task_id, joins, branch,
        verifies, not_agent)
    VALUES (parent.tenant, item ->> 'task_id', parent.job_id, parent.task_id, (item ->> 'slot')::integer,
        parent.hop + 1, coalesce(item ->> 'capability', 'agent.' || (item ->> 'agent')), item ->> 'capability',
        item ->> 'agent', item ->> 'instruction', item -> 'input', nullif(item -> 'next', 'null'),
        item ->> 'reason', parent.rank, parent.deadline, parent.wire_task_id, of_join, of_branch,
        item ->> 'verifies', item ->> 'not_agent')
    RETURNING * INTO child;
    INSERT INTO agent2389.workspaces (tenant, task_id, manifest) VALUES (child.tenant, child.task_id, files);
    effects := agent2389.with_effect(effects, 'wakes', agent2389.wake_of(child));
    RETURN agent2389.with_effect(effects, 'changes', agent2389.note(child.tenant, child.job_id, child.task_id,
        'task.queued', NULL, jsonb_build_object('pool', child.pool, 'hop', child.hop, 'reason', child.reason)));
END $$;

-- The way on from a task whose result stands: hand-offs, branches with their join, or the end.
CREATE FUNCTION agent2389.go_on(task agent2389.tasks, body jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    born integer := jsonb_array_length(body -> 'next');
    meeting jsonb := nullif(body -> 'join', 'null');
    item jsonb;
    effects jsonb := agent2389.no_effects();
BEGIN
    IF born = 0 THEN
        IF task.joins IS NOT NULL THEN
            effects := agent2389.branch_ended(task, true);
        END IF;
        RETURN agent2389.joined(effects, agent2389.close_job(task.tenant, task.job_id, task.task_id, 1, 0));
    END IF;
    IF meeting IS NOT NULL THEN
        item := meeting -> 'task';
        INSERT INTO agent2389.tasks (tenant, task_id, job_id, parent_task, slot, hop, pool, capability,
            bound_agent, instruction, input, next, reason, rank, deadline, wire_task_id, joins, branch,
            state, waiting, join_needed, join_total)
        VALUES (task.tenant, item ->> 'task_id', task.job_id, task.task_id, (item ->> 'slot')::integer,
            task.hop + 2, coalesce(item ->> 'capability', 'agent.' || (item ->> 'agent')),
            item ->> 'capability', item ->> 'agent', item ->> 'instruction', item -> 'input',
            nullif(item -> 'next', 'null'), item ->> 'reason', task.rank, task.deadline, task.wire_task_id,
            task.joins, task.branch, 'waiting', '{"for": "join"}', (meeting ->> 'needed')::smallint, born);
    ELSIF task.joins IS NOT NULL AND born > 1 THEN
        -- A branch that splits without a join of its own: each part is a branch of the same join.
        UPDATE agent2389.tasks SET join_total = join_total + born - 1,
            join_needed = join_needed + CASE WHEN join_needed = join_total THEN born - 1 ELSE 0 END
        WHERE tenant = task.tenant AND task_id = task.joins;
    END IF;
    FOR item IN SELECT value FROM jsonb_array_elements(body -> 'next')
    LOOP
        effects := agent2389.joined(effects, agent2389.add_task(task, item, body -> 'manifest',
            CASE WHEN meeting IS NULL THEN task.joins ELSE meeting -> 'task' ->> 'task_id' END,
            CASE WHEN meeting IS NULL AND born = 1 THEN task.branch ELSE (item ->> 'slot')::integer END));
    END LOOP;
    RETURN agent2389.joined(effects, agent2389.close_job(task.tenant, task.job_id, task.task_id, 1,
        born + (meeting IS NOT NULL)::integer));
END $$;

-- The ends of the branches that count, in the order of the branches.
CREATE FUNCTION agent2389.branch_ends(meeting agent2389.tasks) RETURNS SETOF agent2389.tasks
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT b.* FROM agent2389.tasks b
    WHERE b.tenant = meeting.tenant AND b.job_id = meeting.job_id AND b.joins = meeting.task_id
        AND b.state IN ('completed', 'verified') AND b.held IS NULL
        AND NOT EXISTS (SELECT FROM agent2389.tasks c WHERE c.tenant = b.tenant AND c.job_id = b.job_id
            AND c.parent_task = b.task_id AND c.verifies IS NULL)
    ORDER BY b.branch, b.hop, b.slot
$$;

-- A path that two branches wrote differently is kept twice: the later one below `branch-N/`.
CREATE FUNCTION agent2389.merged_files(meeting agent2389.tasks) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    files jsonb := '{}';
    found record;
BEGIN
    FOR found IN SELECT b.branch, m.key, m.value FROM agent2389.branch_ends(meeting) b
        JOIN agent2389.workspaces w ON w.tenant = b.tenant AND w.task_id = b.task_id,
        jsonb_each(w.manifest) m ORDER BY b.branch, b.hop, b.slot, m.key
    LOOP
        files := files || jsonb_build_object(CASE
            WHEN NOT files ? found.key OR files -> found.key ->> 'sha256' = found.value ->> 'sha256' THEN found.key
            ELSE 'branch-' || found.branch || '/' || found.key END, found.value);
    END LOOP;
    RETURN files;
END $$;

-- Counts one branch. With enough of them the joining task is queued and the others are called off;
-- when too few can still come it ends.
CREATE FUNCTION agent2389.branch_ended(task agent2389.tasks, well boolean) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    meeting agent2389.tasks;
    told jsonb;
    files jsonb;
    effects jsonb := agent2389.no_effects();
BEGIN
    UPDATE agent2389.tasks SET join_done = join_done + well::integer, join_failed = join_failed + (NOT well)::integer
    WHERE tenant = task.tenant AND task_id = task.joins AND state = 'waiting' AND waiting ->> 'for' = 'join'
    RETURNING * INTO meeting;
    IF NOT FOUND THEN
        RETURN effects;
    END IF;
    IF meeting.join_done >= meeting.join_needed THEN
        SELECT jsonb_agg(jsonb_strip_nulls(jsonb_build_object('task_id', b.task_id,
            'capability', coalesce(b.capability, b.pool), 'agent_id', b.owner_agent,
            'text', left(r.payload ->> 'text', 32000), 'data', nullif(r.payload -> 'data', 'null')))
            ORDER BY b.branch, b.hop, b.slot)
        INTO told FROM agent2389.branch_ends(meeting) b JOIN agent2389.results r
            ON r.tenant = b.tenant AND r.task_id = b.task_id AND r.standing = 'current';
        UPDATE agent2389.tasks SET input = jsonb_strip_nulls(jsonb_build_object('branches', told,
                'input', nullif(input, 'null'))),
            hop = greatest(hop, 1 + (SELECT max(b.hop) FROM agent2389.branch_ends(meeting) b))
        WHERE tenant = meeting.tenant AND task_id = meeting.task_id;
        files := agent2389.merged_files(meeting);
        INSERT INTO agent2389.workspaces (tenant, task_id, manifest)
        VALUES (meeting.tenant, meeting.task_id, files);
        effects := agent2389.queue_again(meeting, 'task.joined', jsonb_build_object('branches', meeting.join_done));
        RETURN agent2389.joined(effects, agent2389.call_off_branches(meeting));
    ELSIF meeting.join_total - meeting.join_failed < meeting.join_needed THEN
        RETURN agent2389.end_task(meeting, 'dead', jsonb_build_object('code', 'internal_error', 'message',
            meeting.join_failed || ' of ' || meeting.join_total || ' branches failed and '
            || meeting.join_needed || ' were needed'), 'task.dead');
    END IF;
    RETURN effects;
END $$;

CREATE FUNCTION agent2389.call_off_branches(meeting agent2389.tasks) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    other agent2389.tasks;
    effects jsonb := agent2389.no_effects();
BEGIN
    FOR other IN SELECT * FROM agent2389.tasks b WHERE b.tenant = meeting.tenant AND b.job_id = meeting.job_id
        AND (b.joins = meeting.task_id OR b.verifies IN (SELECT v.task_id FROM agent2389.tasks v
            WHERE v.tenant = b.tenant AND v.job_id = b.job_id AND v.joins = meeting.task_id))
        AND agent2389.is_open(b) ORDER BY b.task_id
    LOOP
        effects := agent2389.joined(effects, agent2389.call_off(other));
    END LOOP;
    RETURN effects;
END $$;

-- T16, T17: a task of its own judges the result; never the agent that made it.
CREATE FUNCTION agent2389.ask_verdict(task agent2389.tasks, body jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    asked jsonb := (body -> 'verify') || jsonb_build_object('verifies', task.task_id,
        'not_agent', task.owner_agent, 'reason', 'verification', 'input', jsonb_strip_nulls(jsonb_build_object(
            'instruction', coalesce(task.instruction, (SELECT j.instruction FROM agent2389.jobs j
                WHERE j.tenant = task.tenant AND j.job_id = task.job_id)),
            'answer', body -> 'result' ->> 'text', 'data', nullif(body -> 'result' -> 'data', 'null'),
            'input', nullif(task.input, 'null'))));
    effects jsonb;
BEGIN
    effects := agent2389.add_task(task, asked, body -> 'manifest', NULL, 0);
    UPDATE agent2389.jobs SET open_tasks = open_tasks + 1, hops = hops + 1
    WHERE tenant = task.tenant AND job_id = task.job_id;
    RETURN effects;
END $$;

CREATE FUNCTION agent2389.give_verdict(task agent2389.tasks, body jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE effects jsonb;
BEGIN
    effects := agent2389.judged(task.tenant, task.verifies, body ->> 'verdict', body -> 'result' ->> 'text',
        task.owner_agent);
    RETURN agent2389.joined(effects, agent2389.close_job(task.tenant, task.job_id, task.task_id, 1, 0));
END $$;

-- `verdict` is approved, refused, or NULL: none was reached and a person is asked (T31). `who` is an agent, or
-- `person:` and a name.
CREATE FUNCTION agent2389.judged(
    of_tenant text, of_task text, verdict text, said text, who text
) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    task agent2389.tasks;
    body jsonb;
    problem jsonb := jsonb_build_object('code', 'internal_error', 'message',
        left(coalesce(nullif(said, ''), 'the result was refused'), 500));
    detail jsonb := jsonb_build_object('verdict', verdict, 'by', who, 'message', problem ->> 'message');
    of_agent text := CASE WHEN starts_with(who, 'person:') THEN NULL ELSE who END;
    effects jsonb := agent2389.no_effects();
BEGIN
    SELECT * INTO task FROM agent2389.tasks x WHERE x.tenant = of_tenant AND x.task_id = of_task FOR UPDATE;
    IF task.state <> 'completed' OR task.held IS NULL THEN
        RETURN effects;
    END IF;
    IF verdict = 'approved' THEN
        body := task.held;
        UPDATE agent2389.results SET standing = CASE WHEN epoch = task.epoch THEN 'current' ELSE 'superseded' END
        WHERE tenant = of_tenant AND task_id = of_task AND standing = 'proposed';
        UPDATE agent2389.tasks SET state = 'verified', held = NULL, finished_at = clock_timestamp()
        WHERE tenant = of_tenant AND task_id = of_task;
        effects := agent2389.with_effect(effects, 'changes',
            agent2389.note(of_tenant, task.job_id, of_task, 'task.verified', of_agent, detail));
        RETURN agent2389.joined(effects, agent2389.go_on(task, body));
    END IF;
    IF verdict = 'refused' THEN
        UPDATE agent2389.results SET standing = 'superseded'
        WHERE tenant = of_tenant AND task_id = of_task AND standing = 'proposed';
        IF task.attempt + 1 < task.max_attempts THEN
            UPDATE agent2389.tasks SET attempt = attempt + 1, feedback = left(said, 8000), error = problem
            WHERE tenant = of_tenant AND task_id = of_task;
            RETURN agent2389.queue_again(task, 'task.refused', detail);
        END IF;
    END IF;
    RETURN agent2389.ask_person(task, problem, of_agent, detail);
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA agent2389 FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA agent2389 TO agent2389_upkeep;
