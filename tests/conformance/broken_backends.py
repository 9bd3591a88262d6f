"""Backends that break one rule of the contract each. `caught_by` names tests that must fail for it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import pytest

from dynamiq_memory import Message
from dynamiq_memory.backends import InMemory, MemoryBackend, Session
from dynamiq_memory.filters import Filter, OneOf
from dynamiq_memory.messages import prepare
from dynamiq_memory.testing import MemoryBackendConformance


class Broken(InMemory):
    """A backend that breaks a rule."""

    caught_by: ClassVar[set[str]] = set()


class NothingBroken(Broken):
    """The unbroken one, to prove that the others fail for what they break."""


class NewestFirst(Broken):
    caught_by: ClassVar = {"test_messages_come_back_oldest_first", "test_given_timestamps_decide_the_order"}

    def _read(self, where: Filter, limit: int | None, before: Any, after: Any) -> list[Message]:
        return super()._read(where, limit, before, after)[::-1]


class OrderOfArrivalOnly(Broken):
    caught_by: ClassVar = {"test_given_timestamps_decide_the_order"}

    def _write(self, messages: Sequence[Message]) -> None:
        for message in messages:
            message.timestamp = time.time()
        super()._write(messages)


class OldestUpToTheLimit(Broken):
    caught_by: ClassVar = {"test_limit_keeps_the_most_recent"}

    def _read(self, where: Filter, limit: int | None, before: Any, after: Any) -> list[Message]:
        return super()._read(where, None, before, after)[:limit]


class AtMostAThousand(Broken):
    caught_by: ClassVar = {"test_no_limit_means_all"}

    def _read(self, where: Filter, limit: int | None, before: Any, after: Any) -> list[Message]:
        return super()._read(where, min(limit or 1000, 1000), before, after)


class LimitZeroMeansAll(Broken):
    caught_by: ClassVar = {"test_a_limit_below_one_is_refused"}

    def get_all(self, limit: int | None = None, *arguments: Any, **named: Any) -> list[Message]:
        return super().get_all(limit or None, *arguments, **named)


class PercentIsAWildcard(Broken):
    caught_by: ClassVar = {"test_strings_are_exact", "test_user_and_session_are_exact"}

    def _read(self, where: Filter, limit: int | None, before: Any, after: Any) -> list[Message]:
        kept = tuple(c for c in where.conditions if not (isinstance(c, OneOf) and c.values == ("%",)))
        return super()._read(Filter(kept), limit, before, after)


class CaseDoesNotMatter(Broken):
    caught_by: ClassVar = {"test_strings_are_exact"}

    def _read(self, where: Filter, limit: int | None, before: Any, after: Any) -> list[Message]:
        folded = []
        for condition in where.conditions:
            if isinstance(condition, OneOf):
                texts = [v for v in condition.values if isinstance(v, str)]
                others = [f(v) for v in texts for f in (str.upper, str.lower)]
                folded.append(OneOf(condition.key, (*condition.values, *others)))
            else:
                folded.append(condition)  # type: ignore[arg-type]
        return super()._read(Filter(tuple(folded)), limit, before, after)


class BooleansAreNumbers(Broken):
    caught_by: ClassVar = {"test_values_are_typed"}

    def _read(self, where: Filter, limit: int | None, before: Any, after: Any) -> list[Message]:
        same: dict[object, bool] = {1: True, 0: False}
        loose = tuple(
            OneOf(c.key, (*c.values, *(same[v] for v in c.values if v in (0, 1)))) if isinstance(c, OneOf) else c
            for c in where.conditions
        )
        return super()._read(Filter(loose), limit, before, after)


class FilterAfterTheLimit(Broken):
    caught_by: ClassVar = {"test_the_filter_applies_before_the_limit"}

    def _read(self, where: Filter, limit: int | None, before: Any, after: Any) -> list[Message]:
        return [m for m in super()._read(Filter(), limit, before, after) if where.matches(m)]


class FilterAfterRanking(Broken):
    caught_by: ClassVar = {
        "test_scope_applies_before_ranking_and_limit",
        "test_other_filters_apply_before_ranking_and_limit",
    }

    def _search(self, query: str, where: Filter, limit: int | None) -> list[Message]:
        return [m for m in super()._search(query, Filter(), limit) if where.matches(m)]


class RanksByEverybodysStatistics(Broken):
    caught_by: ClassVar = {"test_other_users_change_nobodys_results"}

    def _search(self, query: str, where: Filter, limit: int | None) -> list[Message]:
        return [m for m in super()._search(query, Filter(), None) if where.matches(m)][:limit]


class SearchLeaksOtherSessions(Broken):
    caught_by: ClassVar = {"test_scope_holds_for_every_strategy"}

    def _search(self, query: str, where: Filter, limit: int | None) -> list[Message]:
        return super()._search(query, Filter(tuple(c for c in where.conditions if c.key != "session_id")), limit)


class SearchIsASubstring(Broken):
    caught_by: ClassVar = {"test_two_messages_can_be_searched"}

    def _search(self, query: str, where: Filter, limit: int | None) -> list[Message]:
        return [m for m in self._read(where, None, None, None) if query.lower() in m.text.lower()][:limit]


class WorstFirst(Broken):
    caught_by: ClassVar = {"test_every_result_has_a_score_and_they_descend"}

    def _search(self, query: str, where: Filter, limit: int | None) -> list[Message]:
        return super()._search(query, where, None)[::-1][:limit]


class NoScores(Broken):
    caught_by: ClassVar = {"test_every_result_has_a_score_and_they_descend"}

    def _search(self, query: str, where: Filter, limit: int | None) -> list[Message]:
        return [message.model_copy(update={"score": None}) for message in super()._search(query, where, limit)]


class ReplaceDeletesFirst(Broken):
    caught_by: ClassVar = {"test_a_refused_replace_leaves_the_old", "test_readers_see_whole_replacements"}

    def replace(self, filters: Any, messages: Sequence[Message]) -> list[Message]:
        self.clear(filters)
        time.sleep(0.002)  # long enough for some reader to look
        return self.add_many(prepare(messages, {k: v for k, v in filters.items() if isinstance(v, str)}))


class DeletesWholeSessions(Broken):
    caught_by: ClassVar = {"test_delete_touches_its_scope_alone"}

    def _delete(self, where: Filter) -> int:
        if where.scope("session_id") is not None:
            where = Filter(tuple(c for c in where.conditions if c.key != "user_id"))
        return super()._delete(where)


class CannotDelete(Broken):
    caught_by: ClassVar = {"test_delete_touches_its_scope_alone", "test_clear"}

    def _delete(self, where: Filter) -> int:
        return 0


class UpdateIsAdd(Broken):
    caught_by: ClassVar = {
        "test_an_update_brings_nothing_back",
        "test_an_update_stays_in_its_session",
        "test_an_update_can_be_narrowed_to_what_is_as_it_was",
        "test_of_many_who_claim_one_gets_each_message",
    }

    def _update(self, where: Filter, messages: Sequence[Message]) -> list[Message]:
        super()._write(messages)
        return list(messages)


class TakesWhatOthersTook(Broken):
    caught_by: ClassVar = {"test_of_many_who_take_one_gets_each_message"}
    readers = 0

    def _take(self, where: Filter) -> list[Message]:
        held = super()._read(where, None, None, None)
        self.readers += 1
        deadline = time.monotonic() + 60
        while self.readers < 2 and time.monotonic() < deadline:  # until another caller has read them, too
            time.sleep(0.001)
        super()._delete(where)
        return held


class CutsLongContent(Broken):
    caught_by: ClassVar = {"test_five_megabytes"}

    def _write(self, messages: Sequence[Message]) -> None:
        for message in messages:
            if isinstance(message.content, str):
                message.content = message.content[:24_000]
        super()._write(messages)


class RefusesEmptyContent(Broken):
    caught_by: ClassVar = {"test_text_is_stored_whole", "test_every_field_comes_back"}

    def _write(self, messages: Sequence[Message]) -> None:
        if any(not message.content for message in messages):
            raise ValueError("content is empty")
        super()._write(messages)


class ChangesTheCallersDict(Broken):
    caught_by: ClassVar = {"test_the_callers_message_is_left_alone"}

    def add_many(self, messages: Sequence[Message]) -> list[Message]:
        stored = super().add_many(messages)
        for message, done in zip(messages, stored, strict=False):
            message.metadata["timestamp"] = done.timestamp
        return stored


class HandsOutItsOwnMessages(Broken):
    caught_by: ClassVar = {"test_what_is_read_can_be_changed"}

    def _read(self, where: Filter, limit: int | None, before: Any, after: Any) -> list[Message]:
        found = super()._read(where, limit, before, after)
        for message in found:
            entry = self._conversations.find(message)
            assert entry is not None
            message.native, message.tool_calls = entry.message.native, entry.message.tool_calls
        return found


class NewIdsOnEachRead(Broken):
    caught_by: ClassVar = {"test_add_returns_the_message_as_it_is_read", "test_odd_ids_are_kept"}

    def _read(self, where: Filter, limit: int | None, before: Any, after: Any) -> list[Message]:
        found = super()._read(where, limit, before, after)
        for number, message in enumerate(found):
            message.id = f"{number}"
        return found


class OneIdForAllUsers(Broken):
    caught_by: ClassVar = {"test_the_same_id_elsewhere_is_another_message"}

    def _write(self, messages: Sequence[Message]) -> None:
        for message in messages:
            for other in self._read(Filter((OneOf("message_id", (message.id,)),)), None, None, None):
                if (other.user_id, other.session_id) != (message.user_id, message.session_id):
                    super()._delete(Filter((OneOf("message_id", (message.id,)),)))
        super()._write(messages)


class LosesAThreadsMessage(Broken):
    caught_by: ClassVar = {"test_threads_lose_nothing_and_keep_their_order"}

    def _write(self, messages: Sequence[Message]) -> None:
        # A read-modify-write without a lock, as of a session kept in one row.
        before = self._read(Filter(), None, None, None)
        time.sleep(0.0002)
        with self._lock:
            super()._delete(Filter())
            super()._write(prepare([*before, *messages]))


class BlocksNobodyAfterClosing(Broken):
    caught_by: ClassVar = {"test_a_closed_backend_says_so"}

    def close(self) -> None:
        pass


class ForgetsASession(Broken):
    caught_by: ClassVar = {"test_sessions_with_their_counts"}

    def _sessions(self, where: Filter) -> list[Session]:
        return super()._sessions(where)[:-1]


class MixesNoneWithEmpty(Broken):
    caught_by: ClassVar = {"test_scope_may_be_absent"}

    def _read(self, where: Filter, limit: int | None, before: Any, after: Any) -> list[Message]:
        found = super()._read(where, limit, before, after)
        for message in found:
            message.metadata.setdefault("user_id", "")
        return found


class _Suite(MemoryBackendConformance):
    kind: ClassVar[type[Broken]]
    messages_per_writer = 10
    stateful_examples = 1

    @pytest.fixture
    def backend(self) -> Iterator[MemoryBackend]:
        backend = self.kind()
        yield backend
        MemoryBackend.close(backend)


BROKEN = Broken.__subclasses__()
for _kind in BROKEN:
    globals()[f"Test{_kind.__name__}"] = type(f"Test{_kind.__name__}", (_Suite,), {"kind": _kind})
