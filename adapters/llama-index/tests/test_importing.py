"""Files of LlamaIndex's SimpleChatStore are imported without loss."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from llama_index.core.llms import ChatMessage, ImageBlock, TextBlock
from llama_index.core.storage.chat_store import SimpleChatStore

from dynamiq_memory import Memory
from dynamiq_memory.backends import InMemory
from dynamiq_memory.transfer import Totals, TransferError, import_from
from llama_index.storage.chat_store.dynamiq import DynamiqChatStore

MESSAGES = [
    ChatMessage(role="user", blocks=[TextBlock(text="What is this?"), ImageBlock(url="http://host/a.png")]),
    ChatMessage(role="assistant", content="A ferry.", additional_kwargs={"model": "m"}),
]


def persist(file: Path, sessions: dict[str, list[ChatMessage]]) -> None:
    """Write what SimpleChatStore.persist writes, which fails with some versions of pydantic."""
    dumped = {key: [each.model_dump(mode="json") for each in messages] for key, messages in sessions.items()}
    file.write_text(json.dumps({"store": dumped, "class_name": "SimpleChatStore"}))
    assert SimpleChatStore.from_persist_path(str(file)).get_messages("s-1") == sessions["s-1"]


def test_a_file_is_imported_without_loss(tmp_path: Path) -> None:
    file = tmp_path / "chats.json"
    sessions = {"s-1": [*MESSAGES], "u-1/s-1": MESSAGES[:1]}
    persist(file, sessions)
    backend = InMemory()
    assert import_from(file, backend, format="llama-index").written == 3
    imported = DynamiqChatStore(Memory(backend))
    assert sorted(imported.get_keys()) == ["s-1", "u-1/s-1"]
    assert imported.get_messages("s-1") == MESSAGES
    sessions["s-1"].append(ChatMessage(role="user", content="Thanks."))
    persist(file, sessions)
    assert import_from(file, backend, format="llama-index") == Totals(read=4, written=1, unchanged=3)


def test_messages_and_keys_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    file = tmp_path / "chats.json"
    file.write_text(json.dumps({"store": {"s-1": [{"role": "martian"}], "": [{"role": "user"}]}}))
    skipped: list[str] = []
    import_from(file, InMemory(), format="llama-index", on_error="skip", report=skipped.append)
    assert skipped[0].startswith("message 1 of 's-1': this is not of the format llama-index")
    assert skipped[1].startswith("message 1 of '': key must be")
    file.write_text("{}")
    with pytest.raises(TransferError, match="not of the format llama-index"):
        import_from(file, InMemory(), format="llama-index")


def test_what_is_no_list_of_messages_is_named_and_costs_no_other_session(tmp_path: Path) -> None:
    file, backend, skipped = tmp_path / "chats.json", InMemory(), list[str]()
    good = [MESSAGES[1].model_dump(mode="json")]
    file.write_text(json.dumps({"store": {"a": 5, "b": None, "good": good}}))
    import_from(file, backend, format="llama-index", user_id="u", on_error="skip", report=skipped.append)
    assert skipped == [f"'{key}': a list of messages is needed, not {wrong}" for key, wrong in (("a", 5), ("b", None))]
    assert [each.text for each in backend.get_all()] == ["A ferry."]
