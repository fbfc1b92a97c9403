-- Statements of the migration runner, by name.

-- name: role
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN
        -- The owner may hand functions to agent2389_upkeep, and must not see rows through its policies.
        CREATE ROLE {role} NOLOGIN NOINHERIT;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$
-- name: foundation
GRANT agent2389_owner TO CURRENT_USER;
GRANT agent2389_upkeep TO agent2389_owner;
CREATE SCHEMA IF NOT EXISTS agent2389 AUTHORIZATION agent2389_owner;
CREATE SCHEMA IF NOT EXISTS agent2389_v1 AUTHORIZATION agent2389_owner;
CREATE TABLE IF NOT EXISTS agent2389.migrations (
    number integer PRIMARY KEY, name text NOT NULL, sha256 text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp());
ALTER TABLE agent2389.migrations OWNER TO agent2389_owner
-- name: lock
SELECT pg_advisory_xact_lock(2389)
-- name: exists
SELECT to_regclass('agent2389.migrations') IS NOT NULL
-- name: become_owner
SET LOCAL ROLE agent2389_owner
-- name: applied
SELECT number, name, sha256 FROM agent2389.migrations ORDER BY number
-- name: record
INSERT INTO agent2389.migrations (number, name, sha256) VALUES ($1, $2, $3)
-- name: clear_transitions
DELETE FROM agent2389.transitions
-- name: add_transition
INSERT INTO agent2389.transitions (before, after) VALUES ($1, $2)
-- name: login_exists
SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)
-- name: create_login
CREATE ROLE {login} LOGIN PASSWORD {password}
-- name: change_login
ALTER ROLE {login} LOGIN PASSWORD {password}
-- name: grant_group
GRANT {group} TO {login}
-- name: provision
SELECT agent2389_v1.provision($1, $2, $3)
-- name: session_user
SELECT session_user::text
-- name: grant_self
GRANT {group} TO CURRENT_USER
