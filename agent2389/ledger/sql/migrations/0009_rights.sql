-- Who may call what. Nobody but owner and upkeep has any right on a table.

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA agent2389, agent2389_v1 FROM PUBLIC;
GRANT USAGE ON SCHEMA agent2389_v1 TO agent2389_agent, agent2389_operator, agent2389_upkeep;
GRANT USAGE ON SCHEMA agent2389 TO agent2389_upkeep;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA agent2389 TO agent2389_upkeep;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA agent2389 TO agent2389_upkeep;

GRANT EXECUTE ON FUNCTION
    agent2389_v1.submit, agent2389_v1.reject, agent2389_v1.cancel,
    agent2389_v1.register, agent2389_v1.stopped, agent2389_v1.beat, agent2389_v1.claim,
    agent2389_v1.checkpoint, agent2389_v1.finish, agent2389_v1.fail, agent2389_v1.release,
    agent2389_v1.stop_task, agent2389_v1.take_chore, agent2389_v1.reap, agent2389_v1.ring_due,
    agent2389_v1.refresh_board, agent2389_v1.lease_board, agent2389_v1.board_sent,
    agent2389_v1.take_outbox, agent2389_v1.outbox_sent, agent2389_v1.retire,
    agent2389_v1.identity, agent2389_v1.agents, agent2389_v1.pools,
    agent2389_v1.put_blob, agent2389_v1.get_blob, agent2389_v1.missing_blobs
    TO agent2389_agent;

-- Operators submit, cancel, look, do the upkeep and register as ops; they never own a task.
GRANT EXECUTE ON FUNCTION
    agent2389_v1.submit, agent2389_v1.reject, agent2389_v1.cancel,
    agent2389_v1.register, agent2389_v1.stopped, agent2389_v1.beat,
    agent2389_v1.take_chore, agent2389_v1.reap, agent2389_v1.ring_due,
    agent2389_v1.refresh_board, agent2389_v1.lease_board, agent2389_v1.board_sent,
    agent2389_v1.board_reset, agent2389_v1.take_outbox, agent2389_v1.outbox_sent,
    agent2389_v1.retire, agent2389_v1.identity, agent2389_v1.jobs, agent2389_v1.find_jobs,
    agent2389_v1.job, agent2389_v1.changes, agent2389_v1.agents, agent2389_v1.pools,
    agent2389_v1.job_counts, agent2389_v1.put_blob, agent2389_v1.get_blob, agent2389_v1.missing_blobs
    TO agent2389_operator;
GRANT EXECUTE ON FUNCTION agent2389_v1.board_reset, agent2389_v1.job TO agent2389_agent;

-- These serve all tenants at once. Changing the owner needs CREATE on the schema for the new owner.
GRANT CREATE ON SCHEMA agent2389, agent2389_v1 TO agent2389_upkeep;
ALTER FUNCTION agent2389_v1.provision OWNER TO agent2389_upkeep;
ALTER FUNCTION agent2389.forget_links OWNER TO agent2389_upkeep;
REVOKE CREATE ON SCHEMA agent2389, agent2389_v1 FROM agent2389_upkeep;
SET LOCAL ROLE agent2389_upkeep;
GRANT EXECUTE ON FUNCTION agent2389_v1.provision, agent2389.forget_links TO agent2389_owner;
SET LOCAL ROLE agent2389_owner;

INSERT INTO agent2389.meta (ledger_version) VALUES (1);
