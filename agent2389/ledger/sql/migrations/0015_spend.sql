-- Budgets: reserve before a call, settle after it, in the order task, job, tenant, agent.

-- What a scope used before anybody counted it: a limit may be set in the middle of a day.
CREATE FUNCTION agent2389.spent_before(of_tenant text, of_scope text, of_period text, of_unit text)
RETURNS numeric
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(sum(CASE of_unit
            WHEN 'cost_usd' THEN coalesce(e.cost_usd, 0) + coalesce(e.reserved_cost, 0)
            WHEN 'tokens' THEN e.input_tokens + e.output_tokens + e.reserved_input + e.reserved_output
            WHEN 'tool_calls' THEN CASE WHEN e.kind = 'tool' AND NOT e.reused THEN e.tries ELSE 0 END
            ELSE (e.seconds + e.reserved_seconds)::numeric END), 0)
    FROM agent2389.effects e
    WHERE e.tenant = of_tenant AND CASE split_part(of_scope, ':', 1)
        WHEN 'task' THEN e.task_id = substr(of_scope, 6)
        WHEN 'job' THEN e.task_id IN (SELECT x.task_id FROM agent2389.tasks x
            WHERE x.tenant = of_tenant AND x.job_id = substr(of_scope, 5))
        WHEN 'agent' THEN e.agent_id = substr(of_scope, 7)
        ELSE true END
        AND (of_period = 'all' OR e.started_at >= CASE length(of_period)
            WHEN 7 THEN (of_period || '-01')::timestamp AT TIME ZONE 'UTC'
            ELSE of_period::timestamp AT TIME ZONE 'UTC' END)
$$;

CREATE FUNCTION agent2389.utc_period(of_period text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE of_period
        WHEN 'day' THEN to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD')
        WHEN 'month' THEN to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM')
        ELSE 'all' END
$$;

-- Every limit that this task's next call meets. `own` is records.OwnLimits as JSON.
CREATE FUNCTION agent2389.ceilings_of(task agent2389.tasks, own jsonb)
RETURNS TABLE (place integer, scope text, period text, unit text, ceiling numeric)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT 1, 'task:' || task.task_id, 'all', l.key, l.value::numeric FROM jsonb_each_text(own -> 'task') l
    UNION ALL
    SELECT 2, 'job:' || task.job_id, 'all', l.key, l.value::numeric
    FROM agent2389.jobs j, jsonb_each_text(j.budget) l
    WHERE j.tenant = task.tenant AND j.job_id = task.job_id AND l.value IS NOT NULL
    UNION ALL
    SELECT 3, 'tenant', agent2389.utc_period(t.period), t.unit, t.ceiling
    FROM agent2389.limits t WHERE t.tenant = task.tenant
    UNION ALL
    SELECT 4, 'agent:' || task.owner_agent, agent2389.utc_period(p.period), l.key, l.value::numeric
    FROM (VALUES ('day'), ('month')) p (period), jsonb_each_text(own -> p.period) l
$$;

-- Holds `amounts` ({unit: amount}, cost null when nobody knows the price) in every limited scope and
-- returns the holds. A scope that is used up raises A2310 with the refusal as detail: the caller's
-- block is undone as a whole. A limit is passed by one reservation at most: the check comes first.
CREATE FUNCTION agent2389.reserve(task agent2389.tasks, own jsonb, amounts jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    c record;
    amount numeric;
    taken numeric;
    holds jsonb := '[]';
BEGIN
    FOR c IN SELECT * FROM agent2389.ceilings_of(task, own) ORDER BY 1, 2, 3, 4
    LOOP
        amount := (amounts ->> c.unit)::numeric;
        IF amount IS NULL AND c.unit = 'cost_usd' THEN
            RAISE EXCEPTION 'the price is not known' USING ERRCODE = 'A2310', DETAIL = jsonb_build_object(
                'reason', 'price_unknown', 'scope', c.scope, 'period', c.period, 'unit', c.unit,
                'limit', c.ceiling, 'used', 0)::text;
        END IF;
        CONTINUE WHEN coalesce(amount, 0) <= 0;
        UPDATE agent2389.spend s SET reserved = s.reserved + amount
        WHERE s.tenant = task.tenant AND s.scope = c.scope AND s.period = c.period AND s.unit = c.unit
            AND s.used + s.reserved < c.ceiling;
        IF NOT FOUND THEN
            INSERT INTO agent2389.spend (tenant, scope, period, unit, used)
            VALUES (task.tenant, c.scope, c.period, c.unit,
                agent2389.spent_before(task.tenant, c.scope, c.period, c.unit))
            ON CONFLICT DO NOTHING;
            UPDATE agent2389.spend s SET reserved = s.reserved + amount
            WHERE s.tenant = task.tenant AND s.scope = c.scope AND s.period = c.period AND s.unit = c.unit
                AND s.used + s.reserved < c.ceiling;
        END IF;
        IF NOT FOUND THEN
            SELECT s.used + s.reserved INTO taken FROM agent2389.spend s WHERE s.tenant = task.tenant
                AND s.scope = c.scope AND s.period = c.period AND s.unit = c.unit;
            RAISE EXCEPTION 'the budget is used up' USING ERRCODE = 'A2310', DETAIL = jsonb_build_object(
                'reason', 'exhausted', 'scope', c.scope, 'period', c.period, 'unit', c.unit,
                'limit', c.ceiling, 'used', taken)::text;
        END IF;
        holds := holds || jsonb_build_array(jsonb_build_array(c.scope, c.period, c.unit, amount));
    END LOOP;
    RETURN holds;
END $$;

-- Gives back what `effect` holds and books what was really used.
CREATE FUNCTION agent2389.settle(effect agent2389.effects, cost numeric, tokens numeric, calls numeric, took numeric)
RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    hold jsonb;
BEGIN
    FOR hold IN SELECT value FROM jsonb_array_elements(effect.holds)
    LOOP
        UPDATE agent2389.spend s SET reserved = s.reserved - (hold ->> 3)::numeric,
            used = s.used + CASE s.unit WHEN 'cost_usd' THEN coalesce(cost, 0) WHEN 'tokens' THEN tokens
                WHEN 'tool_calls' THEN calls ELSE took END
        WHERE s.tenant = effect.tenant AND s.scope = hold ->> 0 AND s.period = hold ->> 1 AND s.unit = hold ->> 2;
    END LOOP;
END $$;

-- Whoever takes a task from its owner (reaper, release, failure, cancel, psql by hand) leaves no call
-- open: it is in doubt, and counts at what was reserved.
CREATE FUNCTION agent2389.leave_in_doubt() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    effect agent2389.effects;
    took double precision;
BEGIN
    FOR effect IN SELECT * FROM agent2389.effects e
        WHERE e.tenant = NEW.tenant AND e.task_id = NEW.task_id AND e.state = 'started'
    LOOP
        -- Time is the one thing that is known.
        took := least(effect.reserved_seconds, extract(epoch FROM clock_timestamp() - effect.started_at));
        PERFORM agent2389.settle(effect, effect.reserved_cost, effect.reserved_input + effect.reserved_output,
            1, took::numeric);
        UPDATE agent2389.effects e SET state = 'in_doubt', ended_at = clock_timestamp(), holds = '[]',
            cost_usd = e.cost_usd + e.reserved_cost, input_tokens = e.input_tokens + e.reserved_input,
            output_tokens = e.output_tokens + e.reserved_output, seconds = e.seconds + took,
            reserved_cost = 0, reserved_input = 0, reserved_output = 0, reserved_seconds = 0
        WHERE e.tenant = effect.tenant AND e.task_id = effect.task_id AND e.generation = effect.generation
            AND e.step = effect.step AND e.call = effect.call;
    END LOOP;
    RETURN NULL;
END $$;
CREATE TRIGGER leave_in_doubt AFTER UPDATE ON agent2389.tasks FOR EACH ROW
    WHEN (OLD.owner_incarnation IS NOT NULL AND NEW.owner_incarnation IS NULL)
    EXECUTE FUNCTION agent2389.leave_in_doubt();

-- An operator's limit; null takes it away.
CREATE FUNCTION agent2389_v1.set_limit(of_period text, of_unit text, most numeric) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE t text := agent2389.current_tenant();
BEGIN
    IF most IS NULL THEN
        DELETE FROM agent2389.limits WHERE tenant = t AND period = of_period AND unit = of_unit;
        -- Counting begins anew from the effects when the limit comes back.
        DELETE FROM agent2389.spend WHERE tenant = t AND scope = 'tenant' AND reserved = 0
            AND period = agent2389.utc_period(of_period) AND unit = of_unit;
        RETURN;
    END IF;
    INSERT INTO agent2389.limits (tenant, period, unit, ceiling) VALUES (t, of_period, of_unit, most)
    ON CONFLICT (tenant, period, unit) DO UPDATE SET ceiling = EXCLUDED.ceiling;
END $$;

-- What the tenant spent in all, today and this month, beside what it may.
CREATE FUNCTION agent2389_v1.spending() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_agg(jsonb_build_object('period', p.period, 'unit', u.unit, 'limit', l.ceiling, 'used',
        agent2389.spent_before(agent2389.current_tenant(), 'tenant', agent2389.utc_period(p.period), u.unit))
        ORDER BY p.n, u.n)
    FROM (VALUES (1, 'day'), (2, 'month'), (3, 'all')) p (n, period)
    CROSS JOIN (VALUES (1, 'cost_usd'), (2, 'tokens'), (3, 'tool_calls'), (4, 'seconds')) u (n, unit)
    LEFT JOIN agent2389.limits l ON l.tenant = agent2389.current_tenant() AND l.period = p.period AND l.unit = u.unit
$$;

REVOKE ALL ON FUNCTION
    agent2389.spent_before, agent2389.utc_period, agent2389.ceilings_of, agent2389.reserve, agent2389.settle,
    agent2389.leave_in_doubt, agent2389.guard_effect, agent2389_v1.set_limit, agent2389_v1.spending FROM PUBLIC;
GRANT EXECUTE ON FUNCTION agent2389.spent_before, agent2389.utc_period, agent2389.ceilings_of,
    agent2389.reserve, agent2389.settle, agent2389.leave_in_doubt, agent2389.guard_effect TO agent2389_upkeep;
GRANT EXECUTE ON FUNCTION agent2389_v1.set_limit, agent2389_v1.spending TO agent2389_operator;
