"""How many of the messages that answer a question does the memory find? Measures recall on public conversations.

    python benchmarks/retrieval.py locomo10.json
    python benchmarks/retrieval.py locomo10.json beam.json --way both@20 --backend Qdrant+vectors --vectors vectors.npz

All conversations of a file are stored in one store, with a user for each, and each question is asked within its user.
Backends "+vectors" rank by words and meaning, by MiniLM (see minilm.py), whose vectors can be kept in a file between
runs.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from dynamiq_memory import Memory, MemoryBackend, MemoryRetrievalStrategy, Message
from dynamiq_memory.backends import InMemory, SQLite

# When run as a script, make `benchmarks` and `tests` importable.
sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.conversations import Conversation, Kind, Question, read

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.minilm import CachedMiniLM

SEARCH_LIMITS = (5, 10, 20)
CONVERSATION_LIMITS = (10, 20)
SEARCH = "search"
# The share of questions for which a session with an answering message is among the first ones.
SESSIONS = "sessions"
# The recall that --check requires by way and limit, of conversations in LoCoMo's format and of chats with an assistant.
# Backends that rank by words and meaning must reach more.
REQUIRED = {
    Kind.LOCOMO: {(SEARCH, 10): 0.75, (SESSIONS, 10): 0.945, ("relevant", 20): 0.81, ("both", 20): 0.775},
    Kind.CHATS: {(SEARCH, 10): 0.47, ("relevant", 20): 0.57, ("both", 20): 0.54},
}
REQUIRED_OF_HYBRID = {
    Kind.LOCOMO: {(SEARCH, 10): 0.75, (SESSIONS, 10): 0.97, ("relevant", 20): 0.81, ("both", 20): 0.78},
    Kind.CHATS: {(SEARCH, 10): 0.53, ("relevant", 20): 0.64, ("both", 20): 0.6},
}
LARGEST_GAP = 0.02

Opened = AbstractContextManager[MemoryBackend]

_WARM_UP = 5


@dataclass(frozen=True, slots=True)
class Way:
    """A way to fetch messages for a question: a search, or an agent's conversation with some strategy."""

    name: str
    limit: int

    @property
    def label(self) -> str:
        """The way as it is named in tables and options, such as "search@10"."""
        return f"{self.name}@{self.limit}"

    def fetch(self, memory: Memory, user_id: str, question: Question) -> list[Message]:
        """Fetch the messages for a question about the conversations of a user."""
        filters: dict[str, Any] = {"user_id": user_id}
        if question.before is not None:
            filters["timestamp"] = {"$lt": question.before}
        if self.name == SEARCH:
            return memory.search(question.text, filters, self.limit)
        if self.name == SESSIONS:
            found = memory.search(question.text, filters, None)
            first = list(dict.fromkeys(message.session_id for message in found))[: self.limit]
            return [message for message in found if message.session_id in first]
        return memory.get_agent_conversation(question.text, self.limit, filters, self.name)


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one way on one backend, over all questions."""

    backend: str
    way: str
    limit: int
    recall: float
    median_ms: float
    hybrid: bool


WAYS = [
    *(Way(SEARCH, limit) for limit in SEARCH_LIMITS),
    Way(SESSIONS, 10),
    *(Way(strategy.value, limit) for strategy in MemoryRetrievalStrategy for limit in CONVERSATION_LIMITS),
]


_LABELS = ", ".join(way.label for way in WAYS)


def measure(
    backend: str, memory: Memory, conversations: Sequence[Conversation], ways: Sequence[Way], progress: Console
) -> Iterator[Result]:
    """Ask every question in each way."""
    asked = [(each.user_id, question) for each in conversations for question in each.questions]
    for way in ways:
        for user_id, question in asked[:_WARM_UP]:
            way.fetch(memory, user_id, question)
        recalls, times = [], []
        label = f"{backend}: {way.label}"
        for user_id, question in track(
            asked, label, console=progress, transient=True, disable=not progress.is_terminal
        ):
            start = time.perf_counter()
            found = way.fetch(memory, user_id, question)
            times.append(time.perf_counter() - start)
            answering = {message.id for message in found} & question.gold
            recalls.append(float(bool(answering)) if way.name == SESSIONS else len(answering) / len(question.gold))
        hybrid = memory.backend.capabilities.hybrid
        yield Result(backend, way.name, way.limit, fmean(recalls), median(times) * 1e3, hybrid)


def failures(results: Sequence[Result], kind: Kind) -> list[str]:
    """Return the requirements of --check that are not met."""
    unmet = [
        f"{r.backend} {r.way}@{r.limit}: recall {r.recall:.3f}, required {required:.2f}"
        for r in results
        if (required := (REQUIRED_OF_HYBRID if r.hybrid else REQUIRED)[kind].get((r.way, r.limit))) is not None
        and r.recall < required
    ]
    exact = {(r.hybrid, r.way, r.limit): r for r in results if r.backend in {"InMemory", "InMemory+vectors"}}
    for r in results:
        reference = exact.get((r.hybrid, r.way, r.limit), r)
        gap = abs(r.recall - reference.recall)
        if gap > LARGEST_GAP:
            unmet.append(
                f"{r.backend} {r.way}@{r.limit}: differs from {reference.backend} by {gap:.3f}, allowed {LARGEST_GAP}"
            )
    return unmet


def show(results: Sequence[Result]) -> None:
    """Print a row for each way, with two columns for each backend."""
    console = Console()
    # When piped, the table is plain text of a fixed width.
    plain = not console.is_terminal
    table = Table("way", box=None) if plain else Table("way")
    backends = list(dict.fromkeys(r.backend for r in results))
    for backend in backends:
        table.add_column(f"{backend} recall", justify="right")
        table.add_column("median ms", justify="right")
    by_key = {(r.backend, r.way, r.limit): r for r in results}
    for name, limit in dict.fromkeys((r.way, r.limit) for r in results):
        cells = [f"{name}@{limit}"]
        for backend in backends:
            r = by_key[backend, name, limit]
            cells += [f"{r.recall:.3f}", f"{r.median_ms:.2f}"]
        table.add_row(*cells)
    console.print(table)


@contextmanager
def in_memory(_: Path, embedder: CachedMiniLM | None) -> Iterator[MemoryBackend]:
    """Open a store in this process."""
    with InMemory(embedder) as backend:
        yield backend


@contextmanager
def sqlite(folder: Path, embedder: CachedMiniLM | None) -> Iterator[MemoryBackend]:
    """Open a database file."""
    with SQLite(folder / "benchmark.db", embedder=embedder) as backend:
        yield backend


@contextmanager
def postgresql(_: Path, embedder: CachedMiniLM | None) -> Iterator[MemoryBackend]:
    """Use the server of POSTGRES_URL or a test server."""
    from dynamiq_memory.backends import PostgreSQL  # noqa: PLC0415 - optional
    from tests.fakes.postgresql.server import postgresql as server  # noqa: PLC0415

    with server() as running, PostgreSQL(running.url, "retrieval_benchmark", embedder=embedder) as backend:
        backend.clear()
        yield backend


@contextmanager
def qdrant(_: Path, embedder: CachedMiniLM | None) -> Iterator[MemoryBackend]:
    """Use the server of QDRANT_URL, or Qdrant's engine in a test server."""
    from dynamiq_memory.backends import Qdrant  # noqa: PLC0415 - optional
    from tests.fakes.qdrant.server import qdrant as server  # noqa: PLC0415

    with server() as (url, _server), Qdrant(url, embedder, "retrieval-benchmark") as backend:
        backend.clear()
        yield backend


@contextmanager
def pinecone(_: Path, embedder: CachedMiniLM | None) -> Iterator[MemoryBackend]:
    """Use a test server, which compares all vectors exactly."""
    from dynamiq_memory.backends import Pinecone  # noqa: PLC0415 - optional
    from dynamiq_memory.connections import Pinecone as Connection  # noqa: PLC0415
    from tests.fakes.pinecone.server import API_KEY, running  # noqa: PLC0415

    with running() as server, Pinecone(Connection(api_key=API_KEY, host=server.url), embedder) as backend:
        yield backend


@contextmanager
def weaviate(_: Path, embedder: CachedMiniLM | None) -> Iterator[MemoryBackend]:
    """Use the server of WEAVIATE_URL or a test server."""
    from dynamiq_memory.backends import Weaviate  # noqa: PLC0415 - optional
    from dynamiq_memory.connections import Weaviate as Connection  # noqa: PLC0415
    from tests.fakes.weaviate.server import weaviate as running  # noqa: PLC0415

    with running() as server:
        connection = Connection(url=f"http://{server.host}:{server.http_port}", grpc_port=server.grpc_port)
        with Weaviate(connection, embedder, f"Benchmark_{uuid4().hex}") as backend:
            yield backend


_BY_WORDS: dict[str, Callable[[Path, CachedMiniLM | None], Opened]] = {
    "InMemory": in_memory,
    "SQLite": sqlite,
    "PostgreSQL": postgresql,
    "Qdrant": qdrant,
    "Weaviate": weaviate,
}
_VECTORS = "+vectors"
# Pinecone ranks by meaning alone.
BACKENDS = {
    **_BY_WORDS,
    **{f"{name}{_VECTORS}": opener for name, opener in {**_BY_WORDS, "Pinecone": pinecone}.items()},
}
"""Functions that open an empty store, given a temporary folder and an embedder or None."""


def main(
    paths: Annotated[
        list[Path], typer.Argument(help="Files in LoCoMo's format, or lists of chats.", exists=True, dir_okay=False)
    ],
    backend: Annotated[list[str], typer.Option(help=f"Backends to measure (repeatable): {', '.join(BACKENDS)}.")] = [  # noqa: B006 - typer copies it
        "InMemory",
        "SQLite",
    ],
    way: Annotated[
        list[str] | None, typer.Option(help=f"Ways to measure (repeatable); all by default: {_LABELS}.")
    ] = None,
    vectors: Annotated[Path | None, typer.Option(help="Keep MiniLM's vectors in this file for the next run.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the results to this file.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 unless the required recall is reached.")] = False,
) -> None:
    """Measure recall and latency of Memory.search and get_agent_conversation."""
    from benchmarks.minilm import CachedMiniLM  # noqa: PLC0415 - needs numpy

    for kind, given, known in (("backend", backend, [*BACKENDS]), ("way", way or [], [each.label for each in WAYS])):
        unknown = sorted(set(given) - set(known))
        if unknown:
            sys.exit(f"unknown {kind} {unknown[0]!r}: use {', '.join(known)}")
    ways = [each for each in WAYS if not way or each.label in way]
    reports = []
    unmet: list[str] = []
    embedder = CachedMiniLM(vectors)
    for path in paths:
        conversations = read(path)
        messages = [message for conversation in conversations for message in conversation.messages]
        questions = [question for conversation in conversations for question in conversation.questions]
        results: list[Result] = []
        for name in backend:
            with (
                tempfile.TemporaryDirectory() as folder,
                BACKENDS[name](Path(folder), embedder if name.endswith(_VECTORS) else None) as opened,
                Memory(backend=opened) as memory,
            ):
                if name.endswith(_VECTORS):
                    # Embed in advance, so that the embedder's time is not measured.
                    embedder.prepare([m.text for m in messages], [question.text for question in questions])
                memory.add_many(messages)
                results += measure(name, memory, conversations, ways, Console(stderr=True))
        counts = {"questions": len(questions), "conversations": len(conversations), "messages": len(messages)}
        print(f"{path.name}: {', '.join(f'{number:,} {what}' for what, number in counts.items())} in one store")
        show(results)
        reports.append({"file": path.name, **counts, "results": [asdict(result) for result in results]})
        unmet += [f"{path.name}: {each}" for each in failures(results, conversations[0].kind)]
    if json_file is not None:
        json_file.write_text(json.dumps(reports, indent=2) + "\n", encoding="utf-8")
    if check:
        print("\n".join(unmet) if unmet else "check: all requirements are met")
        raise typer.Exit(1 if unmet else 0)


if __name__ == "__main__":
    typer.run(main)
