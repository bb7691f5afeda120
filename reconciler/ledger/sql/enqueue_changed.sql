-- Rows of "Conquest" that changed: $1 keys, $2 priority, $3 source, $4 gap, $5 the
-- transactions that changed them. The answer is NULL, and nothing is done, while
-- this statement's snapshot does not see them all: the row as it was would hide the
-- change for good.
-- What was in the change itself is not looked at: the current row is compared
-- with the hub. A change that leaves "is it VICTORY" equal to the hub dirties
-- nothing and so costs no request to Label Studio: a turn that is pending reads the
-- row when it locks it. The result before VICTORY is noted on the way.
WITH seen AS MATERIALIZED (
    SELECT k.key, c.id IS NOT NULL AS here, c.result::text AS result, c."createdAt" AS created_at,
           h.key IS NOT NULL AS known, h.d, h.before, h.created_at IS NOT DISTINCT FROM c."createdAt" AS same_row
    FROM (SELECT unnest($1::text[]) AS key) k
    LEFT JOIN public."Conquest" c ON c.id = k.key
    LEFT JOIN hub h ON h.key = k.key
    WHERE NOT unseen($5)
), noted AS (
    INSERT INTO hub AS h (key, created_at, before)
    SELECT DISTINCT ON (key) key, created_at, result FROM seen
    WHERE here AND result IS DISTINCT FROM 'VICTORY' AND (NOT known OR same_row AND before IS DISTINCT FROM result)
    ORDER BY key
    ON CONFLICT (key) DO UPDATE SET before = EXCLUDED.before
    WHERE h.created_at IS NOT DISTINCT FROM EXCLUDED.created_at
      -- who held the lock that this waited for may have noted what is newer than the snapshot
      AND h.before IS NOT DISTINCT FROM (SELECT jsonb_object_agg(key, before) FROM seen) ->> h.key
    RETURNING 1
)
SELECT CASE WHEN NOT unseen($5) THEN enqueue(array_agg(key), $2, $3, $4) END
FROM seen
WHERE (SELECT count(*) FROM noted) >= 0 -- keeps the lock order: hub before queue
  AND CASE WHEN here THEN d IS NULL OR NOT same_row OR d <> (result IS NOT DISTINCT FROM 'VICTORY')
           ELSE known END
