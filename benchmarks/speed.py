"""How long do operations take compared with the bare driver, and does this stay constant as the store grows?

    python benchmarks/speed.py

SQLite is compared with the sqlite3 module at the same durability, InMemory with a dict of lists and rank-bm25.
"""

from __future__ import annotations

import json
import os
import platform
import random
import sqlite3
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from itertools import accumulate, chain, islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer
from rank_bm25 import BM25Okapi
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from dynamiq_memory import Memory, Message, MessageRole
from dynamiq_memory.backends import InMemory, SQLite
from dynamiq_memory.ranking import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SIZES = "1000,10000,100000"
USER_MESSAGES = 200
SESSION_MESSAGES = 100
# One more user, the same in stores of every size.
BIG_USER, BIG_USER_MESSAGES, BIG_SESSION_MESSAGES = "big", 1_000, 500
SCRATCH = "scratch"
SEARCHED_USERS = 50
NEWEST = 50
HITS = 10
LARGEST_GROWTH = 1.5

FUNCTION_WORDS = (
    "the",
    "a",
    "to",
    "of",
    "and",
    "in",
    "it",
    "is",
    "that",
    "for",
    "you",
    "was",
    "on",
    "with",
    "as",
    "have",
    "be",
)

_LOAD_AT_ONCE = 1_000
_SEED = 20_261_123
_EPOCH = 1_700_000_000.0


# --- the messages ---------------------------------------------------------------------------------------------


class Words:
    """Texts of 20 to 200 words: half function words, half content words with Zipf's distribution."""

    def __init__(self, seed: int, vocabulary: int = 20_000) -> None:
        """Invent the vocabulary."""
        self.random = random.Random(seed)
        syllables = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "er", "ol")]
        words = ("".join(self.random.choices(syllables, k=self.random.randint(2, 4))) for _ in iter(int, 1))
        self.content = list(islice(dict.fromkeys(islice(words, 2 * vocabulary)), vocabulary))
        # Mandelbrot's offset. Without it, the first words would be in nearly every message, unlike the content words
        # of real conversations.
        self.weights = list(accumulate(1 / (rank + 20) for rank in range(len(self.content))))
        self.function = list(FUNCTION_WORDS)

    def text(self) -> str:
        """Return the text of a message."""
        count = self.random.randint(20, 200)
        content = self.random.choices(self.content, cum_weights=self.weights, k=count // 2)
        function = self.random.choices(self.function, k=count - count // 2)
        return " ".join(chain.from_iterable(zip(function, content, strict=False)))

    def query(self) -> str:
        """Return a query of six content words, since stop words would cost the bare searches time."""
        return " ".join(self.random.choices(self.content, cum_weights=self.weights, k=6))


@dataclass(frozen=True, slots=True)
class Row:
    """A message to load."""

    user: str
    session: str
    number: int
    role: MessageRole
    text: str

    @property
    def timestamp(self) -> float:
        """Seconds, in the order of `number`."""
        return _EPOCH + self.number


def rows_of(size: int, texts: Sequence[str]) -> Iterator[Row]:
    """Yield the messages of a store by time. All users write at the same time, not one after another."""
    users = [f"user-{number}" for number in range(size // USER_MESSAGES)]
    # The big user's messages are spread over the same time.
    every = max(1, size // BIG_USER_MESSAGES)
    number = 0
    for position in range(size):
        turn, user = divmod(position, len(users))
        yield Row(users[user], f"session-{turn // SESSION_MESSAGES}", number, _role(turn), texts[number])
        number += 1
        if position % every == 0 and position // every < BIG_USER_MESSAGES:
            turn = position // every
            session = f"session-{turn // BIG_SESSION_MESSAGES}"
            yield Row(BIG_USER, session, number, _role(turn), texts[number])
            number += 1


# --- the stores -----------------------------------------------------------------------------------------------


class Store(Protocol):
    """The operations measured, both of this package and of the bare drivers."""

    def load(self, rows: Sequence[Row]) -> None: ...  # noqa: D102
    def prepare(self) -> None: ...  # noqa: D102
    def append(self, user: str, session: str, text: str) -> object: ...  # noqa: D102
    def append_indexed(self, user: str, session: str, text: str) -> object: ...  # noqa: D102
    def batch(self, user: str, session: str, texts: Sequence[str]) -> object: ...  # noqa: D102
    def newest(self, user: str, session: str) -> object: ...  # noqa: D102
    def search(self, user: str, query: str) -> object: ...  # noqa: D102
    def replace(self, user: str, session: str, texts: Sequence[str]) -> object: ...  # noqa: D102
    def delete(self, user: str, session: str) -> object: ...  # noqa: D102
    def turn(self, user: str, session: str, texts: Sequence[str]) -> object: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


class MemoryStore:
    """This package, through `Memory`. The times include creating the messages."""

    def __init__(self, memory: Memory) -> None:
        """Wrap a memory."""
        self.memory = memory

    def load(self, rows: Sequence[Row]) -> None:
        """Add messages of many sessions with their times."""
        self.memory.add_many(
            [
                Message(
                    role=row.role,
                    content=row.text,
                    timestamp=row.timestamp,
                    metadata={"user_id": row.user, "session_id": row.session},
                )
                for row in rows
            ]
        )

    def prepare(self) -> None:
        """Do nothing, since searching needs no preparation."""

    def append(self, user: str, session: str, text: str) -> object:
        """Add a message."""
        return self.memory.add("user", text, {"user_id": user, "session_id": session})

    append_indexed = append

    def batch(self, user: str, session: str, texts: Sequence[str]) -> object:
        """Add a batch of messages."""
        return self.memory.add_many(_messages(user, session, texts))

    def newest(self, user: str, session: str) -> object:
        """Read the newest messages of a session."""
        return self.memory.get_all(NEWEST, {"user_id": user, "session_id": session})

    def search(self, user: str, query: str) -> object:
        """Search a user's messages."""
        return self.memory.search(query, {"user_id": user}, HITS)

    def replace(self, user: str, session: str, texts: Sequence[str]) -> object:
        """Replace a session."""
        messages = _messages(user, session, texts)
        return self.memory.replace_messages({"user_id": user, "session_id": session}, messages)

    def delete(self, user: str, session: str) -> object:
        """Delete a session."""
        return self.memory.delete(session, user)

    def turn(self, user: str, session: str, texts: Sequence[str]) -> object:
        """Load an agent's conversation and save its turn."""
        filters = {"user_id": user, "session_id": session}
        conversation = self.memory.get_agent_conversation(limit=NEWEST, filters=filters)
        self.memory.add_turn(_messages(user, session, texts))
        return conversation

    def close(self) -> None:
        """Close the memory."""
        self.memory.close()


class BareSQLite:
    """Hand-written code with the sqlite3 module: an open connection, one table, one index, raw tuples.

    The search uses a separate file, so that writing to it does not slow down other operations.
    """

    INSERT = "INSERT INTO messages (user_id, session_id, timestamp, role, content) VALUES (?, ?, ?, ?, ?)"
    INSERT_INDEXED = "INSERT INTO found (content, user_id) VALUES (?, ?)"
    NEWEST = (
        "SELECT role, content, timestamp FROM messages WHERE user_id = ? AND session_id = ?"
        " ORDER BY timestamp DESC LIMIT ?"
    )
    SEARCH = "SELECT content, rank FROM found WHERE found MATCH ? AND user_id = ? ORDER BY rank LIMIT ?"
    DELETE = "DELETE FROM messages WHERE user_id = ? AND session_id = ?"

    def __init__(self, folder: str, synchronous: str) -> None:
        """Create the tables."""
        self.main = self._open(Path(folder, "bare.db"), synchronous)
        self.index = self._open(Path(folder, "bare-search.db"), synchronous)
        self.index.execute(
            "CREATE VIRTUAL TABLE found USING fts5(content, user_id UNINDEXED, tokenize='porter unicode61')"
        )

    @staticmethod
    def _open(path: Path, synchronous: str) -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute(
            "CREATE TABLE messages (user_id TEXT, session_id TEXT, timestamp REAL, role TEXT, content TEXT)"
        )
        connection.execute("CREATE INDEX by_scope ON messages (user_id, session_id, timestamp)")
        return connection

    def load(self, rows: Sequence[Row]) -> None:
        """Insert into both files."""
        values = [(row.user, row.session, row.timestamp, row.role.value, row.text) for row in rows]
        for connection in (self.main, self.index):
            connection.execute("BEGIN")
            connection.executemany(self.INSERT, values)
            if connection is self.index:
                connection.executemany(self.INSERT_INDEXED, [(row.text, row.user) for row in rows])
            connection.execute("COMMIT")

    def prepare(self) -> None:
        """Do nothing, since FTS5 keeps its index up to date."""

    def append(self, user: str, session: str, text: str) -> object:
        """Insert a row."""
        return self.main.execute(self.INSERT, (user, session, time.time(), "user", text))

    def append_indexed(self, user: str, session: str, text: str) -> object:
        """Insert a row and its search index entry in one transaction."""
        self.index.execute("BEGIN IMMEDIATE")
        self.index.execute(self.INSERT, (user, session, time.time(), "user", text))
        self.index.execute(self.INSERT_INDEXED, (text, user))
        return self.index.execute("COMMIT")

    def batch(self, user: str, session: str, texts: Sequence[str]) -> object:
        """Insert rows in one transaction."""
        self.main.execute("BEGIN IMMEDIATE")
        self._insert(user, session, texts)
        return self.main.execute("COMMIT")

    def newest(self, user: str, session: str) -> object:
        """Select the newest rows."""
        return self.main.execute(self.NEWEST, (user, session, NEWEST)).fetchall()[::-1]

    def search(self, user: str, query: str) -> object:
        """Match any of the words, then filter by user."""
        words = " OR ".join(f'"{word}"' for word in query.split())
        return self.index.execute(self.SEARCH, (words, user, HITS)).fetchall()

    def replace(self, user: str, session: str, texts: Sequence[str]) -> object:
        """Delete and insert in one transaction."""
        self.main.execute("BEGIN IMMEDIATE")
        self.main.execute(self.DELETE, (user, session))
        self._insert(user, session, texts)
        return self.main.execute("COMMIT")

    def delete(self, user: str, session: str) -> object:
        """Delete rows."""
        return self.main.execute(self.DELETE, (user, session))

    def turn(self, user: str, session: str, texts: Sequence[str]) -> object:
        """Select the newest rows and insert a turn."""
        conversation = self.newest(user, session)
        self.batch(user, session, texts)
        return conversation

    def close(self) -> None:
        """Close both files."""
        self.main.close()
        self.index.close()

    def _insert(self, user: str, session: str, texts: Sequence[str]) -> None:
        now = time.time()
        rows = [(user, session, now + n * 1e-6, _role(n).value, text) for n, text in enumerate(texts)]
        self.main.executemany(self.INSERT, rows)


class BareDict:
    """A dict of lists, and a rank-bm25 index per user, built in advance, to which no messages can be added."""

    def __init__(self) -> None:
        """Create an empty store."""
        self.sessions: defaultdict[tuple[str, str], list[tuple[float, str, str]]] = defaultdict(list)
        self.texts: defaultdict[str, list[str]] = defaultdict(list)
        self.indexes: dict[str, BM25Okapi] = {}
        self.tokenize = Tokenizer()

    def load(self, rows: Sequence[Row]) -> None:
        """Append to the lists."""
        for row in rows:
            entry = (row.timestamp, row.role.value, row.text)
            self.sessions[row.user, row.session].append(entry)
            self.texts[row.user].append(row.text)

    def prepare(self) -> None:
        """Build the indexes of the users who are searched."""
        for user in [BIG_USER, *islice((u for u in self.texts if u != BIG_USER), SEARCHED_USERS)]:
            self.indexes[user] = BM25Okapi([self.tokenize(text) for text in self.texts[user]])

    def append(self, user: str, session: str, text: str) -> object:
        """Append to a list."""
        self.sessions[user, session].append((time.time(), "user", text))
        return None

    append_indexed = append

    def batch(self, user: str, session: str, texts: Sequence[str]) -> object:
        """Extend a list."""
        self.sessions[user, session].extend(self._entries(texts))
        return None

    def newest(self, user: str, session: str) -> object:
        """Slice a list."""
        return self.sessions[user, session][-NEWEST:]

    def search(self, user: str, query: str) -> object:
        """Rank with rank-bm25."""
        return self.indexes[user].get_top_n(self.tokenize(query), self.texts[user], n=HITS)

    def replace(self, user: str, session: str, texts: Sequence[str]) -> object:
        """Replace a list."""
        self.sessions[user, session] = self._entries(texts)
        return None

    def delete(self, user: str, session: str) -> object:
        """Drop a list."""
        return self.sessions.pop((user, session), None)

    def turn(self, user: str, session: str, texts: Sequence[str]) -> object:
        """Slice a list and extend it."""
        conversation = self.newest(user, session)
        self.batch(user, session, texts)
        return conversation

    def close(self) -> None:
        """Do nothing."""

    @staticmethod
    def _entries(texts: Sequence[str]) -> list[tuple[float, str, str]]:
        now = time.time()
        return [(now, _role(number).value, text) for number, text in enumerate(texts)]


@dataclass(frozen=True, slots=True)
class Pair:
    """One of our stores and the bare driver that it is compared with."""

    name: str
    ours: Callable[[str], Store]
    bare: Callable[[str], Store]


PAIRS = (
    Pair("InMemory", lambda _: MemoryStore(Memory(backend=InMemory())), lambda _: BareDict()),
    Pair(
        "SQLite(FULL)",
        lambda folder: MemoryStore(Memory(backend=SQLite(Path(folder, "ours.db")))),
        lambda folder: BareSQLite(folder, "FULL"),
    ),
    Pair(
        "SQLite(NORMAL)",
        lambda folder: MemoryStore(Memory(backend=SQLite(Path(folder, "ours.db"), synchronous="NORMAL"))),
        lambda folder: BareSQLite(folder, "NORMAL"),
    ),
)


# --- the operations -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Case:
    """The input of one repetition, the same for our store and the bare one."""

    user: str
    texts: Sequence[str]
    query: str


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation, the number of its repetitions, and a preparation before each one, which is not timed."""

    name: str
    repetitions: int
    run: Callable[[Store, Case], object]
    before: Callable[[Store, Case], object] | None = None


# Messages are written to sessions named SCRATCH, which are deleted after each operation. Otherwise the repetitions
# would make a small store several times larger.
OPERATIONS = (
    Operation("append", 400, lambda s, c: s.append(c.user, SCRATCH, c.texts[0])),
    Operation("append, beside FTS5", 400, lambda s, c: s.append_indexed(c.user, SCRATCH, c.texts[0])),
    Operation("batch of 100", 40, lambda s, c: s.batch(c.user, SCRATCH, c.texts)),
    Operation("newest 50", 400, lambda s, c: s.newest(c.user, "session-1")),
    Operation("search 200", 200, lambda s, c: s.search(c.user, c.query)),
    Operation("search 1000", 200, lambda s, c: s.search(BIG_USER, c.query)),
    Operation(
        "replace 50",
        60,
        lambda s, c: s.replace(c.user, SCRATCH, c.texts[:50]),
        lambda s, c: s.replace(c.user, SCRATCH, c.texts[50:]),
    ),
    Operation(
        "delete 50",
        60,
        lambda s, c: s.delete(c.user, SCRATCH),
        lambda s, c: s.replace(c.user, SCRATCH, c.texts[:50]),
    ),
    # This writes to the session that it reads, so it comes last: the smallest store grows by 400 messages.
    Operation("agent turn", 200, lambda s, c: s.turn(c.user, "session-1", c.texts[:2])),
)
ONLY_SQLITE = "append, beside FTS5"


@dataclass(frozen=True, slots=True)
class Result:
    """The medians of one operation, in microseconds."""

    store: str
    size: int
    operation: str
    ours_us: float
    bare_us: float

    @property
    def ratio(self) -> float:
        """Our time divided by the bare store's time."""
        return self.ours_us / self.bare_us


@dataclass(frozen=True, slots=True)
class Side:
    """A loaded store, its cases, and the times measured, in the order of the repetitions."""

    store: Store
    cases: Sequence[Case]
    times: list[float]


def repeat(operation: Operation, sides: Sequence[Side]) -> None:
    """Repeat an operation on all stores in turn, so that other load on the machine affects all of them."""
    repetitions = len(sides[0].cases)
    warm_up = max(3, repetitions // 20)
    order = random.Random(_SEED)
    for number in range(-warm_up, repetitions):
        # The order is random, so that no store always runs after the same other one and is affected by it.
        for side in order.sample(sides, len(sides)):
            case = side.cases[number]
            if operation.before is not None:
                operation.before(side.store, case)
            start = time.perf_counter()
            operation.run(side.store, case)
            elapsed = time.perf_counter() - start
            if number >= 0:
                side.times.append(elapsed)
    for side in sides:
        for user in {case.user for case in side.cases}:
            side.store.delete(user, SCRATCH)


def cases_for(operation: Operation, size: int, share: float, seed: int) -> list[Case]:
    """Return cases for random users of a store. The texts and queries are the same for every size."""
    words = Words(seed)
    batches = [[words.text() for _ in range(100)] for _ in range(5)]
    # Only users that BareDict.prepare indexes, but enough of them that no page is read every time.
    users = min(SEARCHED_USERS, size // USER_MESSAGES)
    return [
        Case(f"user-{int(words.random.random() * users)}", words.random.choice(batches), words.query())
        for _ in range(max(10, round(operation.repetitions * share)))
    ]


def measure(
    pair: Pair, sizes: Sequence[int], texts: Sequence[str], share: float, progress: Progress
) -> Iterator[Result]:
    """Load both stores of a pair in every size, and measure every operation."""
    with ExitStack() as stack:
        stores: list[tuple[int, Store, Store]] = []
        for size in sizes:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            ours, bare = (stack.enter_context(closing(make(folder))) for make in (pair.ours, pair.bare))
            load(ours, bare, rows_of(size, texts), progress.add_task(f"{pair.name}: {size:,}", total=size), progress)
            stores.append((size, ours, bare))
        operations = [o for o in OPERATIONS if o.name != ONLY_SQLITE or pair.name != "InMemory"]
        for number, operation in enumerate(progress.track(operations, description=f"{pair.name}: measuring")):
            sides: list[Side] = []
            for size, ours, bare in stores:
                cases = cases_for(operation, size, share, _SEED + number)
                sides += [Side(ours, cases, []), Side(bare, cases, [])]
            repeat(operation, sides)
            for (size, _, _), ours_side, bare_side in zip(stores, sides[::2], sides[1::2], strict=True):
                times = (median(side.times) * 1e6 for side in (ours_side, bare_side))
                yield Result(pair.name, size, operation.name, *times)


def load(ours: Store, bare: Store, rows: Iterator[Row], task: TaskID, progress: Progress) -> None:
    """Fill both stores with the same messages and bring them to the state of a store in use."""
    batch: list[Row] = []
    while next_batch := list(islice(rows, _LOAD_AT_ONCE)):
        batch = next_batch
        ours.load(batch)
        bare.load(batch)
        progress.advance(task, len(batch))
    bare.prepare()
    # SQLite's log grows to some 1,000 pages and is then overwritten, which is cheaper for the disk. Loading a small
    # store does not reach that point, so its appends would be measured as slower.
    texts = [row.text for row in batch[:100]]
    for store in (ours, bare):
        for _ in range(60):
            store.batch(BIG_USER, SCRATCH, texts)
        store.delete(BIG_USER, SCRATCH)


# --- the report -----------------------------------------------------------------------------------------------


def targets(results: Sequence[Result]) -> list[tuple[str, float, float]]:
    """Return the targets: a description, the measured figure, and the maximum."""
    by_key = {(r.store, r.operation, r.size): r for r in results}
    sizes = sorted({r.size for r in results})
    figures: list[tuple[str, float, float]] = []
    for (store, operation, size), r in by_key.items():
        label = f"{store}, {size:,}: {operation}"
        if store.startswith("SQLite") and operation == "append":
            figures.append((f"{label}, times the bare driver", r.ratio, 2.0))
        if store.startswith("SQLite") and operation == "newest 50":
            figures.append((f"{label}, times the bare driver", r.ratio, 5.0))
        if store == "InMemory" and operation == "search 1000":
            figures.append((f"{label}, ms", r.ours_us / 1e3, 1.0))
    if len(sizes) > 1:
        for store in dict.fromkeys(r.store for r in results):
            growth = {
                operation: by_key[store, operation, sizes[-1]].ours_us / r.ours_us
                for (name, operation, size), r in by_key.items()
                if name == store and size == sizes[0]
            }
            worst = max(growth, key=growth.__getitem__)
            label = f"{store}: largest growth from {sizes[0]:,} to {sizes[-1]:,} ({worst})"
            figures.append((label, growth[worst], LARGEST_GROWTH))
    return figures


def show(results: Sequence[Result]) -> None:
    """Print a table for each store, and the targets."""
    console = Console()
    # When piped, the tables are plain text without line breaks.
    plain = not console.is_terminal
    if plain:
        console = Console(width=110)
    box: dict[str, Any] = {"box": None} if plain else {}
    sizes = sorted({r.size for r in results})
    by_key = {(r.store, r.operation, r.size): r for r in results}
    for store in dict.fromkeys(r.store for r in results):
        table = Table("operation", title=f"{store}: median µs, and ratio to the bare driver", **box)
        for size in sizes:
            table.add_column(f"{size:,}", justify="right")
            table.add_column("ratio", justify="right")
        table.add_column("growth", justify="right")
        table.add_column("bare growth", justify="right")
        for operation in dict.fromkeys(r.operation for r in results if r.store == store):
            row = [by_key[store, operation, size] for size in sizes]
            cells = list(chain.from_iterable((f"{r.ours_us:,.0f}", f"{r.ratio:.1f}") for r in row))
            growth = (row[-1].ours_us / row[0].ours_us, row[-1].bare_us / row[0].bare_us)
            table.add_row(operation, *cells, *(f"{value:.2f}" for value in growth))
        console.print(table)
        console.print()
    table = Table("target", title="targets", **box)
    for heading in ("measured", "maximum", ""):
        table.add_column(heading, justify="right")
    for label, figure, limit in targets(results):
        table.add_row(label, f"{figure:.2f}", f"{limit:.1f}", "met" if figure <= limit else "MISSED")
    console.print(table)


def _role(number: int) -> MessageRole:
    return MessageRole.ASSISTANT if number % 2 else MessageRole.USER


def _messages(user: str, session: str, texts: Sequence[str]) -> list[Message]:
    scope = {"user_id": user, "session_id": session}
    return [Message(role=_role(number), content=text, metadata=scope) for number, text in enumerate(texts)]


def main(
    sizes: Annotated[str, typer.Option(help="Numbers of messages in the stores, separated by commas.")] = SIZES,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the results to this file.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Run a quarter of the repetitions.")] = False,
) -> None:
    """Measure the operations of InMemory and SQLite, compared with the bare drivers."""
    try:
        numbers = sorted({int(size) for size in sizes.split(",")})
    except ValueError:
        raise typer.BadParameter("use whole numbers separated by commas", param_hint="--sizes") from None
    if numbers[0] < BIG_USER_MESSAGES:
        raise typer.BadParameter(f"use sizes of at least {BIG_USER_MESSAGES}", param_hint="--sizes")
    words = Words(_SEED)
    texts = [words.text() for _ in range(numbers[-1] + BIG_USER_MESSAGES)]
    share = 0.25 if quick else 1.0
    results: list[Result] = []
    errors = Console(stderr=True)
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as progress:
        for pair in PAIRS:
            results += measure(pair, numbers, texts, share, progress)
    machine = {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "system": platform.platform(),
        "cores": os.cpu_count(),
    }
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    show(results)
    if json_file is not None:
        report = machine | {"results": [asdict(result) | {"ratio": result.ratio} for result in results]}
        json_file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
