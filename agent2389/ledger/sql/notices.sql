-- Every statement of the notifications, by name.

-- name: take
SELECT agent2389_v1.take_notices($1, $2, $3, $4, $5, $6)
-- name: keep
SELECT agent2389_v1.keep_notices($1, $2, $3::jsonb, $4, $5)
-- name: standing
SELECT agent2389_v1.notices($1, $2, $3)
