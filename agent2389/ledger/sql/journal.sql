-- The statements of the journal, by name.

-- name: effect_begin
SELECT agent2389_v1.effect_begin($1, $2, $3, $4::jsonb, $5::jsonb)
-- name: effect_end
SELECT agent2389_v1.effect_end($1, $2, $3, $4::jsonb)
-- name: resume
SELECT agent2389_v1.resume($1, $2, $3)
-- name: escalate_task
SELECT agent2389_v1.escalate_task($1, $2, $3, $4::jsonb)
-- name: resolve_effect
SELECT agent2389_v1.resolve_effect($1, $2, $3, $4, $5, $6)
-- name: transcript
SELECT agent2389_v1.transcript($1, $2, $3)
-- name: set_limit
SELECT agent2389_v1.set_limit($1, $2, $3)
-- name: spending
SELECT agent2389_v1.spending()
-- name: forget_messages
SELECT agent2389_v1.forget_messages($1)
