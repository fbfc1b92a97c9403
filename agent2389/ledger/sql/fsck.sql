-- What fsck and fault runs ask, by name.

-- name: fsck
SELECT agent2389_v1.fsck($1, $2)
-- name: broken_links
SELECT to_json(agent2389_v1.broken_links($1))
-- name: audit
SELECT agent2389_v1.audit($1, $2)
-- name: retained
SELECT agent2389_v1.fsck_retained()
-- name: repair
SELECT agent2389_v1.fsck_repair()
-- name: board_reset
SELECT agent2389_v1.board_reset()
-- name: refresh_board
SELECT agent2389_v1.refresh_board()
-- name: recoveries
SELECT agent2389_v1.recoveries(to_timestamp($1))
-- name: event_counts
SELECT agent2389_v1.event_counts()
-- name: agents
SELECT agent2389_v1.agents()
-- name: job_counts
SELECT agent2389_v1.job_counts()
-- name: unsent
SELECT agent2389_v1.unsent()
-- name: transitions
SELECT agent2389_v1.fsck_transitions()
-- name: identity
SELECT agent2389_v1.identity()
-- name: read_only_on
ALTER SYSTEM SET default_transaction_read_only = on
-- name: read_only_off
ALTER SYSTEM RESET default_transaction_read_only
-- name: reload
SELECT pg_reload_conf()
-- name: soundings
SELECT agent2389_v1.soundings()
-- name: ping
SELECT 1
-- name: notify
SELECT pg_notify('agent2389_doctor', '')
