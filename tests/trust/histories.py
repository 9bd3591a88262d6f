"""What several callers did to one session at once: was it possible one after the other?

Each operation has a beginning, an end and an answer. A history is possible if the operations can be put in an order in
which each lies between its beginning and its end, and in which every answer is right. The check tries orders (Wing and
Gong, 1993), and remembers which sets of finished operations led nowhere.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from dynamiq_memory import MemoryBackend
from dynamiq_memory.testing import say
from tests.trust.stores import opened
from tests.trust.tally import Checks, Opened, Tally

SCOPE = {"user_id": "u", "session_id": "s"}
Names = frozenset[str]
NAMES = ("add", "add", "replace", "delete", "take", "read", "read", "count")


REMOVING = ("replace", "delete", "take")


@dataclass(frozen=True)
class Call:
    """An operation, its answer, and the ticks at which it began and ended."""

    name: str
    given: Names
    answer: Any
    begun: int
    ended: int

    def after(self, state: Names, seen: Names) -> Names | None:
        """What is stored after it, or None if its answer is wrong.

        Args:
            state: What was stored before it.
            seen: What it found. It removes only this.
        """
        found: Any = seen & state
        if self.name == "add":
            return state | self.given
        answers = {"replace": self.answer, "delete": len(found), "count": len(found)}
        if self.answer != answers.get(self.name, sorted(found)):
            return None
        return (state - found) | self.given if self.name in REMOVING else state


def is_possible(history: list[Call], *, snapshots: bool = False) -> bool:
    """Whether there is an order in which every answer is right.

    Args:
        history: The operations, on a session that was empty before.
        snapshots: Whether an operation may look for what it removes earlier than it removes it, so that a message that
            is added meanwhile remains. Without, it does both at once.
    """
    failed: set[Any] = set()

    def search(left: frozenset[int], state: Names, looks: frozenset[tuple[int, Names]]) -> bool:
        if not left:
            return True
        if (left, state, looks) in failed:
            return False
        # Only what began before all others ended can have come first.
        first_end = min(history[index].ended for index in left)
        seen = dict(looks)
        for index in left:
            call = history[index]
            if call.begun > first_end:
                continue
            after = call.after(state, seen.get(index, state))
            if after is not None and search(left - {index}, after, looks - {(index, seen.get(index, state))}):
                return True
            may_look = snapshots and call.name in REMOVING and index not in seen
            if may_look and search(left, state, looks | {(index, state)}):
                return True
        failed.add((left, state, looks))
        return False

    return search(frozenset(range(len(history))), frozenset(), frozenset())


def record(store: MemoryBackend, random: Random, callers: int = 3, calls: int = 5) -> list[Call]:
    """Let several threads change and read one session of an empty store at once."""
    ticks, numbers = itertools.count(), itertools.count()
    start = threading.Barrier(callers)

    def one(seed: int) -> list[Call]:
        own, made = Random(seed), []
        start.wait(120)
        for _ in range(calls):
            name = own.choice(NAMES)
            count = {"add": own.randint(1, 3), "replace": own.randint(0, 3)}.get(name, 0)
            given = [f"m-{next(numbers)}" for _ in range(count)]
            begun = next(ticks)
            answer = _carry_out(store, name, given)
            made.append(Call(name, frozenset(given), answer, begun, next(ticks)))
        return made

    with ThreadPoolExecutor(callers) as pool:
        done = pool.map(one, [random.getrandbits(32) for _ in range(callers)])
        history = [call for calls_of_one in done for call in calls_of_one]
    read = _carry_out(store, "read", [])
    return [*history, Call("read", frozenset(), read, next(ticks), next(ticks))]


def _carry_out(store: MemoryBackend, name: str, given: list[str]) -> Any:
    messages = [say(text, user="u", session="s", id=text) for text in given]
    calls: dict[str, Callable[[], Any]] = {
        "add": lambda: store.add_many(messages) and None,
        "replace": lambda: store.replace(SCOPE, messages) and None,
        "delete": lambda: store.delete("s", "u"),
        "count": lambda: store.count(SCOPE),
        "read": lambda: sorted(str(message.content) for message in store.get_all(filters=SCOPE)),
        "take": lambda: sorted(str(message.content) for message in store.take(SCOPE)),
    }
    return calls[name]()


def _check(name: str) -> Callable[[Path], Any]:
    @contextmanager
    def check(folder: Path) -> Opened:
        with opened(name, folder) as store:

            def run(random: Random) -> Tally:
                store.clear()
                history = record(store, random)
                tally = Tally(runs=1, operations=len(history) - 1)
                possible = is_possible(history, snapshots="PostgreSQL" in name)
                tally.expect(possible, f"an impossible history: {sorted(history, key=lambda c: c.begun)}")
                return tally

            yield run

    return check


CHECKS: Checks = {
    name: _check(name)
    for name in ("InMemory", "SQLite", "PostgreSQL", "service over SQLite", "service over PostgreSQL")
}
