-- Which projects a pass has read: one that could not be read is below where reading has
-- got to all the same. A version before this one neither writes nor reads it: what such
-- a pass had read is read again.

-- +goose Up
ALTER TABLE pass ADD COLUMN read bigint[] NOT NULL DEFAULT '{}';

-- +goose Down
ALTER TABLE pass DROP COLUMN read;
