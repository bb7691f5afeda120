-- What became of the PATCH that a decision led to, and who looks it up: S5, or the
-- turn that finds the intent again. Few are open at a time. A version before this one
-- leaves it NULL, which reads as "not known".

-- +goose Up
ALTER TABLE audit ADD COLUMN answer text;
CREATE INDEX audit_open ON audit (attempt) WHERE attempt IS NOT NULL AND answer IS NULL;

-- +goose Down
DROP INDEX audit_open;
ALTER TABLE audit DROP COLUMN answer;
