-- The dossier of a job: its sources, citations and requirements. Numbers count from 1 within the job.

CREATE TABLE agent2389.sources (
    tenant text NOT NULL,
    job_id text NOT NULL,
    number integer NOT NULL,
    kind text NOT NULL CHECK (kind IN ('document', 'web')),
    locator text NOT NULL CHECK (length(locator) BETWEEN 1 AND 2048),
    title text NOT NULL CHECK (length(title) <= 500),
    sha256 text CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, job_id, number),
    UNIQUE NULLS NOT DISTINCT (tenant, job_id, kind, locator, sha256),
    FOREIGN KEY (tenant, job_id) REFERENCES agent2389.jobs (tenant, job_id) ON DELETE CASCADE
);

CREATE TABLE agent2389.citations (
    tenant text NOT NULL,
    job_id text NOT NULL,
    number integer NOT NULL,
    source integer NOT NULL,
    task_id text NOT NULL,
    claim text NOT NULL CHECK (length(claim) BETWEEN 1 AND 4000),
    quote text NOT NULL CHECK (length(quote) <= 8000),
    place text NOT NULL CHECK (length(place) <= 200),
    found boolean,
    -- An index on the texts themselves would refuse long ones.
    content_hash text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, job_id, number),
    UNIQUE (tenant, job_id, source, content_hash),
    FOREIGN KEY (tenant, job_id, source) REFERENCES agent2389.sources (tenant, job_id, number) ON DELETE CASCADE
);
CREATE TRIGGER written_once BEFORE UPDATE ON agent2389.citations
    FOR EACH ROW EXECUTE FUNCTION agent2389.never();

CREATE TABLE agent2389.requirements (
    tenant text NOT NULL,
    job_id text NOT NULL,
    number integer NOT NULL,
    text text NOT NULL CHECK (length(text) BETWEEN 1 AND 4000),
    priority text NOT NULL CHECK (priority IN ('must', 'should', 'could')),
    status text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'met', 'rejected')),
    note text NOT NULL DEFAULT '' CHECK (length(note) <= 4000),
    version integer NOT NULL DEFAULT 1,
    -- The task that wrote this version.
    task_id text NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, job_id, number),
    FOREIGN KEY (tenant, job_id) REFERENCES agent2389.jobs (tenant, job_id) ON DELETE CASCADE
);

DO $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['sources', 'citations', 'requirements']
    LOOP
        EXECUTE format('ALTER TABLE agent2389.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY own_tenant ON agent2389.%I TO agent2389_owner '
            'USING (tenant = (SELECT agent2389.current_tenant()))', name);
        EXECUTE format('CREATE POLICY upkeep ON agent2389.%I TO agent2389_upkeep USING (true)', name);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON agent2389.%I TO agent2389_upkeep', name);
    END LOOP;
END $$;

-- The job of the task that the fence names; NULL for whoever does not own it any more: nothing is written then but
-- the evidence. The job is locked, so to the end of the transaction nobody else writes its dossier.
CREATE FUNCTION agent2389.open_dossier(
    t text, of_task text, of_epoch integer, token text, what text, evidence text
) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE f record;
BEGIN
    SELECT * INTO f FROM agent2389.take_fenced(t, of_task, of_epoch, token);
    IF f.verdict NOT IN ('ok', 'cancel') THEN
        PERFORM agent2389.refuse(f.task, of_epoch, what, nullif(evidence, ''));
        RETURN NULL;
    END IF;
    RETURN (f.task).job_id;
END $$;

CREATE FUNCTION agent2389.citation_record(c agent2389.citations) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object('number', c.number, 'source', c.source, 'kind', s.kind, 'locator', s.locator,
        'title', s.title, 'claim', c.claim, 'quote', c.quote, 'place', c.place, 'found', c.found,
        'task_id', c.task_id, 'at', c.at)
    FROM agent2389.sources s WHERE s.tenant = c.tenant AND s.job_id = c.job_id AND s.number = c.source
$$;

CREATE FUNCTION agent2389.requirement_record(r agent2389.requirements) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object('number', r.number, 'text', r.text, 'priority', r.priority, 'status', r.status,
        'note', r.note, 'version', r.version, 'task_id', r.task_id, 'changed_at', r.changed_at)
$$;

-- Keeps a citation and its source; the same one again is the one that is there.
CREATE FUNCTION agent2389_v1.cite(of_task text, of_epoch integer, token text, new jsonb, most integer) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t text := agent2389.current_tenant();
    j text := agent2389.open_dossier(t, of_task, of_epoch, token, 'cite', new ->> 'claim');
    fingerprint text := encode(sha256(convert_to(
        jsonb_build_array(new -> 'claim', new -> 'quote', new -> 'place')::text, 'UTF8')), 'hex');
    from_source integer;
    kept agent2389.citations;
BEGIN
    IF j IS NULL THEN
        RETURN NULL;
    END IF;
    SELECT s.number INTO from_source FROM agent2389.sources s WHERE s.tenant = t AND s.job_id = j
        AND s.kind = new ->> 'kind' AND s.locator = new ->> 'locator'
        AND s.sha256 IS NOT DISTINCT FROM new ->> 'sha256';
    SELECT * INTO kept FROM agent2389.citations c WHERE c.tenant = t AND c.job_id = j
        AND c.source = from_source AND c.content_hash = fingerprint;
    IF FOUND THEN
        RETURN agent2389.citation_record(kept);
    ELSIF (SELECT count(*) FROM agent2389.citations c WHERE c.tenant = t AND c.job_id = j) >= most THEN
        RAISE EXCEPTION 'the job holds % citations, the most it may', most USING ERRCODE = 'A2001', DETAIL = 'invalid';
    END IF;
    IF from_source IS NULL THEN
        INSERT INTO agent2389.sources (tenant, job_id, number, kind, locator, title, sha256)
        SELECT t, j, coalesce(max(s.number), 0) + 1, new ->> 'kind', new ->> 'locator', new ->> 'title', new ->> 'sha256'
        FROM agent2389.sources s WHERE s.tenant = t AND s.job_id = j
        RETURNING number INTO from_source;
    END IF;
    INSERT INTO agent2389.citations (tenant, job_id, number, source, task_id, claim, quote, place, found, content_hash)
    SELECT t, j, coalesce(max(c.number), 0) + 1, from_source, of_task, new ->> 'claim', new ->> 'quote',
        new ->> 'place', (new ->> 'found')::boolean, fingerprint
    FROM agent2389.citations c WHERE c.tenant = t AND c.job_id = j
    RETURNING * INTO kept;
    RETURN agent2389.citation_record(kept);
END $$;

CREATE FUNCTION agent2389_v1.sources(of_job text) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object('number', s.number, 'kind', s.kind, 'locator', s.locator,
        'title', s.title, 'sha256', s.sha256, 'at', s.at, 'citations', (SELECT count(*) FROM agent2389.citations c
            WHERE c.tenant = s.tenant AND c.job_id = s.job_id AND c.source = s.number)) ORDER BY s.number), '[]')
    FROM agent2389.sources s WHERE s.tenant = agent2389.current_tenant() AND s.job_id = of_job
$$;

-- Citations in order: of one source, the one of a number, or all.
CREATE FUNCTION agent2389_v1.citations(of_job text, of_source integer, of_number integer, most integer) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_agg(agent2389.citation_record(c) ORDER BY c.number), '[]')
    FROM (SELECT * FROM agent2389.citations a WHERE a.tenant = agent2389.current_tenant() AND a.job_id = of_job
        AND (of_source IS NULL OR a.source = of_source) AND (of_number IS NULL OR a.number = of_number)
        ORDER BY a.number LIMIT most) c
$$;

CREATE FUNCTION agent2389_v1.add_requirement(
    of_task text, of_epoch integer, token text, words text, weight text, most integer
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t text := agent2389.current_tenant();
    j text := agent2389.open_dossier(t, of_task, of_epoch, token, 'add_requirement', words);
    kept agent2389.requirements;
BEGIN
    IF j IS NULL THEN
        RETURN NULL;
    END IF;
    SELECT * INTO kept FROM agent2389.requirements r WHERE r.tenant = t AND r.job_id = j AND r.text = words
        ORDER BY r.number LIMIT 1;
    IF FOUND THEN
        RETURN agent2389.requirement_record(kept);
    ELSIF (SELECT count(*) FROM agent2389.requirements r WHERE r.tenant = t AND r.job_id = j) >= most THEN
        RAISE EXCEPTION 'the job holds % requirements, the most it may', most
            USING ERRCODE = 'A2001', DETAIL = 'invalid';
    END IF;
    INSERT INTO agent2389.requirements (tenant, job_id, number, text, priority, task_id)
    SELECT t, j, coalesce(max(r.number), 0) + 1, words, weight, of_task
    FROM agent2389.requirements r WHERE r.tenant = t AND r.job_id = j
    RETURNING * INTO kept;
    RETURN agent2389.requirement_record(kept);
END $$;

-- Changes a requirement that still reads as it did at `seen`; a repeat finds it as it wants it.
CREATE FUNCTION agent2389_v1.edit_requirement(
    of_task text, of_epoch integer, token text, of_number integer, seen integer, change jsonb
) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t text := agent2389.current_tenant();
    j text := agent2389.open_dossier(t, of_task, of_epoch, token, 'edit_requirement', change ->> 'note');
    kept agent2389.requirements;
    word text := 'ok';
BEGIN
    IF j IS NULL THEN
        RETURN NULL;
    END IF;
    SELECT * INTO kept FROM agent2389.requirements r WHERE r.tenant = t AND r.job_id = j AND r.number = of_number;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no requirement %', of_number USING ERRCODE = 'A2404';
    ELSIF to_jsonb(kept) @> change THEN
        word := 'already';
    ELSIF kept.version <> seen THEN
        word := 'stale';
    ELSE
        UPDATE agent2389.requirements r SET text = coalesce(change ->> 'text', r.text),
            priority = coalesce(change ->> 'priority', r.priority), status = coalesce(change ->> 'status', r.status),
            note = coalesce(change ->> 'note', r.note), version = r.version + 1, task_id = of_task,
            changed_at = clock_timestamp()
        WHERE r.tenant = t AND r.job_id = j AND r.number = of_number RETURNING * INTO kept;
    END IF;
    RETURN jsonb_build_object('verdict', word, 'requirement', agent2389.requirement_record(kept));
END $$;

CREATE FUNCTION agent2389_v1.requirements(of_job text, of_status text, of_number integer) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_agg(agent2389.requirement_record(r) ORDER BY r.number), '[]')
    FROM agent2389.requirements r WHERE r.tenant = agent2389.current_tenant() AND r.job_id = of_job
        AND (of_status IS NULL OR r.status = of_status) AND (of_number IS NULL OR r.number = of_number)
$$;

REVOKE ALL ON FUNCTION agent2389.open_dossier, agent2389.citation_record, agent2389.requirement_record,
    agent2389_v1.cite, agent2389_v1.sources, agent2389_v1.citations, agent2389_v1.add_requirement,
    agent2389_v1.edit_requirement, agent2389_v1.requirements FROM PUBLIC;
GRANT EXECUTE ON FUNCTION agent2389_v1.cite, agent2389_v1.add_requirement, agent2389_v1.edit_requirement
    TO agent2389_agent;
GRANT EXECUTE ON FUNCTION agent2389_v1.sources, agent2389_v1.citations, agent2389_v1.requirements
    TO agent2389_agent, agent2389_operator;
