-- Keys that sign what we hand out, shared by all replicas.

-- +goose Up
CREATE TABLE secret (
    name  text PRIMARY KEY,
    value bytea NOT NULL
);

-- +goose Down
DROP TABLE secret;
