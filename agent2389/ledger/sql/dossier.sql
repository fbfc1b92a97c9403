-- Every statement of the dossier, by name.

-- name: cite
SELECT agent2389_v1.cite($1, $2, $3, $4::jsonb, $5)
-- name: sources
SELECT agent2389_v1.sources($1)
-- name: citations
SELECT agent2389_v1.citations($1, $2, $3, $4)
-- name: add_requirement
SELECT agent2389_v1.add_requirement($1, $2, $3, $4, $5, $6)
-- name: edit_requirement
SELECT agent2389_v1.edit_requirement($1, $2, $3, $4, $5, $6::jsonb)
-- name: requirements
SELECT agent2389_v1.requirements($1, $2, $3)
