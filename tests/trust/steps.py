"""Random changes of one session, and what the session must hold after each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from dynamiq_memory import MemoryBackend, Message, MessageRole

SCOPE = {"user_id": "u", "session_id": "s"}
WORD = "apple"
CHANGES = ("add", "add", "batch", "batch", "replace", "summarise", "update", "take", "delete")
# A session that grows larger is replaced.
_MOST = 150


class Row(NamedTuple):
    """A message, in short."""

    number: int
    text: str

    @property
    def id(self) -> str:
        return f"m-{self.number}"


State = tuple[Row, ...]


@dataclass(frozen=True)
class Step:
    """A change. It takes away the rows with numbers below `below`, and adds or changes `rows`."""

    name: str
    rows: State = ()
    below: int = 0

    def after(self, state: State) -> State:
        """What the session holds after it."""
        if self.name == "update":
            return tuple(next((row for row in self.rows if row.number == old.number), old) for old in state)
        kept = tuple(row for row in state if row.number >= self.below)
        if self.name != "summarise":
            return kept + self.rows
        # A summary takes the place of the last message that it replaces.
        last = max((place for place, row in enumerate(state) if row.number < self.below), default=-1)
        before = tuple(row for row in state[: last + 1] if row in kept)
        return before + self.rows + kept[len(before) :]

    def halves(self, state: State) -> list[State]:
        """What it may hold after a crash in a store without transactions: each part of a batch."""
        return [*(state + self.rows[:end] for end in range(len(self.rows) + 1)), self.after(state)]


def plan(random: Random, state: State, names: Sequence[str] = CHANGES) -> Step:
    """Choose a change."""
    name = random.choice(names) if len(state) < _MOST else "replace"
    first = max((row.number for row in state), default=0) + 1
    above = first if name in ("replace", "delete") else 1 + max(0, first - random.randint(1, 10))
    count = {"batch": random.randint(2, 40), "replace": random.randint(1, 30), "take": 0, "delete": 0}.get(name, 1)
    rows = tuple(_row(random, number) for number in range(first, first + count))
    if name == "update":
        if not state:
            return plan(random, state, ("add",))
        old = random.sample(state, min(len(state), 3))
        return Step(name, tuple(_row(random, row.number) for row in old))
    return Step(name, rows, 0 if name in ("add", "batch") else above)


def _row(random: Random, number: int) -> Row:
    """Most messages are short; some need several pages of a file."""
    padding = random.choice([0, 0, 0, 30, 3000, 20_000])
    return Row(number, f"{WORD} {number} {random.getrandbits(32):x} " + "pear " * (padding // 5))


def carry_out(store: MemoryBackend, step: Step, state: State) -> None:
    """Make the change in a store that holds the state."""
    if step.name in ("add", "batch"):
        store.add_many([message_of(row) for row in step.rows])
    elif step.name == "replace":
        store.replace(SCOPE, [message_of(row) for row in step.rows])
    elif step.name == "summarise":
        old = {**SCOPE, "number": {"lt": step.below}}
        # What replaces a part stands in its place if it has no time of its own. Without a part, it has none.
        any_old = any(row.number < step.below for row in state)
        summary = [_at_the_beginning(row, any_old) for row in step.rows]
        store.replace(old, summary)
    elif step.name == "update":
        times = {message.id: message.timestamp for message in store.get_all(filters=SCOPE)}
        store.update([message_of(row).model_copy(update={"timestamp": times[row.id]}) for row in step.rows], SCOPE)
    elif step.name == "take":
        store.take({**SCOPE, "number": {"lt": step.below}})
    else:
        store.delete("s", "u")


def message_of(row: Row) -> Message:
    """The message of a row."""
    return Message(role=MessageRole.USER, content=row.text, id=row.id, metadata={**SCOPE, "number": row.number})


def _at_the_beginning(row: Row, any_old: bool) -> Message:
    return message_of(row).model_copy(update={"timestamp": None if any_old else -float(row.number)})


def rows_of(store: MemoryBackend) -> State:
    """What the session holds."""
    return tuple(Row(message.metadata["number"], str(message.content)) for message in store.get_all(filters=SCOPE))
