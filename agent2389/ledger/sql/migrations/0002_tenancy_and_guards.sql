-- Who sees what, and what no path may do, psql by hand included.

-- The tenant of the caller: from the login that connected, never from a setting anybody may change.
CREATE FUNCTION agent2389.current_tenant() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN any_tenant
        THEN coalesce(nullif(current_setting('agent2389.tenant', true), ''), tenant)
        ELSE tenant END
    FROM agent2389.principals WHERE login = session_user
$$;

DO $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['jobs', 'tasks', 'results', 'job_results', 'blobs', 'workspaces',
        'events', 'board', 'outbox', 'agents', 'intake_rejects', 'tombstones', 'approvals', 'commands', 'pauses',
        'upkeep']
    LOOP
        EXECUTE format('ALTER TABLE agent2389.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY own_tenant ON agent2389.%I TO agent2389_owner '
            'USING (tenant = (SELECT agent2389.current_tenant()))', name);
        EXECUTE format('CREATE POLICY upkeep ON agent2389.%I TO agent2389_upkeep USING (true)', name);
    END LOOP;
    -- A policy that asked current_tenant() here would recurse (measured).
    ALTER TABLE agent2389.principals ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
    CREATE POLICY own_login ON agent2389.principals TO agent2389_owner USING (login = session_user);
    CREATE POLICY upkeep ON agent2389.principals TO agent2389_upkeep USING (true);
    FOREACH name IN ARRAY ARRAY['meta', 'transitions', 'buried_links']
    LOOP
        EXECUTE format('ALTER TABLE agent2389.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY everybody ON agent2389.%I '
            'TO agent2389_owner, agent2389_upkeep USING (true)', name);
    END LOOP;
END $$;

CREATE FUNCTION agent2389.guard_task() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NEW.epoch < OLD.epoch THEN
        RAISE EXCEPTION 'the epoch of a task never falls' USING ERRCODE = 'A2902';
    END IF;
    IF NEW.state IN ('assigned', 'in_progress') AND OLD.state = 'queued' AND NEW.epoch <= OLD.epoch THEN
        RAISE EXCEPTION 'a claim takes a new epoch' USING ERRCODE = 'A2902';
    END IF;
    IF OLD.state IN ('verified', 'cancelled', 'dead', 'expired')
        OR (OLD.state = 'completed' AND OLD.held IS NULL) THEN
        RAISE EXCEPTION 'a task that ended as % never changes', OLD.state USING ERRCODE = 'A2903';
    END IF;
    IF NEW.state <> OLD.state AND NOT EXISTS (
        SELECT FROM agent2389.transitions WHERE before = OLD.state AND after = NEW.state) THEN
        RAISE EXCEPTION 'a task never goes from % to %', OLD.state, NEW.state USING ERRCODE = 'A2901';
    END IF;
    -- A task that joins learns its hop when its branches are through.
    IF (NEW.tenant, NEW.task_id, NEW.job_id, NEW.pool, NEW.verifies, NEW.joins)
        IS DISTINCT FROM (OLD.tenant, OLD.task_id, OLD.job_id, OLD.pool, OLD.verifies, OLD.joins)
        OR (NEW.hop <> OLD.hop AND OLD.state <> 'waiting') THEN
        RAISE EXCEPTION 'the identity of a task never changes' USING ERRCODE = 'A2904';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER guard BEFORE UPDATE ON agent2389.tasks
    FOR EACH ROW EXECUTE FUNCTION agent2389.guard_task();

CREATE FUNCTION agent2389.guard_new_task() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT (NEW.state = 'queued' OR (NEW.state = 'waiting' AND NEW.join_needed > 0))
        OR NEW.epoch <> 0 OR NEW.attempt <> 0 THEN
        RAISE EXCEPTION 'a task begins queued, at epoch 0' USING ERRCODE = 'A2901';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER guard_new BEFORE INSERT ON agent2389.tasks
    FOR EACH ROW EXECUTE FUNCTION agent2389.guard_new_task();

CREATE FUNCTION agent2389.guard_job() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF OLD.state <> 'open' AND (NEW.state, NEW.open_tasks, NEW.finished_at, NEW.content_hash)
        IS DISTINCT FROM (OLD.state, OLD.open_tasks, OLD.finished_at, OLD.content_hash) THEN
        RAISE EXCEPTION 'a job that ended as % never changes', OLD.state USING ERRCODE = 'A2903';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER guard BEFORE UPDATE ON agent2389.jobs
    FOR EACH ROW EXECUTE FUNCTION agent2389.guard_job();

CREATE FUNCTION agent2389.never() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION '% rows are written once', TG_TABLE_NAME USING ERRCODE = 'A2903';
END $$;
CREATE TRIGGER written_once BEFORE UPDATE ON agent2389.job_results
    FOR EACH ROW EXECUTE FUNCTION agent2389.never();
CREATE TRIGGER written_once BEFORE UPDATE ON agent2389.commands
    FOR EACH ROW EXECUTE FUNCTION agent2389.never();
CREATE TRIGGER written_once BEFORE UPDATE ON agent2389.blobs
    FOR EACH ROW EXECUTE FUNCTION agent2389.never();
CREATE TRIGGER written_once BEFORE UPDATE ON agent2389.buried_links
    FOR EACH ROW EXECUTE FUNCTION agent2389.never();

-- An event gets its number and its link once; nothing else of it ever changes.
CREATE FUNCTION agent2389.guard_event() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF OLD.number IS NOT NULL OR (NEW.id, NEW.tenant, NEW.job_id, NEW.task_id, NEW.type, NEW.at, NEW.agent_id, NEW.data)
        IS DISTINCT FROM (OLD.id, OLD.tenant, OLD.job_id, OLD.task_id, OLD.type, OLD.at, OLD.agent_id, OLD.data) THEN
        RAISE EXCEPTION 'events are written once' USING ERRCODE = 'A2903';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER guard BEFORE UPDATE ON agent2389.events
    FOR EACH ROW EXECUTE FUNCTION agent2389.guard_event();

-- A result may change its standing until a person or a judge has spoken, and nothing else.
CREATE FUNCTION agent2389.guard_result() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF OLD.standing <> 'proposed' OR (NEW.tenant, NEW.task_id, NEW.epoch, NEW.payload, NEW.token_hash)
        IS DISTINCT FROM (OLD.tenant, OLD.task_id, OLD.epoch, OLD.payload, OLD.token_hash) THEN
        RAISE EXCEPTION 'a result that counts never changes' USING ERRCODE = 'A2903';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER guard BEFORE UPDATE ON agent2389.results
    FOR EACH ROW EXECUTE FUNCTION agent2389.guard_result();

CREATE FUNCTION agent2389.guard_approval() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- A question that was withdrawn may be asked again.
    IF OLD.state <> 'pending' AND (OLD.state, NEW.state) <> ('withdrawn', 'pending')
        OR (NEW.approval_id, NEW.task_id, NEW.arguments, NEW.arguments_sha256)
        IS DISTINCT FROM (OLD.approval_id, OLD.task_id, OLD.arguments, OLD.arguments_sha256) THEN
        RAISE EXCEPTION 'an approval is decided once' USING ERRCODE = 'A2903';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER guard BEFORE UPDATE ON agent2389.approvals
    FOR EACH ROW EXECUTE FUNCTION agent2389.guard_approval();

-- Work leaves the ledger only behind a tombstone.
CREATE FUNCTION agent2389.guard_delete() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM agent2389.tombstones WHERE tenant = OLD.tenant AND job_id = OLD.job_id) THEN
        RAISE EXCEPTION 'rows of a job stay until its tombstone stands' USING ERRCODE = 'A2903';
    END IF;
    RETURN OLD;
END $$;
DO $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['jobs', 'tasks', 'results', 'job_results', 'events', 'approvals']
    LOOP
        EXECUTE format('CREATE TRIGGER guard_delete BEFORE DELETE ON agent2389.%I '
            'FOR EACH ROW EXECUTE FUNCTION agent2389.guard_delete()', name);
    END LOOP;
END $$;

-- Puts a login into a tenant. Only the owner role may call it (migrations, `up`).
CREATE FUNCTION agent2389_v1.provision(who text, into_tenant text, every_tenant boolean) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO agent2389.principals (login, tenant, any_tenant) VALUES (who, into_tenant, every_tenant)
    ON CONFLICT (login) DO UPDATE SET tenant = EXCLUDED.tenant, any_tenant = EXCLUDED.any_tenant
$$;

-- Whether something may still happen to a task.
CREATE FUNCTION agent2389.is_open(task agent2389.tasks) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT task.state NOT IN ('verified', 'cancelled', 'dead', 'expired')
        AND (task.state <> 'completed' OR task.held IS NOT NULL)
$$;
