-- The keys after $2, in their order, that are not at rest, or of which pass $1 saw a task otherwise than we remember it.
-- Whole tables are joined here, so it takes along no more than it asks for. A key at rest that has gold ratings of more than one
-- triple is among them: the look at it tells.
SELECT key FROM (
    SELECT COALESCE(c.id, h.key, e.key) AS key, (
        c.id IS NOT NULL AND e.s = h.d AND e.older IS NULL AND e.intent_value IS NULL AND e.missing_since IS NULL
        AND h.d = (c.result::text IS NOT DISTINCT FROM 'VICTORY') AND h.created_at IS NOT DISTINCT FROM c."createdAt"
        AND CASE WHEN h.d THEN r.fits AND r.philosopher = c.philosopher AND r.domain = c.domain
            ELSE r.key IS NULL AND cardinality(e.base) = 0 AND COALESCE(h.before, 'PENDING') = COALESCE(c.result::text, 'PENDING') END
    ) IS TRUE AS rests
    FROM public."Conquest" c
    FULL JOIN hub h ON h.key = c.id
    FULL JOIN edge e ON e.key = h.key
    LEFT JOIN (
        SELECT conquest_analysis_id AS key, min(philosopher) AS philosopher, min(domain) AS domain,
               count(*) = 1 AND bool_and(use_as_sample_response AND rating = 5 AND label_studio_task_id IS NOT NULL) AS fits
        FROM public.ml_analysis_rating WHERE is_gold_star GROUP BY 1
    ) r ON r.key = c.id
) k WHERE key > $2 AND NOT rests
UNION
SELECT e.key FROM sight s JOIN edge e ON e.task_id = s.task_id WHERE s.pass = $1 AND e.key > $2
ORDER BY key
