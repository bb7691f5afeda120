-- Both sides of keys as we know them, one row a key and edge, in the order of keys:
-- $1 the pass whose sights count, $2 the key to go on after. Keys that are at rest are
-- left out here, so that a pass that finds nothing carries nothing: an edge that is
-- missing in the answer though the count has it is such a one.
SELECT k.key,
       c.id IS NOT NULL, c.result::text, c."createdAt"::text, c."evaluatedBy", c."evaluatedAt", c."updatedAt",
       h.key IS NOT NULL, h.d, h.n, h.created_at::text, h.before,
       COALESCE(r.gold, 0), COALESCE(r.fit, false), COALESCE(r.placed, false),
       COALESCE(q.want_gen > q.done_gen, false), COALESCE(q.leased_until > now(), false), q.tried_at,
       e.task_id, e.project, e.begun, e.task_created_at, e.task_updated_at, e.s, e.older, e.last, e.base,
       e.intent_value, e.intent_attempt, extract(epoch FROM e.intent_deadline - now())::float8, e.missing_since, e.held,
       s.seen, (SELECT count(*) FROM edge x WHERE x.key = k.key)
/*from*/
LEFT JOIN sight s ON s.task_id = e.task_id AND s.pass = $1
LEFT JOIN queue q ON q.key = k.key
LEFT JOIN (
    SELECT conquest_analysis_id, philosopher, domain, count(*) AS gold,
           bool_and(use_as_sample_response AND rating = 5) IS TRUE AS fit, bool_and(label_studio_task_id IS NOT NULL) AS placed
    FROM public.ml_analysis_rating WHERE is_gold_star /*ratings*/ GROUP BY 1, 2, 3
) r ON r.conquest_analysis_id = c.id AND r.philosopher = c.philosopher AND r.domain = c.domain
WHERE k.key > $2 /*unlike*/ AND (
    s.seen IS NOT NULL
    OR (c.id IS NOT NULL AND h.d IS NOT NULL AND e.s IS NOT NULL AND e.intent_value IS NULL AND e.missing_since IS NULL
        AND e.older IS NULL AND e.s = h.d
        AND h.created_at IS NOT DISTINCT FROM c."createdAt" AND h.d = (c.result::text IS NOT DISTINCT FROM 'VICTORY')
        AND (h.d OR COALESCE(h.before, 'PENDING') = COALESCE(c.result::text, 'PENDING'))
        AND CASE WHEN h.d THEN r.gold = 1 AND r.fit AND r.placed ELSE r.gold IS NULL AND cardinality(e.base) = 0 END) IS NOT TRUE) /*unlike*/
ORDER BY k.key, e.task_id
