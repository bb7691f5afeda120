"""Loads exports with the datasets library, and checks them as OpenAI's guide to fine-tuning does: export_check.py COUNT FORMAT FILE [FORMAT FILE ...]"""

import sys
import tempfile

from datasets import load_dataset


def check(format, row):
    if format == "alpaca":
        assert list(row) == ["instruction", "input", "output"], list(row)
        assert row["instruction"] and row["output"] and row["input"] == ""
        return
    # https://developers.openai.com/cookbook/examples/chat_finetuning_data_prep
    assert isinstance(row, dict), "data_type"
    messages = row.get("messages", None)
    assert messages, "missing_messages_list"
    for message in messages:
        assert "role" in message and "content" in message, "message_missing_key"
        assert set(message) <= {"role", "content", "name", "function_call", "weight"}, "message_unrecognized_key"
        assert message["role"] in ("system", "user", "assistant", "function"), "unrecognized_role"
        assert message["content"] and isinstance(message["content"], str), "missing_content"
    assert any(message["role"] == "assistant" for message in messages), "example_missing_assistant_message"


count = int(sys.argv[1])
for format, file in zip(sys.argv[2::2], sys.argv[3::2]):
    with tempfile.TemporaryDirectory() as cache:
        rows = list(load_dataset("json", data_files=file, split="train", cache_dir=cache))
    assert len(rows) == count, f"{len(rows)} rows, want {count}"
    for row in rows:
        check(format, row)
    print(format, "ok")
