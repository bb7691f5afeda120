-- Our tables where they were never made: empty.
WITH hub AS (SELECT ''::text AS key, false AS d, 0::bigint AS n, now()::timestamp AS created_at, ''::text AS before WHERE false),
edge AS (SELECT 0::bigint AS task_id, ''::text AS key, 0::bigint AS project, ''::text AS begun, now() AS task_created_at, now() AS task_updated_at,
    false AS s, false AS older, ''::text AS last, '{}'::bigint[] AS base, false AS intent_value, ''::text AS intent_attempt,
    now() AS intent_deadline, now() AS missing_since, '{}'::jsonb AS held WHERE false),
queue AS (SELECT ''::text AS key, 0::bigint AS want_gen, 0::bigint AS done_gen, now() AS leased_until, now() AS tried_at WHERE false),
sight AS (SELECT 0::bigint AS pass, 0::bigint AS task_id, '{}'::jsonb AS seen WHERE false)
