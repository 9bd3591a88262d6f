"""Random operations on a backend, compared with the same operations on a plain list."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from dynamiq_memory.backends.base import MemoryBackend
from dynamiq_memory.messages import Key, Message, key_of
from dynamiq_memory.testing.base import ConformanceBase

USERS = st.sampled_from(["u1", "u2", "%", None])
SESSIONS = st.sampled_from(["s1", "s2", None])
WORDS = ("apple", "pear", "plum")
TEXTS = st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join)
IDS = st.sampled_from([f"id-{number}" for number in range(12)])
TIMES = st.integers(0, 3).map(float)
LABELS = st.sampled_from([1, "1", True, None, 2.5, "%"])
LIMITS = st.none() | st.integers(1, 5)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    """A message with a time. There are few users, ids, times and labels, so that they often coincide."""
    scope = {"user_id": draw(USERS), "session_id": draw(SESSIONS)}
    metadata = {"label": draw(LABELS)} | {key: value for key, value in scope.items() if value is not None}
    return Message(role="user", content=draw(TEXTS), id=draw(IDS), timestamp=draw(TIMES), metadata=metadata)


@st.composite
def filters(draw: st.DrawFn) -> dict[str, Any]:
    """A filter on any of the keys."""
    conditions: dict[str, Any] = {}
    if draw(st.booleans()):
        conditions["user_id"] = draw(USERS | st.just(["u1", "u2"]))
    if draw(st.booleans()):
        conditions["session_id"] = draw(SESSIONS)
    if draw(st.booleans()):
        conditions["label"] = draw(LABELS | st.just(["1", 2.5]) | st.just({"gte": 1, "lt": 2}))
    if draw(st.booleans()):
        conditions["timestamp"] = draw(st.just({"gt": 1}) | TIMES)
    return conditions


def _matches(message: Message, filter: dict[str, Any]) -> bool:
    """Evaluate a filter independently of the package, so that a mistake in the package is noticed."""
    for key, value in filter.items():
        actual = message.timestamp if key == "timestamp" else message.metadata.get(key)
        number = isinstance(actual, int | float) and not isinstance(actual, bool)
        if isinstance(value, dict):
            lower, least, upper = value.get("gt"), value.get("gte"), value.get("lt")
            if not number or not isinstance(actual, int | float):
                return False
            if (lower is not None and actual <= lower) or (least is not None and actual < least):
                return False
            if upper is not None and actual >= upper:
                return False
            continue
        options = value if isinstance(value, list) else [value]
        if not any(
            actual == option and (type(actual) is type(option) or (number and not isinstance(option, bool)))
            for option in options
        ):
            return False
    return True


class BackendMachine(RuleBasedStateMachine):
    """Random operations on a backend and on a list.

    Attributes:
        backend: The backend, set by the test.
    """

    backend: MemoryBackend

    def __init__(self) -> None:
        """Create an empty list."""
        super().__init__()
        # By their keys; a new version keeps its place.
        self.model: dict[Key, Message] = {}
        self.replaced = 0

    @initialize()
    def start_empty(self) -> None:
        self.backend.clear()

    @rule(batch=st.lists(messages(), min_size=1, max_size=4))
    def add(self, batch: list[Message]) -> None:
        self.backend.add_many(batch)
        self._put(batch)

    @rule(user=USERS, session=SESSIONS)
    def delete(self, user: str | None, session: str | None) -> None:
        if user is None and session is None:
            return
        scope = {key: value for key, value in (("user_id", user), ("session_id", session)) if value is not None}
        before = len(self.model)
        self._remove(scope)
        assert self.backend.delete(session_id=session, user_id=user) == before - len(self.model)

    @rule(
        batch=st.lists(messages(), max_size=3), user=st.sampled_from(["u1", "%"]), session=st.sampled_from(["s1", "s2"])
    )
    def replace(self, batch: list[Message], user: str, session: str) -> None:
        scope = {"user_id": user, "session_id": session}
        # Use new ids, since in a store without transactions a kept id also keeps its position among equal times.
        self.replaced += 1
        moved = [
            m.model_copy(update={"metadata": {**m.metadata, **scope}, "id": f"{m.id} {self.replaced}"}) for m in batch
        ]
        self.backend.replace(scope, moved)
        self._remove(scope)
        self._put(moved)

    @rule(filter=filters(), batch=st.lists(messages(), min_size=1, max_size=3))
    def update(self, filter: dict[str, Any], batch: list[Message]) -> None:
        stored = set(map(key_of, self._expected(filter)))
        versions = {key_of(message): message for message in batch}
        updated = list(map(key_of, self.backend.update(batch, filter)))
        assert updated == [key for key in versions if key in stored]
        self._put(versions[key] for key in updated)

    @rule(filter=filters())
    def take(self, filter: dict[str, Any]) -> None:
        expected = self._expected(filter)
        taken = self.backend.take(filter)
        assert [key_of(message) for message in taken] == [key_of(message) for message in expected]
        self._remove(filter)

    @rule(filter=filters(), limit=LIMITS)
    def read(self, filter: dict[str, Any], limit: int | None) -> None:
        expected = self._expected(filter)
        found = self.backend.get_all(limit=limit, filters=filter)
        assert [key_of(m) for m in found] == [key_of(m) for m in expected[-(limit or 0) :]]
        assert [m.content for m in found] == [m.content for m in expected[-(limit or 0) :]]
        assert self.backend.count(filter) == len(expected)

    @rule(filter=filters(), word=st.sampled_from(WORDS), limit=LIMITS)
    def search(self, filter: dict[str, Any], word: str, limit: int | None) -> None:
        expected = {key_of(m) for m in self._expected(filter) if word in m.text.split()}
        found = self.backend.search(word, filter, limit)
        keys = [key_of(m) for m in found]
        assert len(set(keys)) == len(keys) == min(len(expected), limit or len(expected))
        assert set(keys) <= expected

    @rule()
    def list_sessions(self) -> None:
        counts: dict[tuple[str | None, str | None], int] = {}
        for message in self.model.values():
            scope = (message.user_id, message.session_id)
            counts[scope] = counts.get(scope, 0) + 1
        assert {(s.user_id, s.session_id): s.messages for s in self.backend.sessions()} == counts

    @rule(data=st.data(), size=st.integers(1, 3))
    def page(self, data: st.DataObject, size: int) -> None:
        if not self.model:
            return
        order = self._expected({})
        position = data.draw(st.integers(0, len(order) - 1))
        before = self.backend.get_all(limit=size, before=order[position])
        after = self.backend.get_all(limit=size, after=order[position])
        assert [key_of(m) for m in before] == [key_of(m) for m in order[max(0, position - size) : position]]
        assert [key_of(m) for m in after] == [key_of(m) for m in order[position + 1 : position + 1 + size]]

    def _put(self, batch: Iterable[Message]) -> None:
        self.model.update((key_of(message), message) for message in batch)

    def _remove(self, filter: dict[str, Any]) -> None:
        self.model = {key: message for key, message in self.model.items() if not _matches(message, filter)}

    def _expected(self, filter: dict[str, Any]) -> list[Message]:
        return sorted((m for m in self.model.values() if _matches(m, filter)), key=lambda m: m.timestamp or 0.0)


class StatefulConformance(ConformanceBase):
    """Test of random sequences of all data operations.

    Attributes:
        stateful_examples: Number of random runs.
        stateful_steps: Number of operations per run.
    """

    stateful_examples = 60
    stateful_steps = 25

    def test_it_behaves_like_a_list(self, backend: MemoryBackend) -> None:
        machine = type("Machine", (BackendMachine,), {"backend": backend})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=self.stateful_examples,
                stateful_step_count=self.stateful_steps,
                deadline=None,
                derandomize=True,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
