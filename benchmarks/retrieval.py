"""How many of the turns that answer a question does the memory find? Measures recall on LoCoMo conversations.

    python benchmarks/retrieval.py locomo10.json
    python benchmarks/retrieval.py locomo10.json --backend Qdrant --vectors vectors.npz

All conversations of the file are stored in one store, with a user for each, and each question is asked within its user.
Backends that rank by meaning use MiniLM (see minilm.py), whose vectors can be kept in a file between runs.
"""

from __future__ import annotations

import datetime as dt
import json
import re
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

from dynamiq_memory import Memory, MemoryBackend, MemoryRetrievalStrategy, Message, MessageRole
from dynamiq_memory.backends import InMemory, SQLite

# When run as a script, make `benchmarks` and `tests` importable.
sys.path.insert(0, str(Path(__file__).parents[1]))

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.minilm import CachedMiniLM

SEARCH_LIMITS = (5, 10, 20)
CONVERSATION_LIMITS = (10, 20)
SEARCH = "search"
# The recall that --check requires by way and limit. Backends that rank by words and meaning must reach more.
REQUIRED = {(SEARCH, 10): 0.63, ("relevant", 20): 0.66, ("both", 20): 0.55}
REQUIRED_OF_HYBRID = {
    (SEARCH, 5): 0.57,
    (SEARCH, 10): 0.67,
    (SEARCH, 20): 0.74,
    ("relevant", 20): 0.68,
    ("both", 20): 0.57,
}
LARGEST_GAP = 0.02

Opened = AbstractContextManager[MemoryBackend]

# The evidence was written by hand: "D8:6; D9:17", "D:11:26", "D30:05".
_TURN_ID = re.compile(r"D:?(\d+):0*(\d+)")
_WARM_UP = 5


@dataclass(frozen=True, slots=True)
class Question:
    """A question, its user, and the turns that answer it."""

    user_id: str
    text: str
    gold: frozenset[str]


@dataclass(frozen=True, slots=True)
class Way:
    """A way to fetch messages for a question: a search, or an agent's conversation with some strategy."""

    name: str
    limit: int

    def fetch(self, memory: Memory, question: Question) -> list[Message]:
        """Fetch the messages for a question."""
        filters = {"user_id": question.user_id}
        if self.name == SEARCH:
            return memory.search(question.text, filters, self.limit)
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


WAYS = [Way(SEARCH, limit) for limit in SEARCH_LIMITS] + [
    Way(strategy.value, limit) for strategy in MemoryRetrievalStrategy for limit in CONVERSATION_LIMITS
]


def messages_of(sample: dict[str, Any]) -> Iterator[Message]:
    """Convert a conversation to messages, with the first speaker as the user and the other as the assistant."""
    conversation = sample["conversation"]
    numbers = [int(key.removeprefix("session_")) for key in conversation if re.fullmatch(r"session_\d+", key)]
    for number in sorted(numbers):
        written = conversation[f"session_{number}_date_time"]
        began = dt.datetime.strptime(written, "%I:%M %p on %d %B, %Y").replace(tzinfo=dt.UTC)
        for second, turn in enumerate(conversation[f"session_{number}"]):
            shared = f" [shares {turn['blip_caption']}]" if turn.get("blip_caption") else ""
            spoken_first = turn["speaker"] == conversation["speaker_a"]
            yield Message(
                role=MessageRole.USER if spoken_first else MessageRole.ASSISTANT,
                content=f"{turn['speaker']}: {turn['text']}{shared}",
                timestamp=began.timestamp() + second,
                # All conversations use the same session names, so that a leak between users would be visible.
                metadata={
                    "user_id": sample["sample_id"],
                    "session_id": f"session_{number}",
                    "dia_id": turn["dia_id"],
                },
            )


def questions_of(sample: dict[str, Any], turns: set[str]) -> Iterator[Question]:
    """Yield the questions of a conversation that have at least one answering turn in it."""
    for entry in sample["qa"]:
        evidence = {f"D{s}:{t}" for text in entry.get("evidence", ()) for s, t in _TURN_ID.findall(text)}
        gold = evidence & turns
        if gold:
            yield Question(sample["sample_id"], entry["question"], frozenset(gold))


def measure(backend: str, memory: Memory, questions: Sequence[Question], progress: Console) -> Iterator[Result]:
    """Ask every question in every way."""
    for way in WAYS:
        for question in questions[:_WARM_UP]:
            way.fetch(memory, question)
        recalls, times = [], []
        label = f"{backend}: {way.name}@{way.limit}"
        for question in track(questions, label, console=progress, transient=True, disable=not progress.is_terminal):
            start = time.perf_counter()
            found = way.fetch(memory, question)
            times.append(time.perf_counter() - start)
            # Another user's message must not count, even if its turn has the same number.
            turns = {message.metadata["dia_id"] for message in found if message.user_id == question.user_id}
            recalls.append(len(turns & question.gold) / len(question.gold))
        hybrid = memory.backend.capabilities.hybrid
        yield Result(backend, way.name, way.limit, fmean(recalls), median(times) * 1e3, hybrid)


def failures(results: Sequence[Result]) -> list[str]:
    """Return the requirements of --check that are not met."""
    unmet = [
        f"{r.backend} {r.way}@{r.limit}: recall {r.recall:.3f}, required {required:.2f}"
        for r in results
        if (required := (REQUIRED_OF_HYBRID if r.hybrid else REQUIRED).get((r.way, r.limit))) is not None
        and r.recall < required
    ]
    reference = {(r.way, r.limit): r.recall for r in results if r.backend == "InMemory"}
    for r in results:
        if r.hybrid or not reference:
            continue
        gap = abs(r.recall - reference[r.way, r.limit])
        if gap > LARGEST_GAP:
            unmet.append(f"{r.backend} {r.way}@{r.limit}: differs from InMemory by {gap:.3f}, allowed {LARGEST_GAP}")
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
    for way in WAYS:
        cells = [f"{way.name}@{way.limit}"]
        for backend in backends:
            r = by_key[backend, way.name, way.limit]
            cells += [f"{r.recall:.3f}", f"{r.median_ms:.2f}"]
        table.add_row(*cells)
    console.print(table)


@contextmanager
def in_memory(_: Path, __: CachedMiniLM) -> Iterator[MemoryBackend]:
    """Open a store in this process."""
    with InMemory() as backend:
        yield backend


@contextmanager
def sqlite(folder: Path, _: CachedMiniLM) -> Iterator[MemoryBackend]:
    """Open a database file."""
    with SQLite(folder / "benchmark.db") as backend:
        yield backend


@contextmanager
def postgresql(_: Path, __: CachedMiniLM) -> Iterator[MemoryBackend]:
    """Use the server of POSTGRES_URL or a test server, ranking by words."""
    with _postgresql(None) as backend:
        yield backend


@contextmanager
def pgvector(_: Path, embedder: CachedMiniLM) -> Iterator[MemoryBackend]:
    """Use the server of POSTGRES_URL or a test server, ranking by words and meaning."""
    with _postgresql(embedder) as backend:
        yield backend


@contextmanager
def _postgresql(embedder: CachedMiniLM | None) -> Iterator[MemoryBackend]:
    from dynamiq_memory.backends import PostgreSQL  # noqa: PLC0415 - optional
    from tests.fakes.postgresql.server import postgresql as server  # noqa: PLC0415

    with server() as running, PostgreSQL(running.url, "retrieval_benchmark", embedder=embedder) as backend:
        backend.clear()
        yield backend


@contextmanager
def qdrant(_: Path, embedder: CachedMiniLM) -> Iterator[MemoryBackend]:
    """Use the server of QDRANT_URL, or Qdrant's engine in a test server."""
    from dynamiq_memory.backends import Qdrant  # noqa: PLC0415 - optional
    from tests.fakes.qdrant.server import qdrant as server  # noqa: PLC0415

    with server() as (url, _server), Qdrant(url, embedder, "retrieval-benchmark") as backend:
        backend.clear()
        yield backend


@contextmanager
def pinecone(_: Path, embedder: CachedMiniLM) -> Iterator[MemoryBackend]:
    """Use a test server, which compares all vectors exactly."""
    from dynamiq_memory.backends import Pinecone  # noqa: PLC0415 - optional
    from dynamiq_memory.connections import Pinecone as Connection  # noqa: PLC0415
    from tests.fakes.pinecone.server import API_KEY, running  # noqa: PLC0415

    with running() as server, Pinecone(Connection(api_key=API_KEY, host=server.url), embedder) as backend:
        yield backend


@contextmanager
def weaviate(_: Path, embedder: CachedMiniLM) -> Iterator[MemoryBackend]:
    """Use the server of WEAVIATE_URL or a test server."""
    from dynamiq_memory.backends import Weaviate  # noqa: PLC0415 - optional
    from dynamiq_memory.connections import Weaviate as Connection  # noqa: PLC0415
    from tests.fakes.weaviate.server import weaviate as running  # noqa: PLC0415

    with running() as server:
        connection = Connection(url=f"http://{server.host}:{server.http_port}", grpc_port=server.grpc_port)
        with Weaviate(connection, embedder, f"Benchmark_{uuid4().hex}") as backend:
            yield backend


BACKENDS: dict[str, Callable[[Path, CachedMiniLM], Opened]] = {
    "InMemory": in_memory,
    "SQLite": sqlite,
    "PostgreSQL": postgresql,
    "pgvector": pgvector,
    "Pinecone": pinecone,
    "Qdrant": qdrant,
    "Weaviate": weaviate,
}
"""Functions that open an empty store, given a temporary folder and an embedder."""


def main(
    path: Annotated[Path, typer.Argument(help="A file in LoCoMo's format.", exists=True, dir_okay=False)],
    backend: Annotated[list[str], typer.Option(help=f"Backends to measure (repeatable): {', '.join(BACKENDS)}.")] = [  # noqa: B006 - typer copies it
        "InMemory",
        "SQLite",
    ],
    vectors: Annotated[Path | None, typer.Option(help="Keep MiniLM's vectors in this file for the next run.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the results to this file.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 unless the required recall is reached.")] = False,
) -> None:
    """Measure recall and latency of Memory.search and get_agent_conversation."""
    from benchmarks.minilm import CachedMiniLM  # noqa: PLC0415 - needs numpy

    unknown = sorted(set(backend) - set(BACKENDS))
    if unknown:
        sys.exit(f"unknown backend {unknown[0]!r}: use {', '.join(BACKENDS)}")
    samples = json.loads(path.read_text(encoding="utf-8"))
    messages: list[Message] = []
    questions: list[Question] = []
    for sample in samples:
        conversation = list(messages_of(sample))
        messages += conversation
        questions += questions_of(sample, {message.metadata["dia_id"] for message in conversation})
    if not questions:
        sys.exit(f"{path} has no question with an answering turn: is it in LoCoMo's format?")

    results: list[Result] = []
    embedder = CachedMiniLM(vectors)
    for name in backend:
        with (
            tempfile.TemporaryDirectory() as folder,
            BACKENDS[name](Path(folder), embedder) as opened,
            Memory(backend=opened) as memory,
        ):
            if opened.capabilities.vector:
                # Embed in advance, so that the embedder's time is not measured.
                embedder.prepare([m.text for m in messages], [question.text for question in questions])
            memory.add_many(messages)
            results += measure(name, memory, questions, Console(stderr=True))

    print(f"{len(questions)} questions, {len(samples)} conversations, {len(messages)} messages in one store")
    show(results)
    if json_file is not None:
        report = {
            "questions": len(questions),
            "messages": len(messages),
            "results": [asdict(result) for result in results],
        }
        json_file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if check:
        unmet = failures(results)
        print("\n".join(unmet) if unmet else "check: all requirements are met")
        raise typer.Exit(1 if unmet else 0)


if __name__ == "__main__":
    typer.run(main)
