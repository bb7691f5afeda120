-- Rows of "Conquest" that changed: $1 keys, $2 priority, $3 source, $4 gap, $5 the
-- transactions that changed them. The answer is NULL, and nothing is done, while
-- this statement's snapshot does not see them all: the row as it was would hide the
-- change for good.
-- What was in the change itself is not looked at: the current row is compared
-- with the hub. A change that leaves "is it VICTORY" equal to the hub, with
-- nothing pending, dirties nothing and so costs no request to Label Studio.
-- The result before VICTORY is noted on the way. LATERAL with OFFSET 0 is a look-up
-- by key, whatever the planner believes of the tables' sizes.
WITH seen AS (
    SELECT k.key, c.id IS NOT NULL AS here, c.result::text AS result, c."createdAt" AS created_at,
           h.key IS NOT NULL AS known, h.d, h.before, h.created_at IS NOT DISTINCT FROM c."createdAt" AS same_row
    FROM (SELECT DISTINCT unnest($1::text[]) AS key) k
    LEFT JOIN LATERAL (SELECT id, result, "createdAt" FROM public."Conquest" WHERE id = k.key OFFSET 0) c ON true
    LEFT JOIN LATERAL (SELECT * FROM hub WHERE key = k.key OFFSET 0) h ON true
    WHERE NOT unseen($5)
), noted AS (
    INSERT INTO hub AS h (key, created_at, before)
    SELECT key, created_at, result FROM seen
    WHERE here AND result IS DISTINCT FROM 'VICTORY' AND (NOT known OR same_row AND before IS DISTINCT FROM result)
    ORDER BY key
    ON CONFLICT (key) DO UPDATE SET before = EXCLUDED.before
    WHERE h.created_at IS NOT DISTINCT FROM EXCLUDED.created_at
    RETURNING 1
)
SELECT CASE WHEN NOT unseen($5) THEN mark_dirty(array_agg(s.key), $2, $3, $4) END
FROM seen s LEFT JOIN LATERAL (SELECT want_gen, done_gen FROM queue WHERE key = s.key OFFSET 0) p ON true
WHERE (SELECT count(*) FROM noted) >= 0 -- keeps the lock order: hub before queue
  AND (p.want_gen > p.done_gen
       OR CASE WHEN here THEN NOT known OR d IS NULL OR NOT same_row OR d <> (result IS NOT DISTINCT FROM 'VICTORY')
               ELSE known END)
