-- Logins of a deployment: one for agents, one for ops. Run it with psql (14 or newer) as the login that
-- migrates, after `agent2389 db migrate`, with AGENT_PASSWORD and OPERATOR_PASSWORD in the environment.
-- Running it again sets the passwords anew and changes nothing else.
\set ON_ERROR_STOP on
\getenv agent_password AGENT_PASSWORD
\getenv operator_password OPERATOR_PASSWORD

BEGIN;
SELECT format('CREATE ROLE %I LOGIN', wanted.login)
FROM (VALUES ('mesh_agent'), ('mesh_operator')) AS wanted (login)
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted.login)
\gexec
ALTER ROLE mesh_agent PASSWORD :'agent_password';
ALTER ROLE mesh_operator PASSWORD :'operator_password';
-- ops takes in work and does the chores that agents also do, so it is in both groups.
GRANT agent2389_agent TO mesh_agent, mesh_operator;
GRANT agent2389_operator TO mesh_operator;

SET LOCAL ROLE agent2389_owner;
SELECT agent2389_v1.provision('mesh_agent', 'default', false);
SELECT agent2389_v1.provision('mesh_operator', 'default', true);
COMMIT;
