-- Schemas and tables. Data lives in agent2389, the functions people call in agent2389_v1.
-- The migration runner has created the roles and runs everything as agent2389_owner.

CREATE TABLE agent2389.meta (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    mesh_id uuid NOT NULL DEFAULT gen_random_uuid(),
    ledger_version integer NOT NULL,
    -- Where the sealer stands: the last number and the last link of the chain.
    sealed_number bigint NOT NULL DEFAULT 0,
    sealed_hash text NOT NULL DEFAULT '',
    -- What the oldest link that is kept follows: retention has forgotten the ones before.
    chain_begins text NOT NULL DEFAULT ''
);

-- Which tenant a login belongs to. any_tenant logins (ops of several tenants) may choose one
-- with the setting agent2389.tenant, inside their own transactions.
CREATE TABLE agent2389.principals (
    login text PRIMARY KEY,
    tenant text NOT NULL,
    any_tenant boolean NOT NULL DEFAULT false
);

CREATE TABLE agent2389.jobs (
    tenant text NOT NULL,
    job_id text NOT NULL,
    seq bigint GENERATED ALWAYS AS IDENTITY,
    content_hash text NOT NULL,
    -- Open until the transaction that ends the last task; queued, running and waiting are derived.
    state text NOT NULL DEFAULT 'open'
        CHECK (state IN ('open', 'completed', 'failed', 'cancelled', 'expired')),
    capability text,
    agent text,
    instruction text,
    submission jsonb NOT NULL,
    files jsonb NOT NULL DEFAULT '[]',
    source text NOT NULL,
    priority smallint NOT NULL CHECK (priority BETWEEN 0 AND 9),
    max_hops smallint NOT NULL CHECK (max_hops BETWEEN 1 AND 64),
    budget jsonb NOT NULL,
    deadline timestamptz NOT NULL,
    conversation_id text,
    wire_task_id text,
    reply_to text,
    correlation text,
    traceparent text,
    note text,
    open_tasks integer NOT NULL CHECK (open_tasks >= 0),
    hops integer NOT NULL DEFAULT 1,
    input_tokens bigint NOT NULL DEFAULT 0,
    output_tokens bigint NOT NULL DEFAULT 0,
    model_calls integer NOT NULL DEFAULT 0,
    tool_calls integer NOT NULL DEFAULT 0,
    cost_usd numeric(14, 6) DEFAULT 0,
    rehearsal boolean NOT NULL DEFAULT false,
    retry_of text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_seen timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    PRIMARY KEY (tenant, job_id),
    CHECK ((capability IS NULL) <> (agent IS NULL)),
    CHECK ((state = 'open') = (finished_at IS NULL)),
    CHECK ((state = 'open') = (open_tasks > 0))
);
CREATE INDEX jobs_newest ON agent2389.jobs (tenant, seq DESC);
CREATE INDEX jobs_content ON agent2389.jobs (tenant, content_hash);
CREATE INDEX jobs_finished ON agent2389.jobs (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX jobs_by_state ON agent2389.jobs (tenant, state, seq DESC);

-- Legal steps, filled from ledger/states.py by the migration runner.
CREATE TABLE agent2389.transitions (
    before text NOT NULL,
    after text NOT NULL,
    PRIMARY KEY (before, after)
);

CREATE TABLE agent2389.tasks (
    tenant text NOT NULL,
    task_id text NOT NULL,
    job_id text NOT NULL,
    seq bigint GENERATED ALWAYS AS IDENTITY,
    parent_task text,
    slot integer NOT NULL DEFAULT 0,
    hop smallint NOT NULL,
    pool text NOT NULL,
    capability text,
    bound_agent text,
    instruction text,
    input jsonb,
    next jsonb,
    reason text,
    state text NOT NULL DEFAULT 'queued',
    -- 9 - priority: the claim index ascends.
    rank smallint NOT NULL CHECK (rank BETWEEN 0 AND 9),
    attempt smallint NOT NULL DEFAULT 0,
    max_attempts smallint NOT NULL DEFAULT 3,
    crashes smallint NOT NULL DEFAULT 0,
    max_crashes smallint NOT NULL DEFAULT 3,
    epoch integer NOT NULL DEFAULT 0,
    owner_incarnation text,
    owner_agent text,
    lease_until timestamptz,
    lease_seconds real,
    token_hash bytea,
    run_after timestamptz NOT NULL DEFAULT clock_timestamp(),
    rung boolean NOT NULL DEFAULT true,
    deadline timestamptz NOT NULL,
    stop_requested text CHECK (stop_requested IN ('cancel', 'expire', 'escalate')),
    error jsonb,
    wire_task_id text,
    -- How often it was sent to a foreign agent; unlike `attempt` it never falls, so no two sendings share an id.
    forwards integer NOT NULL DEFAULT 0,
    -- Assignments that nobody acknowledged.
    misses smallint NOT NULL DEFAULT 0,
    -- What a person or a judge wants done differently in the next attempt.
    feedback text,
    -- In a verification: the task it judges, and the agent that must not judge itself.
    verifies text,
    not_agent text,
    -- While a judge or a person has the word: what follows from the task, kept until then.
    held jsonb,
    -- In a branch: the task that joins it, and its place among the branches.
    joins text,
    branch smallint NOT NULL DEFAULT 0,
    -- In a task that joins: how many branches it needs, had, and lost.
    join_needed smallint,
    join_total smallint,
    join_done smallint NOT NULL DEFAULT 0,
    join_failed smallint NOT NULL DEFAULT 0,
    -- Why a waiting task waits: {"for": "join" | "timer" | "person" | "approval", ...}.
    waiting jsonb,
    -- Since when a person is asked: deadlines do not run meanwhile.
    paused_at timestamptz,
    queued_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    claimed_at timestamptz,
    finished_at timestamptz,
    PRIMARY KEY (tenant, task_id),
    FOREIGN KEY (tenant, job_id) REFERENCES agent2389.jobs,
    UNIQUE (tenant, job_id, parent_task, slot),
    CHECK ((state IN ('assigned', 'acked', 'in_progress')) = (owner_incarnation IS NOT NULL)),
    CHECK ((owner_incarnation IS NULL) = (lease_until IS NULL)),
    CHECK ((owner_incarnation IS NULL) = (token_hash IS NULL)),
    CHECK (attempt BETWEEN 0 AND max_attempts),
    CHECK (crashes BETWEEN 0 AND max_crashes),
    CHECK ((state = 'waiting') = (waiting IS NOT NULL)),
    CHECK (held IS NULL OR state IN ('completed', 'escalated')),
    CHECK ((capability IS NULL) <> (bound_agent IS NULL))
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500, fillfactor = 70);
-- Claim order uses only columns of this partial index: ordering by the primary key makes every
-- claim walk all finished rows (measured: 853 to 516 jobs/s and falling).
CREATE INDEX tasks_claimable ON agent2389.tasks (tenant, pool, rank, seq) WHERE state = 'queued';
CREATE INDEX tasks_owned ON agent2389.tasks (lease_until)
    WHERE state IN ('assigned', 'acked', 'in_progress');
CREATE INDEX tasks_assigned ON agent2389.tasks (tenant, owner_incarnation) WHERE state = 'assigned';
CREATE INDEX tasks_due ON agent2389.tasks (run_after) WHERE state = 'queued' AND NOT rung;
CREATE INDEX tasks_open_deadline ON agent2389.tasks (deadline)
    WHERE state IN ('queued', 'waiting', 'forwarded', 'completed') AND (state <> 'completed' OR held IS NOT NULL)
        AND paused_at IS NULL;
CREATE INDEX tasks_asked ON agent2389.tasks (paused_at) WHERE paused_at IS NOT NULL;
CREATE INDEX tasks_timed ON agent2389.tasks (run_after) WHERE state IN ('waiting', 'forwarded');
CREATE INDEX tasks_of_job ON agent2389.tasks (tenant, job_id, hop);

CREATE TABLE agent2389.results (
    tenant text NOT NULL,
    task_id text NOT NULL,
    epoch integer NOT NULL,
    job_id text NOT NULL,
    standing text NOT NULL CHECK (standing IN ('proposed', 'current', 'superseded', 'refused')),
    outcome text NOT NULL,
    payload jsonb NOT NULL,
    decision jsonb,
    usage jsonb NOT NULL,
    agent_id text,
    incarnation text,
    token_hash bytea NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, task_id, epoch)
);
CREATE UNIQUE INDEX results_one_current ON agent2389.results (tenant, task_id)
    WHERE standing = 'current';
CREATE INDEX results_of_job ON agent2389.results (tenant, job_id);

-- One row for each ended job: the terminal payload, rendered once and never again.
CREATE TABLE agent2389.job_results (
    tenant text NOT NULL,
    job_id text NOT NULL,
    state text NOT NULL,
    payload text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, job_id)
);

CREATE TABLE agent2389.blobs (
    tenant text NOT NULL,
    sha256 text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    media_type text NOT NULL,
    content bytea NOT NULL CHECK (octet_length(content) <= 33554432),
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, sha256)
);

CREATE TABLE agent2389.workspaces (
    tenant text NOT NULL,
    task_id text NOT NULL,
    manifest jsonb NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, task_id)
);

CREATE TABLE agent2389.events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL,
    job_id text NOT NULL,
    task_id text,
    type text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    agent_id text,
    data jsonb NOT NULL DEFAULT '{}',
    -- Given by the sealer: dense and in commit order, which ids are not.
    number bigint UNIQUE,
    previous_hash text,
    hash text
);
CREATE INDEX events_of_job ON agent2389.events (tenant, job_id, id);
CREATE INDEX events_unsealed ON agent2389.events (id) WHERE number IS NULL;

-- What retention leaves of a link of the chain: enough to tell a buried event from one removed by hand.
CREATE TABLE agent2389.buried_links (
    number bigint PRIMARY KEY,
    previous_hash text NOT NULL,
    hash text NOT NULL
);

-- One versioned row for each retained topic; the topic is built from kind and key by the sender.
CREATE TABLE agent2389.board (
    tenant text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('open', 'claim', 'result', 'approval')),
    key text[] NOT NULL,
    payload text,
    version bigint NOT NULL DEFAULT 1,
    sent_version bigint,
    -- Whether the broker may hold something; a clear of what was never sent is not sent either.
    on_wire boolean NOT NULL DEFAULT false,
    lease text,
    lease_until timestamptz,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, kind, key)
) WITH (fillfactor = 70);
-- Rows to be cleared are few among results that stay for an hour.
CREATE INDEX board_cleared ON agent2389.board (tenant, kind, key) WHERE payload IS NULL;
CREATE INDEX board_unsent ON agent2389.board (changed_at) WHERE sent_version IS DISTINCT FROM version;

CREATE TABLE agent2389.outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('receipt', 'conversation')),
    job_id text,
    agent_id text,
    conversation_id text,
    topic text,
    correlation text,
    body text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    lease_until timestamptz
);

CREATE TABLE agent2389.agents (
    tenant text NOT NULL,
    incarnation text NOT NULL,
    agent_id text NOT NULL,
    role text NOT NULL,
    capabilities text[] NOT NULL,
    pools text[] NOT NULL,
    description text NOT NULL,
    slots integer NOT NULL,
    free_slots integer NOT NULL,
    singleton boolean NOT NULL,
    state text NOT NULL CHECK (state IN ('starting', 'running', 'paused', 'draining', 'stopped')),
    desired_state text CHECK (desired_state IN ('draining', 'stopped', 'restarting')),
    version text NOT NULL,
    config_sha256 text NOT NULL,
    interval_s real NOT NULL,
    metadata jsonb NOT NULL,
    tasks_total bigint NOT NULL DEFAULT 0,
    presence_cleared boolean NOT NULL DEFAULT false,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_beat timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, incarnation)
) WITH (fillfactor = 70);
CREATE INDEX agents_by_id ON agent2389.agents (tenant, agent_id);
CREATE INDEX agents_alive ON agent2389.agents (last_beat);

CREATE TABLE agent2389.intake_rejects (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL,
    topic text NOT NULL,
    payload_sha256 text NOT NULL,
    size integer NOT NULL,
    code text NOT NULL,
    excerpt text NOT NULL,
    times integer NOT NULL DEFAULT 1,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (tenant, topic, payload_sha256)
);

CREATE TABLE agent2389.upkeep (
    tenant text NOT NULL,
    chore text NOT NULL,
    last_run timestamptz NOT NULL DEFAULT '-infinity',
    PRIMARY KEY (tenant, chore)
);

CREATE TABLE agent2389.tombstones (
    tenant text NOT NULL,
    job_id text NOT NULL,
    content_hash text NOT NULL,
    state text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, job_id)
);

-- A question bound to the hash of the exact arguments of one tool call.
CREATE TABLE agent2389.approvals (
    tenant text NOT NULL,
    approval_id text NOT NULL,
    job_id text NOT NULL,
    task_id text NOT NULL,
    tool text NOT NULL,
    arguments text NOT NULL,
    arguments_sha256 text NOT NULL CHECK (arguments_sha256 ~ '^[0-9a-f]{64}$'),
    question text NOT NULL,
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'approved', 'rejected', 'withdrawn')),
    actor text,
    reason text,
    asked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    decided_at timestamptz,
    PRIMARY KEY (tenant, approval_id),
    UNIQUE (tenant, task_id, tool, arguments_sha256),
    CHECK ((state = 'pending') = (decided_at IS NULL))
);

-- What operators told agents to do; a pause belongs to the agent id and survives its processes.
CREATE TABLE agent2389.commands (
    tenant text NOT NULL,
    command_id text NOT NULL,
    agent_id text NOT NULL,
    incarnation text,
    action text NOT NULL CHECK (action IN ('pause', 'resume', 'drain', 'stop', 'restart')),
    actor text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, command_id)
);
CREATE TABLE agent2389.pauses (
    tenant text NOT NULL,
    agent_id text NOT NULL,
    actor text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, agent_id)
);
