-- enqueue is mark_dirty without its notification: the stream and the worker are one
-- process, which wakes itself without a round through the server at each change of a
-- row. mark_dirty is for everybody else.

-- +goose Up
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION enqueue(keys text[], prio smallint, src text, gap interval) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    n    bigint;
    told timestamptz := CASE WHEN src = 'webhook' THEN now() END;
BEGIN
    WITH dirty AS (
        INSERT INTO queue AS q (key, priority, source, told_at)
        SELECT DISTINCT key, prio, src, told FROM unnest(keys) AS key ORDER BY key
        ON CONFLICT (key) DO UPDATE SET
            want_gen  = q.want_gen + 1,
            priority  = CASE WHEN q.want_gen > q.done_gen THEN LEAST(q.priority, EXCLUDED.priority) ELSE EXCLUDED.priority END,
            source    = CASE WHEN q.want_gen > q.done_gen AND q.priority <= EXCLUDED.priority THEN q.source ELSE EXCLUDED.source END,
            since     = CASE WHEN q.want_gen > q.done_gen THEN q.since ELSE now() END,
            run_after = CASE WHEN q.want_gen > q.done_gen THEN LEAST(q.run_after, GREATEST(now(), q.tried_at + gap)) ELSE now() END,
            told_at   = COALESCE(told, q.told_at)
        RETURNING 1
    )
    SELECT count(*) INTO n FROM dirty;
    RETURN n;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION mark_dirty(keys text[], prio smallint, src text, gap interval) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    n bigint := enqueue(keys, prio, src, gap);
BEGIN
    IF n > 0 THEN
        PERFORM pg_notify(current_schema(), '');
    END IF;
    RETURN n;
END
$$;
-- +goose StatementEnd

-- +goose Down
-- Earlier versions take both as they are; nothing to undo.
