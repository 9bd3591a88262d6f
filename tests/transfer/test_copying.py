"""Copying one store into another, and comparing two."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dynamiq_memory import Message
from dynamiq_memory.backends import InMemory, SQLite
from dynamiq_memory.backends.operations import Operation
from dynamiq_memory.exceptions import BackendError, ConfigurationError, InvalidArgumentError
from dynamiq_memory.transfer import Difference, Totals, TransferError, copy, verify
from tests.fakes.counting import Counting
from tests.fakes.embedders import NGrams
from tests.transfer.conversations import plain

SCOPE = {"user_id": "u", "session_id": "s-0"}


def filled(messages: Sequence[Message]) -> InMemory:
    store = InMemory()
    store.add_many(messages)
    return store


def small_batches(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    for module in ("reading", "writing"):
        monkeypatch.setattr(f"dynamiq_memory.transfer.{module}.BATCH", size)


class Interrupted(SQLite):
    """Is killed in the midst of a write."""

    left = 2

    def execute(self, operation: Operation[Any]) -> Any:
        if type(operation).__name__ == "Write":
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
        return super().execute(operation)


def test_an_interrupted_copy_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_batches(monkeypatch, 10)
    source = filled(plain(50, sessions=3))
    with Interrupted(tmp_path / "copy.db") as target:
        with pytest.raises(KeyboardInterrupt):
            copy(source, target)
        assert [each.message_id for each in verify(source, target).differences] == ["m-20", "m-34"]
    with SQLite(tmp_path / "copy.db") as target:
        assert copy(source, target) == Totals(50, read=50, written=30, unchanged=20)
        assert verify(source, target).identical


def test_a_copy_costs_a_read_for_each_session_and_a_write_for_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    small_batches(monkeypatch, 20)
    source, target = Counting(), Counting()
    source.add_many(plain(60, sessions=6))
    target.names.clear()
    assert source.counted(lambda: copy(source, target)) == ["Sessions", *["ReadPage"] * 6]
    assert target.names == ["IsEmpty", *["Write"] * 3]
    # What is there already is read, and not written again.
    assert target.counted(lambda: copy(source, target)) == ["IsEmpty", *["Read"] * 6]


def test_memory_does_not_grow_with_the_number_of_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_batches(monkeypatch, 20)

    def peak(count: int) -> int:
        with SQLite(tmp_path / f"{count}.db") as source, SQLite(tmp_path / f"{count}-copy.db") as target:
            # The same words, since the ranking keeps the terms of some thousand.
            source.add_many([each.model_copy(update={"content": "the same words"}) for each in plain(count)])
            gc.collect()
            tracemalloc.start()
            try:
                copy(source, target, progress=lambda _: gc.collect())  # cycles are freed later
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

    peak(10)  # what is made once in a process
    assert peak(400) < 1.5 * peak(80)


def test_only_what_matches_is_copied_and_compared() -> None:
    source, target = filled(plain(30, sessions=3)), InMemory()
    filters = {"session_id": ["s-0", "s-1"], "timestamp": {"gte": 1.7e9 + 5}}
    assert copy(source, target, filters=filters).expected == 15
    assert sorted((each.session_id, each.messages) for each in target.sessions()) == [("s-0", 5), ("s-1", 10)]
    assert verify(source, target, filters=filters).identical
    assert verify(source, target).differences == (
        Difference("u", "s-0", 10, 5, "m-0"),
        Difference("u", "s-2", 10, 0, "m-20"),
    )


@pytest.mark.parametrize(
    ("on_conflict", "content", "totals"),
    [
        ("skip", "theirs", Totals(5, read=5, written=3, unchanged=1, kept=1)),
        ("replace", "message 3", Totals(5, read=5, written=3, unchanged=1, replaced=1)),
    ],
)
def test_what_the_target_has_with_other_content(on_conflict: str, content: str, totals: Totals) -> None:
    messages = plain(5)
    source, target = filled(messages), filled(messages[2:3])
    target.add(messages[3].model_copy(update={"content": "theirs"}))
    with pytest.raises(TransferError, match=r"message m-3 of user_id='u', session_id='s-0' .*='replace' .*='skip'"):
        copy(source, target)
    assert target.count() == 2
    before = target.get_all()
    assert copy(source, target, on_conflict=on_conflict, dry_run=True) == totals
    assert target.get_all() == before
    assert copy(source, target, on_conflict=on_conflict) == totals
    assert target.get_all()[3].content == content


def test_a_copy_adds_to_what_another_conversation_has() -> None:
    target = filled([Message(role="user", content="mine", metadata={**SCOPE, "user_id": "other"})])
    assert copy(filled(plain(3)), target).written == 3
    assert target.count() == 4
    assert not verify(target, filled(plain(3))).identical


def test_what_the_target_cannot_store_is_named() -> None:
    messages = plain(4)
    messages[1].content = "x" * 300
    source = filled(messages)
    with SQLite(":memory:", max_message_bytes=200) as target:
        with pytest.raises(TransferError, match=r"^message m-1 has 356 bytes") as stopped:
            copy(source, target)
        assert stopped.value.__notes__ == ["messages written before: 1"]
        skipped: list[str] = []
        assert copy(source, target, on_error="skip", report=skipped.append) == Totals(
            4, read=4, written=2, unchanged=1, skipped=1
        )
        assert len(skipped) == 1
        assert "m-1" in skipped[0]
        assert [each.id for each in target.get_all()] == ["m-0", "m-2", "m-3"]


def test_progress_and_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_batches(monkeypatch, 4)
    source = filled(plain(10))
    seen: list[Totals] = []
    copy(source, InMemory(), progress=seen.append)
    assert [(each.read, each.expected) for each in seen] == [(4, 10), (8, 10), (10, 10)]
    url = f"sqlite:///{tmp_path / 'one.db'}"
    with SQLite.from_url(url) as one, SQLite.from_url(url) as other, pytest.raises(ConfigurationError, match="same"):
        copy(one, other)
    with pytest.raises(ConfigurationError, match="same store"):
        verify(source, source)
    with pytest.raises(InvalidArgumentError, match="on_conflict"):
        copy(source, InMemory(), on_conflict="merge")
    closed = InMemory()
    closed.close()
    with pytest.raises(BackendError, match="closed"):
        copy(source, closed)


def test_a_target_with_an_embedder_embeds_what_it_is_given() -> None:
    source, target = InMemory(embedder=NGrams(64)), InMemory(embedder=NGrams(32))
    source.add(Message(role="user", content="the ferry leaves", metadata=SCOPE))
    copy(source, target)
    score = target.search("ferries leaving")[0].score
    assert score is not None
    assert "meaning" in score.parts  # type: ignore[attr-defined]


class Growing(InMemory):
    """Loses the first message of a session after its sessions were listed."""

    def sessions(self, filters: Any = None) -> Any:
        listed = super().sessions(filters)
        self.clear({"message_id": "m-0"})
        return listed


def test_a_first_message_that_is_deleted_in_the_meantime(monkeypatch: pytest.MonkeyPatch) -> None:
    small_batches(monkeypatch, 4)
    source, target = Growing(), InMemory()
    source.add_many(plain(10))
    assert copy(source, target).written == 9
