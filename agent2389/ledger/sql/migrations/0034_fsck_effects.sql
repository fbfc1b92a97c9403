-- I12: what must never happen twice is in the journal once for each key.

CREATE FUNCTION agent2389.fsck_effects(t text) RETURNS SETOF agent2389.problem
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT 'I12', e.task_id, 'made the unsafe call ' || min(e.name) || ' ' || count(*) || ' times', NULL::float8, NULL::float8
    FROM agent2389.effects e
    WHERE e.tenant = t AND e.repeat = 'unsafe' AND NOT e.reused AND e.state <> 'void'
    GROUP BY e.task_id, e.key HAVING count(*) > 1
$$;

-- As before, with the journal as a group of its own.
CREATE OR REPLACE FUNCTION agent2389_v1.fsck(what text, most integer) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t text := agent2389.current_tenant();
    answer jsonb;
BEGIN
    WITH problems AS (
        SELECT f.*, row_number() OVER kind AS n, count(*) OVER (PARTITION BY f.invariant, f.age < f.patience) AS all_of_it
        FROM (
            SELECT * FROM agent2389.fsck_jobs(t) WHERE what = 'jobs'
            UNION ALL SELECT * FROM agent2389.fsck_tasks(t) WHERE what = 'tasks'
            UNION ALL SELECT * FROM agent2389.fsck_limits(t) WHERE what = 'limits'
            UNION ALL SELECT * FROM agent2389.fsck_effects(t) WHERE what = 'effects'
            UNION ALL SELECT * FROM agent2389.fsck_board(t) WHERE what = 'board'
            UNION ALL SELECT * FROM agent2389.fsck_house(t) WHERE what = 'house') f
        WINDOW kind AS (PARTITION BY f.invariant, f.age < f.patience ORDER BY f.age DESC NULLS FIRST, f.subject))
    SELECT coalesce(jsonb_agg(to_jsonb(problems) - '{n,all_of_it}'::text[] || jsonb_build_object('times',
        CASE n WHEN 1 THEN greatest(all_of_it - most, 0) + 1 ELSE 1 END) ORDER BY invariant, n), '[]')
    INTO answer FROM problems WHERE n <= most;
    RETURN answer;
END $$;

REVOKE ALL ON FUNCTION agent2389.fsck_effects FROM PUBLIC;
