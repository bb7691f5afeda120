-- Every scrape of the metrics counts the held keys: that must not read every edge.

-- +goose Up
CREATE INDEX edge_held ON edge (key) WHERE held IS NOT NULL;

-- +goose Down
DROP INDEX edge_held;
