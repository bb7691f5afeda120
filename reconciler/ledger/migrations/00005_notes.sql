-- The notes of a sync call, for the meta of the task where the row has none: from the
-- call until a turn has ended that began with them.

-- +goose Up
ALTER TABLE queue ADD COLUMN notes text;

-- +goose Down
ALTER TABLE queue DROP COLUMN notes;
