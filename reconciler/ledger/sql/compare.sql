-- Both sides of keys as we know them, one row a key and edge, in the order of keys:
-- $1 the pass whose sights count, $2 the keys. A time that Go has none for, or JSON no text, is
-- none: it must not keep a pass from all the others.
SELECT k.key,
       c.id IS NOT NULL, c.result::text, c."createdAt"::text, c."evaluatedBy",
       CASE WHEN c."evaluatedAt" BETWEEN '0001-01-01' AND '9999-12-31' THEN c."evaluatedAt" END,
       CASE WHEN c."updatedAt" BETWEEN '0001-01-01' AND '9999-12-31' THEN c."updatedAt" END,
       h.key IS NOT NULL, h.d, h.n, h.created_at::text, h.before,
       COALESCE(r.gold, 0), COALESCE(r.fit, false), COALESCE(r.placed, false),
       COALESCE(q.want_gen > q.done_gen, false), COALESCE(q.leased_until > now(), false), q.tried_at,
       e.task_id, e.project, e.begun, e.task_created_at, e.task_updated_at, e.s, e.older, e.last, e.base,
       e.intent_value, e.intent_attempt, extract(epoch FROM e.intent_deadline - now())::float8, e.missing_since, e.held,
       s.seen
FROM (SELECT DISTINCT unnest($2::text[]) AS key) k
LEFT JOIN public."Conquest" c ON c.id = k.key
LEFT JOIN hub h ON h.key = k.key
LEFT JOIN edge e ON e.key = k.key
LEFT JOIN sight s ON s.task_id = e.task_id AND s.pass = $1
LEFT JOIN queue q ON q.key = k.key
LEFT JOIN (
    SELECT conquest_analysis_id, philosopher, domain, count(*) AS gold,
           bool_and(use_as_sample_response AND rating = 5) IS TRUE AS fit, bool_and(label_studio_task_id IS NOT NULL) AS placed
    FROM public.ml_analysis_rating WHERE is_gold_star AND conquest_analysis_id = ANY($2) GROUP BY 1, 2, 3
) r ON r.conquest_analysis_id = c.id AND r.philosopher = c.philosopher AND r.domain = c.domain
ORDER BY k.key, e.task_id
