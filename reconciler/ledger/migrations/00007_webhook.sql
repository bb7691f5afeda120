-- Our webhooks in Label Studio, a row a project, and whether they are of use: a
-- delivery is written down now and then, so that replicas that take deliveries and the
-- leader that looks after the webhooks know the same.

-- +goose Up
CREATE TABLE webhook (
    project      bigint PRIMARY KEY,
    id           bigint NOT NULL,      -- its number there; 0: there is none
    since        timestamptz NOT NULL, -- when it was made or mended last
    problem      text,                 -- what keeps us from having one; NULL: nothing
    delivered_at timestamptz,          -- when something arrived, to half a minute
    missed_at    timestamptz           -- when a pass found what should have been announced, and was not
);

-- +goose Down
DROP TABLE webhook;
