-- What the reconciler remembers. These tables live in a schema of their own in
-- Aristotle's database, so that a row, the hub and "done" commit together, and
-- outside the publication, so that our bookkeeping never enters the stream that
-- we read.
--
-- Lock order, for everybody: "Conquest", hub, edge, queue; within a table by key.

-- +goose Up

-- One row a key: is it dirty, and who is at it? Kept for ever, since claim must
-- never go back.
CREATE TABLE queue (
    key          text PRIMARY KEY,
    want_gen     bigint      NOT NULL DEFAULT 1,      -- bumped by every trigger
    done_gen     bigint      NOT NULL DEFAULT 0,      -- the want_gen that the last success had noted
    claim        bigint      NOT NULL DEFAULT 0,      -- bumped whenever a worker takes the key: fences the slower one
    priority     smallint    NOT NULL,                -- lower first
    source       text        NOT NULL,                -- what made it dirty
    since        timestamptz NOT NULL DEFAULT now(),  -- when it became dirty
    run_after    timestamptz NOT NULL DEFAULT now(),
    tried_at     timestamptz,                         -- when it was last claimed
    attempts     integer     NOT NULL DEFAULT 0,      -- failures since the last success
    leased_until timestamptz,                         -- saves work, proves nothing
    look_at      timestamptz,                         -- one more look after a PATCH, due by itself
    last_error   text
) WITH (fillfactor = 50); -- room for new versions of a row beside the old: no index is touched then
CREATE INDEX queue_dirty ON queue (priority, run_after) WHERE want_gen > done_gen;
CREATE INDEX queue_look ON queue (look_at) WHERE look_at IS NOT NULL;

-- mark_dirty is the one way into the queue. A key that is dirty already stays so
-- since when it was, and is pulled forward, but never closer than gap to the last
-- attempt. Whoever waits for work is told when this commits. PL/pgSQL keeps its plans;
-- an SQL function would be planned at each call.
-- +goose StatementBegin
CREATE FUNCTION mark_dirty(keys text[], prio smallint, src text, gap interval) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    n bigint;
BEGIN
    WITH dirty AS (
        INSERT INTO queue AS q (key, priority, source)
        SELECT DISTINCT key, prio, src FROM unnest(keys) AS key ORDER BY key
        ON CONFLICT (key) DO UPDATE SET
            want_gen  = q.want_gen + 1,
            priority  = CASE WHEN q.want_gen > q.done_gen THEN LEAST(q.priority, EXCLUDED.priority) ELSE EXCLUDED.priority END,
            source    = CASE WHEN q.want_gen > q.done_gen AND q.priority <= EXCLUDED.priority THEN q.source ELSE EXCLUDED.source END,
            since     = CASE WHEN q.want_gen > q.done_gen THEN q.since ELSE now() END,
            run_after = CASE WHEN q.want_gen > q.done_gen THEN LEAST(q.run_after, GREATEST(now(), q.tried_at + gap)) ELSE now() END
        RETURNING 1
    )
    SELECT count(*) INTO n FROM dirty;
    IF n > 0 THEN
        PERFORM pg_notify(current_schema(), '');
    END IF;
    RETURN n;
END
$$;
-- +goose StatementEnd

-- unseen tells whether the calling statement's snapshot does not see one of these
-- transactions yet. A commit reaches the stream when it is in the WAL, which is before
-- other sessions see it. Numbers in the stream have 32 bits, those of a snapshot 64:
-- the missing half is the one that brings it closest to the snapshot's newest.
-- +goose StatementBegin
CREATE FUNCTION unseen(xids bigint[]) RETURNS boolean STABLE LANGUAGE plpgsql AS $$
BEGIN
    RETURN EXISTS (
        SELECT FROM (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS xid) newest,
             unnest(xids) AS x, LATERAL (SELECT (newest.xid >> 32 << 32) + x AS xid) wide
        WHERE NOT pg_visible_in_snapshot(
            (CASE WHEN wide.xid - newest.xid > 1::bigint << 31 THEN wide.xid - (1::bigint << 32)
                  WHEN newest.xid - wide.xid > 1::bigint << 31 THEN wide.xid + (1::bigint << 32)
                  ELSE wide.xid END)::text::xid8,
            pg_current_snapshot()));
END
$$;
-- +goose StatementEnd

-- The value both sides should have. d is NULL until the first turn: then the row
-- only notes the result that the conquest had before VICTORY.
CREATE TABLE hub (
    key         text PRIMARY KEY,
    d           boolean,
    n           bigint NOT NULL DEFAULT 0,
    created_at  timestamp,   -- the row's "createdAt": another one is another row
    before      text,        -- the row's result before VICTORY
    searched_at timestamptz  -- when its tasks were last looked up by conquest id
) WITH (fillfactor = 80);
CREATE INDEX hub_look_up ON hub USING hash (key); -- half the price of the primary key's, at each change of a row

-- One task of a key: the link between them, and the shadow of our last look.
CREATE TABLE edge (
    task_id         bigint PRIMARY KEY,
    key             text    NOT NULL,
    project         bigint  NOT NULL,
    begun           text    NOT NULL,  -- the choice for its first contact
    task_created_at timestamptz,       -- another one is another task; NULL until it was read
    task_updated_at timestamptz,       -- as of the last look: the incremental pass skips what was seen
    s               boolean,           -- NULL: new
    older           boolean,           -- its is_gold_star, where that differed from gold_star
    last            text,              -- the stamp it carried
    base            bigint[] NOT NULL DEFAULT '{}',
    intent_value    boolean,
    intent_attempt  text,
    intent_deadline timestamptz,
    missing_since   timestamptz,
    held            jsonb,             -- what was seen when its first contact was held
    CHECK ((intent_value IS NULL) = (intent_attempt IS NULL) AND (intent_value IS NULL) = (intent_deadline IS NULL))
) WITH (fillfactor = 50);
CREATE INDEX edge_key ON edge (key);
CREATE INDEX edge_base ON edge USING gin (base);

-- Every decision that wrote something or held back, and what it was based on.
CREATE TABLE audit (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       timestamptz NOT NULL DEFAULT now(),
    key      text NOT NULL,
    task_id  bigint,
    source   text NOT NULL,   -- the trigger
    reason   text NOT NULL,
    said     boolean,         -- what a person said on the task
    said_by  text,            -- meta, annotation, task
    who      text,            -- e-mail, where it is known
    result   text,            -- the row's result as it was locked
    shown    boolean,         -- what the task showed
    stars    bigint[],        -- its annotations that said star
    d        boolean,         -- the hub after
    n        bigint,
    wrote    text,            -- the row's new result, where we wrote it
    intent   boolean,         -- the star that the PATCH is to write
    attempt  text
);
CREATE INDEX audit_key ON audit (key, id);

-- What the passes have got to, a row a project.
CREATE TABLE project (
    id        bigint PRIMARY KEY,
    full_at   timestamptz,  -- when the last full pass over it began; NULL: its first is not finished
    watermark timestamptz   -- the newest updated_at that an incremental pass has seen
);

-- +goose Down
DROP FUNCTION mark_dirty, unseen;
DROP TABLE project, audit, edge, hub, queue;
