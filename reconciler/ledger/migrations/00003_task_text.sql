-- The texts that turns read from Label Studio's tasks, so that reading examples
-- never asks Label Studio. Who is behind the other version of this program leaves
-- them as they are; its next turn under this one brings them up to date.

-- +goose Up
CREATE TABLE task_text (
    task_id       bigint PRIMARY KEY REFERENCES edge ON DELETE CASCADE,
    key           text NOT NULL,
    hash          bytea,       -- of all that follows, so that a turn at rest writes nothing; NULL: no text at all
    prompt        text,
    messages      text,        -- a prompt that is a conversation: JSON, a list of {"role", "content"}
    response      text,
    system        text,
    corrected     text,        -- a person's response, of the newest annotation that has one
    annotation_id bigint,
    annotated_at  timestamptz  -- when that annotation was made
);
CREATE INDEX task_text_key ON task_text (key);

-- Every replica has examples in memory: whoever changes a text tells them, whose
-- texts they are. The channel is the schema's.
-- +goose StatementBegin
CREATE FUNCTION tell_text() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('icl_' || md5(TG_TABLE_SCHEMA), jsonb_build_object('text', jsonb_build_array(COALESCE(NEW.key, OLD.key)))::text);
    RETURN NULL;
END
$$;
-- +goose StatementEnd
CREATE TRIGGER tell_text AFTER INSERT OR UPDATE OR DELETE ON task_text FOR EACH ROW EXECUTE FUNCTION tell_text();

-- +goose Down
DROP TABLE task_text;
DROP FUNCTION tell_text;
