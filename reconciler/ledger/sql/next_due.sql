-- How long until the next key is due, NULL where none ever is. A lease that is
-- still held is due when it ends.
SELECT extract(epoch FROM min(due) - now())::float8 FROM (
    SELECT min(GREATEST(run_after, leased_until)) AS due FROM queue WHERE want_gen > done_gen
    UNION ALL
    SELECT min(GREATEST(look_at, leased_until)) FROM queue WHERE look_at IS NOT NULL AND (want_gen <= done_gen OR run_after > now())
) d
