-- What producers ask for: submit, reject, cancel.

CREATE FUNCTION agent2389.someone_lives(of_tenant text, of_pool text, but_agent text DEFAULT NULL) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM agent2389.agents
        WHERE tenant = of_tenant AND of_pool = ANY (pools) AND state IN ('running', 'paused')
        AND agent_id IS DISTINCT FROM but_agent
        AND last_beat > clock_timestamp() - interval '30 seconds')
$$;

-- What a submission is told whose job has left a tombstone; null where there is none.
CREATE FUNCTION agent2389.answer_of_the_buried(of_tenant text, job jsonb) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object('job_id', gone.job_id, 'state', gone.state, 'age_seconds',
        extract(epoch FROM clock_timestamp() - gone.at), 'effects', agent2389.no_effects(), 'verdict',
        CASE WHEN gone.content_hash = job ->> 'content_hash' THEN 'duplicate' ELSE 'conflict' END)
    FROM agent2389.tombstones gone WHERE gone.tenant = of_tenant AND gone.job_id = job ->> 'job_id'
$$;

-- T1 to T3. `job` is records.NewJob as JSON; `first_task` the id of its first task.
CREATE FUNCTION agent2389_v1.submit(job jsonb, first_task text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t text := agent2389.current_tenant();
    known agent2389.jobs;
    made agent2389.jobs;
    task agent2389.tasks;
    wanted_pool text := coalesce(job ->> 'capability', 'agent.' || (job ->> 'agent'));
    verdict text := 'accepted';
    remark text;
    age double precision := 0;
    starts timestamptz := coalesce((job ->> 'not_before')::timestamptz, clock_timestamp());
    ends timestamptz := coalesce((job ->> 'deadline')::timestamptz,
        greatest(starts, clock_timestamp()) + interval '1 hour');
    effects jsonb := agent2389.no_effects();
    answer jsonb;
BEGIN
    IF (job ->> 'recent_seconds')::double precision > 0 THEN
        PERFORM pg_advisory_xact_lock(hashtextextended(t || (job ->> 'content_hash'), 2389));
        UPDATE agent2389.jobs SET last_seen = clock_timestamp()
        WHERE (tenant, job_id) = (SELECT j.tenant, j.job_id FROM agent2389.jobs j
            WHERE j.tenant = t AND j.content_hash = job ->> 'content_hash' AND j.last_seen > clock_timestamp()
                - make_interval(secs => (job ->> 'recent_seconds')::double precision)
            ORDER BY j.seq DESC LIMIT 1)
        RETURNING * INTO known;
    END IF;
    IF known.job_id IS NULL THEN
        answer := agent2389.answer_of_the_buried(t, job);
        IF answer IS NOT NULL THEN
            RETURN answer;
        END IF;
        IF ends <= clock_timestamp() AND NOT EXISTS (SELECT FROM agent2389.jobs
            WHERE tenant = t AND job_id = job ->> 'job_id') THEN
            RAISE EXCEPTION 'the deadline passed before the job arrived' USING ERRCODE = 'A2001', DETAIL = 'expired';
        END IF;
        IF NOT agent2389.someone_lives(t, wanted_pool) THEN
            remark := 'no_live_agent';
        END IF;
        INSERT INTO agent2389.jobs (tenant, job_id, content_hash, capability, agent, instruction, submission,
            source, priority, max_hops, budget, deadline, conversation_id, wire_task_id, reply_to,
            correlation, traceparent, note, open_tasks, files)
        VALUES (t, job ->> 'job_id', job ->> 'content_hash', job ->> 'capability', job ->> 'agent',
            job ->> 'instruction', job -> 'submission', job ->> 'source', (job ->> 'priority')::smallint,
            (job ->> 'max_hops')::smallint, job -> 'budget', ends, job ->> 'conversation_id',
            job ->> 'wire_task_id', job ->> 'reply_to', job ->> 'correlation', job ->> 'traceparent', remark, 1, job -> 'files')
        ON CONFLICT (tenant, job_id) DO NOTHING RETURNING * INTO made;
        IF NOT FOUND THEN
            SELECT * INTO known FROM agent2389.jobs WHERE tenant = t AND job_id = job ->> 'job_id';
        END IF;
        -- Retention may have buried it since the first look; then the tombstone has the word.
        answer := agent2389.answer_of_the_buried(t, job);
        IF answer IS NOT NULL THEN
            DELETE FROM agent2389.jobs WHERE tenant = t AND job_id = made.job_id;
            RETURN answer;
        END IF;
    END IF;
    IF known.job_id IS NOT NULL THEN
        verdict := CASE WHEN known.content_hash = job ->> 'content_hash' THEN 'duplicate' ELSE 'conflict' END;
        age := extract(epoch FROM clock_timestamp() - known.created_at);
        made := known;
        remark := NULL;
    ELSE
        INSERT INTO agent2389.tasks (tenant, task_id, job_id, hop, pool, capability, bound_agent, instruction,
            input, next, reason, rank, run_after, rung, deadline, wire_task_id)
        VALUES (t, first_task, made.job_id, 1, wanted_pool, made.capability, made.agent, made.instruction,
            job -> 'input', nullif(job -> 'next', 'null'), 'submitted', 9 - made.priority, starts,
            starts <= clock_timestamp(), ends, made.wire_task_id)
        RETURNING * INTO task;
        IF jsonb_array_length(job -> 'files') > 0 THEN
            INSERT INTO agent2389.workspaces (tenant, task_id, manifest)
            SELECT t, first_task, jsonb_object_agg(file ->> 'name', file) FROM jsonb_array_elements(job -> 'files') file;
        END IF;
        IF task.run_after <= clock_timestamp() THEN
            effects := agent2389.with_effect(effects, 'wakes', agent2389.wake_of(task));
        END IF;
        effects := agent2389.with_effect(effects, 'changes', agent2389.note(t, made.job_id, first_task,
            'job.accepted', NULL, jsonb_build_object('pool', wanted_pool, 'source', made.source)));
    END IF;
    IF made.source NOT IN ('http', 'protocol') AND job ->> 'source' NOT IN ('http', 'protocol')
        AND (verdict <> 'duplicate' OR age > 2) THEN
        answer := jsonb_strip_nulls(jsonb_build_object('job_id', made.job_id, 'verdict', verdict,
            'code', CASE verdict WHEN 'conflict' THEN 'conflict' END,
            'message', CASE verdict WHEN 'conflict' THEN 'another job has this id; the first one stands' END,
            'note', remark, 'state', agent2389.job_state(made)));
        effects := agent2389.with_effect(effects, 'deliveries',
            agent2389.deliver(t, 'receipt', made.job_id, NULL, NULL, NULL, NULL, answer));
        IF job ->> 'reply_to' IS NOT NULL THEN
            effects := agent2389.with_effect(effects, 'deliveries', agent2389.deliver(t, 'receipt', made.job_id,
                NULL, NULL, job ->> 'reply_to', job ->> 'correlation', answer));
        END IF;
    END IF;
    RETURN jsonb_build_object('job_id', made.job_id, 'verdict', verdict, 'state', agent2389.job_state(made),
        'note', remark, 'age_seconds', age, 'effects', effects);
END $$;

-- T4. Keeps the evidence; true when it is the first of its kind within ten seconds.
CREATE FUNCTION agent2389_v1.reject(
    of_topic text, sha256 text, bytes integer, why text, sample text
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE t text := agent2389.current_tenant();
BEGIN
    INSERT INTO agent2389.intake_rejects AS r (tenant, topic, payload_sha256, size, code, excerpt)
    VALUES (t, of_topic, sha256, bytes, why, sample)
    ON CONFLICT (tenant, topic, payload_sha256) DO UPDATE SET times = r.times + 1, at = clock_timestamp()
    WHERE r.at < clock_timestamp() - interval '10 seconds';
    IF FOUND THEN
        RETURN true;
    END IF;
    -- Somebody told it just now, perhaps while this call waited for the row.
    UPDATE agent2389.intake_rejects SET times = times + 1
    WHERE tenant = t AND topic = of_topic AND payload_sha256 = sha256;
    RETURN false;
END $$;

-- T18, T19 for one task: ended when nobody owns it, else asked of its owner at the next beat.
CREATE FUNCTION agent2389.call_off(task agent2389.tasks) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- The end of another task of the same job may have ended this one a moment ago.
    SELECT * INTO task FROM agent2389.tasks x WHERE x.tenant = task.tenant AND x.task_id = task.task_id FOR UPDATE;
    IF NOT agent2389.is_open(task) THEN
        RETURN agent2389.no_effects();
    ELSIF task.owner_incarnation IS NULL THEN
        RETURN agent2389.end_task(task, 'cancelled', NULL, 'task.cancelled');
    END IF;
    UPDATE agent2389.tasks SET stop_requested = 'cancel' WHERE tenant = task.tenant AND task_id = task.task_id;
    RETURN agent2389.no_effects();
END $$;

-- T18, T19 for every open task of the job.
CREATE FUNCTION agent2389_v1.cancel(of_job text, who text) RETURNS jsonb
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
    END IF;
    IF job.state <> 'open' THEN
        RETURN jsonb_build_object('verdict', 'already', 'job_state', job.state, 'effects', effects);
    END IF;
    effects := agent2389.with_effect(effects, 'changes',
        agent2389.note(t, of_job, NULL, 'job.cancel_requested', NULL, jsonb_build_object('actor', who)));
    -- The task that joins goes first, so that the end of its branches moves nothing any more.
    FOR task IN SELECT * FROM agent2389.tasks x WHERE x.tenant = t AND x.job_id = of_job
        AND agent2389.is_open(x) ORDER BY x.join_needed IS NULL, x.hop, x.task_id FOR UPDATE
    LOOP
        effects := agent2389.joined(effects, agent2389.call_off(task));
    END LOOP;
    SELECT * INTO job FROM agent2389.jobs WHERE tenant = t AND job_id = of_job;
    RETURN jsonb_build_object('verdict', 'ok', 'job_state', agent2389.job_state(job), 'effects', effects);
END $$;
