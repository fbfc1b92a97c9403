-- Every statement the adapter sends, by name.

-- name: identity
SELECT agent2389_v1.identity()
-- name: ping
SELECT 1
-- name: submit
SELECT agent2389_v1.submit($1::jsonb, $2)
-- name: reject
SELECT agent2389_v1.reject($1, $2, $3, $4, $5)
-- name: cancel
SELECT agent2389_v1.cancel($1, $2)
-- name: register
SELECT agent2389_v1.register($1::jsonb)
-- name: beat
SELECT agent2389_v1.beat($1::jsonb, $2::jsonb)
-- name: stopped
SELECT agent2389_v1.stopped($1)
-- name: claim
SELECT agent2389_v1.claim($1, $2, $3, $4)
-- name: checkpoint
SELECT agent2389_v1.checkpoint($1, $2, $3, $4::jsonb)
-- name: finish
SELECT agent2389_v1.finish($1, $2, $3, $4::jsonb)
-- name: fail
SELECT agent2389_v1.fail($1, $2, $3, $4::jsonb)
-- name: release
SELECT agent2389_v1.release($1, $2, $3, $4)
-- name: stop_task
SELECT agent2389_v1.stop_task($1, $2, $3, $4)
-- name: wait
SELECT agent2389_v1.wait($1, $2, $3, $4::jsonb)
-- name: forward
SELECT agent2389_v1.forward($1, $2)
-- name: forward_ended
SELECT agent2389_v1.forward_ended($1, $2, $3, $4::jsonb)
-- name: foreign_tasks
SELECT agent2389_v1.foreign_tasks($1)
-- name: decide
SELECT agent2389_v1.decide($1, $2, $3, $4, $5::jsonb)
-- name: escalate
SELECT agent2389_v1.escalate($1, $2, $3, $4)
-- name: clone
SELECT agent2389_v1.clone($1, $2, $3, $4, $5)
-- name: assign
SELECT agent2389_v1.assign($1, $2, $3)
-- name: command
SELECT agent2389_v1.command($1, $2, $3, $4, $5)
-- name: approvals
SELECT agent2389_v1.approvals($1, $2)
-- name: decide_approval
SELECT agent2389_v1.decide_approval($1, $2, $3, $4, $5)
-- name: take_chore
SELECT agent2389_v1.take_chore($1, $2)
-- name: reap
SELECT agent2389_v1.reap($1)
-- name: ring_due
SELECT agent2389_v1.ring_due()
-- name: refresh_board
SELECT agent2389_v1.refresh_board()
-- name: lease_board
SELECT agent2389_v1.lease_board($1)
-- name: board_sent
SELECT agent2389_v1.board_sent($1::jsonb)
-- name: board_reset
SELECT agent2389_v1.board_reset()
-- name: board_shown
SELECT agent2389_v1.board_shown($1::text[], $2::text[], $3)
-- name: board_lost
SELECT agent2389_v1.board_lost($1::jsonb)
-- name: take_outbox
SELECT agent2389_v1.take_outbox($1)
-- name: outbox_sent
SELECT agent2389_v1.outbox_sent($1::bigint[])
-- name: retire
SELECT agent2389_v1.retire($1, $2)
-- name: seal
SELECT agent2389_v1.seal($1)
-- name: sealed_changes
SELECT agent2389_v1.sealed_changes($1, $2)
-- name: broken_links
SELECT agent2389_v1.broken_links($1)
-- name: jobs
SELECT agent2389_v1.jobs($1, $2, $3)
-- name: find_jobs
SELECT agent2389_v1.find_jobs($1, $2)
-- name: job
SELECT agent2389_v1.job($1)
-- name: changes
SELECT agent2389_v1.changes($1, $2)
-- name: agents
SELECT agent2389_v1.agents()
-- name: pools
SELECT agent2389_v1.pools()
-- name: job_counts
SELECT agent2389_v1.job_counts()
-- name: unsent
SELECT agent2389_v1.unsent()
-- name: put_blob
SELECT agent2389_v1.put_blob($1, $2, $3)
-- name: get_blob
SELECT media_type, content FROM agent2389_v1.get_blob($1)
-- name: missing_blobs
SELECT agent2389_v1.missing_blobs($1::text[])
-- name: decisions
SELECT agent2389_v1.decisions($1, $2, $3, $4)
