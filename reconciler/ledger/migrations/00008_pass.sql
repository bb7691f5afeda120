-- What a pass over both sides has found, and how far it has got: it goes on after a
-- restart from where it was, and a plan that was braked waits for a person.

-- +goose Up
CREATE TABLE pass (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind        text        NOT NULL,                  -- full, incremental
    state       text        NOT NULL,                  -- wanted, reading, comparing, marking, done; braked, replaced
    why         text        NOT NULL,
    projects    bigint[],                              -- those to read; NULL: all
    asked_at    timestamptz NOT NULL DEFAULT now(),
    began_at    timestamptz,
    ended_at    timestamptz,
    runner      text        NOT NULL DEFAULT '',       -- who is at it: another one that goes on fences the first
    project     bigint      NOT NULL DEFAULT 0,        -- reading has got to this task of this project
    task        bigint      NOT NULL DEFAULT 0,
    key         text        NOT NULL DEFAULT '',       -- comparing has got to this key
    tasks       bigint      NOT NULL DEFAULT 0,        -- tasks read
    plan        text,                                  -- hash of what it would change
    sets        integer     NOT NULL DEFAULT 0,        -- keys of the plan, by what would be done
    clears      integer     NOT NULL DEFAULT 0,
    links       integer     NOT NULL DEFAULT 0,
    brake       text,                                  -- why it was braked
    released_at timestamptz,
    released_by text
);
CREATE INDEX pass_open ON pass (state, id) WHERE state NOT IN ('done', 'replaced');
CREATE INDEX pass_ended ON pass (ended_at);

-- Tasks that a pass saw otherwise than their edges remember: at rest there are none.
CREATE TABLE sight (
    pass    bigint NOT NULL,
    task_id bigint NOT NULL,
    project bigint NOT NULL,
    seen    jsonb  NOT NULL,
    PRIMARY KEY (task_id, pass)
);

-- Keys that a pass found different, or to be looked at.
CREATE TABLE finding (
    key       text        NOT NULL,
    pass      bigint      NOT NULL,
    class     text        NOT NULL,             -- of drift; '' for a key that is only to be looked at
    change    text        NOT NULL DEFAULT '',  -- set, clear, link: what the brake counts
    explained boolean     NOT NULL,             -- being worked on, or changed meanwhile
    decision  text        NOT NULL,
    reason    text        NOT NULL,
    since     timestamptz NOT NULL DEFAULT now(), -- when a pass first found it so
    found_at  timestamptz NOT NULL DEFAULT now(),
    marked_at timestamptz,                      -- when it was made dirty
    PRIMARY KEY (key, pass)
);
CREATE INDEX finding_pass ON finding (pass, key) WHERE marked_at IS NULL;

-- +goose Down
DROP TABLE finding, sight, pass;
