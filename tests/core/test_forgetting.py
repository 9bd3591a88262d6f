"""Forgetting a user in several stores: order, failures, what the receipt says."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any

import pytest

from dynamiq_memory import BackendError, InvalidArgumentError, Memory, Message, Receipt
from dynamiq_memory.backends import InMemory
from dynamiq_memory.filters import Filter, OneOf
from dynamiq_memory.testing import say


class Failing(InMemory):
    """Fails at deletions, or stores a message after each."""

    fails = True

    def _delete(self, filter: Any) -> int:
        if self.fails:
            raise BackendError("the store is gone")
        deleted = super()._delete(filter)
        self.add(say("a late writer's", user="alex"))
        return deleted


class Checkpointer:
    """Keeps threads, as LangGraph's checkpointers do."""

    def __init__(self, *threads: str) -> None:
        self.threads = set(threads)

    def delete_thread(self, thread_id: str) -> None:
        self.threads.discard(thread_id)

    def get_tuple(self, config: dict[str, Any]) -> object | None:
        return object() if config["configurable"]["thread_id"] in self.threads else None


class Sticky(Checkpointer):
    """Does not delete, and cannot be read."""

    get_tuple = None  # type: ignore[assignment]

    def delete_thread(self, thread_id: str) -> None:
        raise OSError(thread_id)


def filled(backend: InMemory) -> Memory:
    memory = Memory(backend, filters={"session_id": "monday"})
    memory.backend.add_many(
        [say("1", user="alex", session="monday"), say("2", user="alex", session="tuesday"), say("3", user="alex")]
    )
    memory.backend.add_many([say("4", user="kim", session="monday"), say("5", user="alex", session=None)])
    return memory


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def forget(request: pytest.FixtureRequest) -> Any:
    def call(memory: Memory, user_id: str = "alex", **options: Any) -> Receipt:
        if request.param:
            return asyncio.run(memory.aforget_user(user_id, **options))
        return memory.forget_user(user_id, **options)

    return call


def test_memories_and_checkpointers_forget_too(forget: Any) -> None:
    memory, other = filled(InMemory()), filled(InMemory())
    checkpointer = Checkpointer("monday", "tuesday", "another's")
    receipt = forget(memory, also=[other, checkpointer, memory.backend])
    threads, *stores = receipt.stores
    assert receipt.is_complete
    assert [(each.found, each.deleted, each.left) for each in stores] == [(4, 4, 0)] * 2
    assert set(stores[0].sessions) == {"monday", "tuesday", "session-1", None}
    assert (threads.store, threads.found, threads.deleted, threads.left) == ("Checkpointer", 2, 2, 0)
    assert checkpointer.threads == {"another's"}
    assert receipt.deleted == 10
    for each in (memory, other):
        assert [message.content for message in each.backend.get_all()] == ["4"]
    assert forget(memory).stores[0].found == 0


def test_a_dry_run_deletes_nothing(forget: Any) -> None:
    memory, checkpointer = filled(InMemory()), Checkpointer("monday")
    receipt = forget(memory, also=[checkpointer], dry_run=True)
    assert [(each.found, each.deleted, each.left, each.problem) for each in receipt.stores] == [
        (1, 0, None, None),
        (4, 0, None, None),
    ]
    assert not receipt.is_complete
    with pytest.raises(InvalidArgumentError, match="a list"):
        memory.forget_user("alex", also=Checkpointer())  # type: ignore[arg-type]
    assert memory.backend.count() == 5
    assert checkpointer.threads == {"monday"}


def test_a_failure_ends_the_work_and_it_can_be_done_again(forget: Any) -> None:
    memory, broken, last = filled(InMemory()), Failing(), filled(InMemory())
    filled(broken)
    receipt = forget(memory, also=[broken, last])
    assert [(each.deleted, each.left) for each in receipt.stores] == [(4, 0), (0, 4), (0, None)]
    assert receipt.stores[1].problem == "BackendError: the store is gone"
    assert "not begun" in str(receipt.stores[2].problem)
    assert not receipt.is_complete
    broken.fails = False
    receipt = forget(memory, also=[broken, last])
    assert [(each.found, each.left) for each in receipt.stores] == [(0, 0), (4, 1), (4, None)]
    assert "during the deletion" in str(receipt.stores[1].problem)


class InSteps(InMemory):
    """Deletes the messages of one session, and fails at the next."""

    def _delete(self, filter: Any) -> int:
        super()._delete(Filter((*filter.conditions, OneOf("session_id", ("monday",)))))
        raise BackendError("the connection is gone")


def test_a_store_that_fails_halfway_says_how_far_it_came(forget: Any) -> None:
    store = InSteps()
    filled(store)
    (erasure,) = forget(Memory(store)).stores
    assert (erasure.found, erasure.deleted, erasure.left) == (4, 1, 3)
    assert erasure.problem == "BackendError: the connection is gone"


def test_what_names_the_threads_is_deleted_after_them(forget: Any) -> None:
    memory = filled(InMemory())
    receipt = forget(memory, also=[Sticky("monday")])
    assert "OSError" in str(receipt.stores[0].problem)
    assert memory.backend.count({"user_id": "alex"}) == 4
    assert not receipt.is_complete


def test_a_store_that_cannot_be_read_is_in_the_receipt(forget: Any) -> None:
    closed = InMemory()
    memory = filled(InMemory())
    closed.close()
    receipt = forget(memory, also=[closed])
    assert [each.found for each in receipt.stores] == [4, None]
    assert "closed" in str(receipt.stores[1].problem)
    assert memory.backend.count({"user_id": "alex"}) == 4


def test_a_receipt_is_json_with_a_digest() -> None:
    memory = filled(InMemory())
    content = json.loads(json.dumps(memory.forget_user("alex").to_dict()))
    digest = content.pop("digest")
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == digest
    assert content["is_complete"] is True
    assert content["user_id"] == "alex"
    assert content["stores"][0]["traces"]


@pytest.mark.parametrize("user_id", ["", None, 5, ["alex"]])
def test_nobody_cannot_be_forgotten(user_id: Any) -> None:
    memory = filled(InMemory())
    with pytest.raises(InvalidArgumentError):
        memory.forget_user(user_id)
    with pytest.raises(InvalidArgumentError, match="delete_thread"):
        memory.forget_user("alex", also=[Message(role="user", content="no store")])
    with pytest.raises(InvalidArgumentError, match="a list"):
        memory.forget_user("alex", also=Checkpointer())  # type: ignore[arg-type]
    assert memory.backend.count() == 5
