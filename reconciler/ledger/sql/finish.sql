-- The end of a turn for many keys, as far as the claim is still its own: $1 is a
-- list of {key, claim, gen, look, wait, failed, error}. wait is NULL for a success;
-- else the key stays dirty and is due again in so many seconds, or as soon as $2
-- allows where a trigger came meanwhile. A look that was due
-- before this claim is taken; one that fell due meanwhile stays. The notes of a call
-- that came meanwhile stay for the next turn.
-- The end uses the claim up: a transaction that was committed unheard and is tried
-- again finds that the turn is over.
-- Where a person waits for it, a success is told when this commits.
WITH ended AS (
    UPDATE queue q SET
        done_gen     = CASE WHEN x.wait IS NULL THEN GREATEST(q.done_gen, x.gen) ELSE q.done_gen END,
        notes        = CASE WHEN x.wait IS NULL AND q.want_gen <= x.gen THEN NULL ELSE q.notes END,
        since        = CASE WHEN x.wait IS NULL THEN q.tried_at ELSE q.since END,
        run_after    = CASE WHEN x.wait IS NULL THEN q.run_after
                            WHEN q.want_gen > x.gen THEN LEAST(now() + x.wait * interval '1 second', GREATEST(now(), q.tried_at + $2))
                            ELSE now() + x.wait * interval '1 second' END,
        attempts     = CASE WHEN x.wait IS NULL THEN 0 WHEN x.failed THEN q.attempts + 1 ELSE q.attempts END,
        last_error   = CASE WHEN x.wait IS NULL THEN NULL ELSE COALESCE(x.error, q.last_error) END,
        claim        = q.claim + 1,
        leased_until = NULL,
        look_at      = CASE WHEN x.look IS NOT NULL THEN now() + x.look * interval '1 second'
                            WHEN q.look_at > q.tried_at THEN q.look_at
                            WHEN x.wait IS NULL OR q.look_at IS NULL THEN NULL -- GREATEST would make one of a wait
                            ELSE GREATEST(q.look_at, now() + x.wait * interval '1 second') END
    FROM (
        -- locked in lock order: an UPDATE alone would take the rows as they come
        SELECT x.* FROM jsonb_to_recordset($1) AS x(key text, claim bigint, gen bigint, look float8, wait float8, failed boolean, error text)
        JOIN queue l USING (key) ORDER BY key FOR UPDATE OF l
    ) x
    WHERE q.key = x.key AND q.claim = x.claim
    RETURNING q.key, x.wait IS NULL AND q.priority = 0 AND octet_length(q.key) <= 1000 AS tell -- a payload may have 8000
)
SELECT pg_notify(left(current_schema(), 50) || '.done', key) FROM ended WHERE tell
