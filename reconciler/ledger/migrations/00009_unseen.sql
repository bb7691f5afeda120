-- unseen again, as a loop: it is asked at each change of a row, and to start a query took
-- ten times as long as its answer.

-- +goose Up
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION unseen(xids bigint[]) RETURNS boolean STABLE LANGUAGE plpgsql AS $$
DECLARE
    now    pg_snapshot := pg_current_snapshot();
    newest bigint := pg_snapshot_xmax(now)::text::bigint;
    xid    bigint;
BEGIN
    FOREACH xid IN ARRAY COALESCE(xids, '{}') LOOP
        xid := (newest >> 32 << 32) + xid;
        IF xid - newest > 1::bigint << 31 THEN
            xid := xid - (1::bigint << 32);
        ELSIF newest - xid > 1::bigint << 31 THEN
            xid := xid + (1::bigint << 32);
        END IF;
        IF NOT pg_visible_in_snapshot(xid::text::xid8, now) THEN
            RETURN true;
        END IF;
    END LOOP;
    RETURN false;
END
$$;
-- +goose StatementEnd

-- +goose Down
-- The function of before does the same, more slowly; nothing to undo.
