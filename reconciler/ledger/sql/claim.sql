-- S1 of many keys in one statement: $1 how many dirty keys, $2 how many looks, $3 lease,
-- $4 how long it is believed that a conquest has no task.
-- claim grows before any state is read, and want_gen is noted here: a trigger that
-- comes later leaves the key dirty. Whether an intent is alive is looked at here
-- too, before the tasks are read; S3 believes it only of this very attempt, since
-- the edges are of this statement's snapshot. One row a key and edge. A sub-query
-- and LATERAL with OFFSET 0 are look-ups by key whatever the planner believes of the
-- tables' sizes.
-- A claim changes no column of an index, so that its new row stays beside the old one
-- (fillfactor) and no index is touched; what makes a key dirty, and what ends that, does.
WITH dirty AS (
    SELECT key FROM queue
    WHERE want_gen > done_gen AND run_after <= now() AND (leased_until IS NULL OR leased_until < now())
    ORDER BY priority, run_after LIMIT $1 FOR UPDATE SKIP LOCKED
), looks AS (
    SELECT key FROM queue
    WHERE look_at <= now() AND (want_gen <= done_gen OR run_after > now()) AND (leased_until IS NULL OR leased_until < now())
    ORDER BY look_at LIMIT $2 FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE queue q SET claim = claim + 1, tried_at = now(), leased_until = now() + $3
    WHERE q.key = ANY (ARRAY(SELECT key FROM dirty UNION ALL SELECT key FROM looks))
    RETURNING q.key, q.want_gen, q.claim, q.want_gen > q.done_gen AS dirty, q.attempts, q.since, q.source, q.priority
)
SELECT q.key, q.want_gen, q.claim, q.dirty, q.attempts, q.since, q.source,
       e.task_id, e.project, e.intent_attempt, e.intent_deadline > now(), e.base, e.task_created_at,
       e.task_id IS NULL
       AND (SELECT result::text FROM public."Conquest" WHERE id = q.key) = 'VICTORY'
       AND COALESCE(h.searched_at < now() - $4::interval, true) AS search,
       h.key IS NOT NULL, CASE WHEN h.d IS NOT NULL THEN h.n END
FROM claimed q
LEFT JOIN LATERAL (SELECT * FROM hub WHERE key = q.key OFFSET 0) h ON true
LEFT JOIN LATERAL (SELECT * FROM edge WHERE key = q.key OFFSET 0) e ON true
ORDER BY q.priority, q.key, e.task_id
