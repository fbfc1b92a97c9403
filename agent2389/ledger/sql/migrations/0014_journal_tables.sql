-- The journal of effects: what each model and tool call was, what it cost, what it answered; and the
-- messages of a task's conversation, each stored once.

-- A recorded failure, a refused verdict or a person's words open a new generation of a task's work;
-- crashes, drains and lost leases continue the one that is there.
ALTER TABLE agent2389.tasks ADD COLUMN generation smallint NOT NULL DEFAULT 0;
CREATE FUNCTION agent2389.open_generation() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.generation := OLD.generation + 1;
    RETURN NEW;
END $$;
CREATE TRIGGER open_generation BEFORE UPDATE ON agent2389.tasks FOR EACH ROW
    WHEN (OLD.attempt <> NEW.attempt OR OLD.feedback IS DISTINCT FROM NEW.feedback)
    EXECUTE FUNCTION agent2389.open_generation();

-- Content-addressed: a message that comes again (a system prompt, say) is no new row.
CREATE TABLE agent2389.messages (
    tenant text NOT NULL,
    sha256 bytea NOT NULL CHECK (octet_length(sha256) = 32),
    body text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, sha256)
);

-- Which message stands where.
CREATE TABLE agent2389.transcript (
    tenant text NOT NULL,
    task_id text NOT NULL,
    generation smallint NOT NULL,
    step integer NOT NULL,
    slot smallint NOT NULL,
    kind text NOT NULL CHECK (kind IN ('turn', 'note')),
    sha256 bytea NOT NULL,
    epoch integer NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, task_id, generation, step, slot),
    FOREIGN KEY (tenant, task_id) REFERENCES agent2389.tasks ON DELETE CASCADE,
    FOREIGN KEY (tenant, sha256) REFERENCES agent2389.messages
);
CREATE INDEX transcript_of_message ON agent2389.transcript (tenant, sha256);

CREATE TABLE agent2389.effects (
    tenant text NOT NULL,
    task_id text NOT NULL,
    job_id text NOT NULL,
    generation smallint NOT NULL,
    step integer NOT NULL,
    call smallint NOT NULL,
    kind text NOT NULL CHECK (kind IN ('model', 'tool')),
    name text NOT NULL,
    repeat text NOT NULL CHECK (repeat IN ('pure', 'idempotent', 'keyed', 'unsafe')),
    request_hash text NOT NULL,
    key text CHECK (repeat IN ('pure', 'idempotent') OR key IS NOT NULL),
    -- void: it is known not to have happened; it may begin again.
    state text NOT NULL CHECK (state IN ('started', 'done', 'in_doubt', 'void')),
    failed boolean NOT NULL DEFAULT false,
    -- The answer of an earlier generation was returned instead of a call.
    reused boolean NOT NULL DEFAULT false,
    response bytea,
    epoch integer NOT NULL,
    tries smallint NOT NULL DEFAULT 1,
    agent_id text,
    reserved_cost numeric DEFAULT 0,
    reserved_input bigint NOT NULL DEFAULT 0,
    reserved_output bigint NOT NULL DEFAULT 0,
    reserved_seconds double precision NOT NULL DEFAULT 0,
    -- Sums over all tries; cost NULL: a price was not known.
    cost_usd numeric DEFAULT 0,
    input_tokens bigint NOT NULL DEFAULT 0,
    output_tokens bigint NOT NULL DEFAULT 0,
    seconds double precision NOT NULL DEFAULT 0,
    -- What is held in `spend` for the open try: [scope, period, unit, amount] each.
    holds jsonb NOT NULL DEFAULT '[]',
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    PRIMARY KEY (tenant, task_id, generation, step, call),
    FOREIGN KEY (tenant, task_id) REFERENCES agent2389.tasks ON DELETE CASCADE
) WITH (fillfactor = 70);
CREATE INDEX effects_open ON agent2389.effects (tenant, task_id) WHERE state = 'started';
CREATE INDEX effects_by_time ON agent2389.effects (tenant, started_at);
CREATE INDEX effects_keyed ON agent2389.effects (tenant, task_id, key) WHERE key IS NOT NULL;
-- I12, whoever writes: one unsafe call for each key.
CREATE UNIQUE INDEX effects_unsafe_once ON agent2389.effects (tenant, task_id, key)
    WHERE repeat = 'unsafe' AND NOT reused AND state <> 'void';

-- What an operator allows the tenant in all, in a day, in a month (UTC).
CREATE TABLE agent2389.limits (
    tenant text NOT NULL,
    period text NOT NULL CHECK (period IN ('all', 'day', 'month')),
    unit text NOT NULL CHECK (unit IN ('cost_usd', 'tokens', 'tool_calls', 'seconds')),
    ceiling numeric NOT NULL CHECK (ceiling >= 0),
    PRIMARY KEY (tenant, period, unit)
);

-- Counters exist only where a limit does, so work without limits never meets at a hot row.
CREATE TABLE agent2389.spend (
    tenant text NOT NULL,
    scope text NOT NULL,
    period text NOT NULL,
    unit text NOT NULL,
    used numeric NOT NULL DEFAULT 0,
    reserved numeric NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    PRIMARY KEY (tenant, scope, period, unit)
) WITH (fillfactor = 50);

DO $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['messages', 'transcript', 'effects', 'limits', 'spend']
    LOOP
        EXECUTE format('ALTER TABLE agent2389.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY own_tenant ON agent2389.%I TO agent2389_owner '
            'USING (tenant = (SELECT agent2389.current_tenant()))', name);
        EXECUTE format('CREATE POLICY upkeep ON agent2389.%I TO agent2389_upkeep USING (true)', name);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON agent2389.%I TO agent2389_upkeep', name);
    END LOOP;
END $$;

CREATE TRIGGER written_once BEFORE UPDATE ON agent2389.messages
    FOR EACH ROW EXECUTE FUNCTION agent2389.never();
CREATE TRIGGER written_once BEFORE UPDATE ON agent2389.transcript
    FOR EACH ROW EXECUTE FUNCTION agent2389.never();

CREATE FUNCTION agent2389.guard_effect() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF OLD.state = 'done' THEN
        RAISE EXCEPTION 'an effect that is done never changes' USING ERRCODE = 'A2903';
    END IF;
    IF NEW.epoch < OLD.epoch THEN
        RAISE EXCEPTION 'the epoch of an effect never falls' USING ERRCODE = 'A2902';
    END IF;
    IF OLD.state = 'in_doubt' AND NEW.state = 'started' AND OLD.repeat = 'unsafe' THEN
        RAISE EXCEPTION 'an unsafe effect in doubt is never repeated' USING ERRCODE = 'A2901';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER guard BEFORE UPDATE ON agent2389.effects
    FOR EACH ROW EXECUTE FUNCTION agent2389.guard_effect();
