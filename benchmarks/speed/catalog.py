"""What is measured, and against whom."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path

from benchmarks.speed import peers, raw, remote, servers
from benchmarks.speed.contests import Contest, Contestant, Operation
from benchmarks.speed.ours import APPENDS, TASKS, THREADS, Ours
from dynamiq_memory import MemoryBackend
from dynamiq_memory.backends import Dynamiq, DynamoDB, InMemory, PostgreSQL, Qdrant, SQLite
from dynamiq_memory.connections import Dynamiq as DynamiqConnection

Open = Callable[[Path], Contestant]

APPEND = Operation("append", "append", 200)
BATCH = Operation("batch of 100", "batch", 40)
NEWEST = Operation("newest 50", "newest", 200)
REPLACE = Operation("replace 50", "replace", 40)
OPEN = Operation("open and append", "open_and_append", 40)
SEARCH = Operation("search a user's 500, 50 hits", "search", 80)
BOTH = Operation("BOTH, 50 of a session's 500", "both", 60)
EMPTY = Operation("is_empty", "is_empty", 100)
COUNT = Operation("count", "count", 100)
AT_ONCE = (
    Operation("append, 8 threads, one session", "threads_one_session", 20, THREADS * APPENDS),
    Operation("append, 8 threads, eight sessions", "threads_own_sessions", 20, THREADS * APPENDS),
    Operation("append, 64 tasks, one session", "tasks_one_session", 12, TASKS * APPENDS),
    Operation("append, 64 tasks, eight sessions", "tasks_own_sessions", 12, TASKS * APPENDS),
)
STORING = (APPEND, BATCH, NEWEST, REPLACE)
ROUND_TRIPS = (0, 1, 10)
"""Milliseconds."""

_PACKAGES = {
    "agents": "openai-agents",
    "langchain_community": "langchain-community",
    "langchain_postgres": "langchain-postgres",
    "llama_index.core": "llama-index-core",
    "aiosqlite": "aiosqlite",
}
_names = count()


def missing() -> list[str]:
    """The peers that are not installed."""
    return [package for module, package in _PACKAGES.items() if not _has(module)]


def contests(sizes: Sequence[int], wanted: Callable[[str], bool]) -> Iterator[Contest]:
    """Make the contests whose names are wanted, and start their servers.

    Args:
        sizes: The numbers of messages in a store, ascending.
        wanted: Whether a contest of this name is measured.
    """
    own = {"InMemory": _in_memory, "SQLite": _sqlite, "LangChain, SQLite": _langchain, "LlamaIndex, SQLite": _llama}
    for name, make in own.items():
        if wanted(name):
            yield make(name, sizes)
    with ExitStack() as stack:
        if wanted("PostgreSQL") or any(map(wanted, map(_over_network, ROUND_TRIPS))):
            url, path = stack.enter_context(servers.postgresql())
            if wanted("PostgreSQL"):
                yield _postgresql("PostgreSQL", sizes, url, more=AT_ONCE)
            for milliseconds in ROUND_TRIPS:
                name = _over_network(milliseconds)
                if wanted(name):
                    through = stack.enter_context(servers.delayed(path, milliseconds / 1000))
                    yield _network(name, sizes[:1], through)
    for name, remote_contest in {"DynamoDB": _dynamodb, "Qdrant": _qdrant, "Service": _service}.items():
        if wanted(name):
            with ExitStack() as stack:
                yield remote_contest(name, sizes[:1], stack)


def _over_network(milliseconds: int) -> str:
    return f"PostgreSQL, {milliseconds} ms more a round trip"


def _in_memory(name: str, sizes: Sequence[int]) -> Contest:
    operations = (APPEND, BATCH, NEWEST, SEARCH, BOTH, EMPTY, COUNT, REPLACE)
    return Contest(name, sizes, [lambda _: Ours(InMemory()), lambda _: raw.Lists()], operations)


def _sqlite(name: str, sizes: Sequence[int]) -> Contest:
    def ours(folder: Path) -> Contestant:
        def open_it() -> MemoryBackend:
            return SQLite(folder / "ours.db")

        return Ours(open_it(), reopen=open_it)

    others = _installed(
        {
            ("agents",): lambda folder: peers.OpenAIAgents(folder / "agents.db"),
            ("langchain_community",): lambda folder: peers.langchain_sql(folder / "langchain.db"),
            ("llama_index.core", "aiosqlite"): lambda folder: peers.llama_index_store(
                f"sqlite+aiosqlite:///{folder / 'llama.db'}", folder / "llama.db"
            ),
        }
    )
    operations = (APPEND, BATCH, NEWEST, SEARCH, BOTH, OPEN, EMPTY, COUNT, REPLACE)
    contestants: list[Open] = [ours, lambda folder: raw.RawSQLite(folder / "raw.db")]
    return Contest(name, sizes, contestants, operations, others)


def _langchain(name: str, sizes: Sequence[int]) -> Contest:
    others = _installed({("langchain_community",): lambda folder: peers.langchain_sql(folder / "langchain.db")})
    ours: list[Open] = [lambda folder: peers.ours_for_langchain(SQLite(folder / "ours.db"))]
    return Contest(name, sizes[:1], ours, STORING, others)


def _llama(name: str, sizes: Sequence[int]) -> Contest:
    others = _installed(
        {("llama_index.core", "aiosqlite"): lambda folder: peers.llama_index_memory(folder / "llama.db")}
    )
    ours: list[Open] = [lambda folder: peers.ours_for_llama_index(SQLite(folder / "ours.db"))]
    return Contest(name, sizes[:1], ours, STORING, others)


def _postgresql(name: str, sizes: Sequence[int], url: str, more: Sequence[Operation] = ()) -> Contest:
    def ours(_: Path) -> Contestant:
        table = f"ours_{next(_names)}"

        def open_it() -> MemoryBackend:
            return PostgreSQL(url, table_name=table)

        return Ours(open_it(), reopen=open_it)

    others = _installed(
        {
            ("langchain_postgres",): lambda _: peers.langchain_postgres(url),
            ("llama_index.core",): lambda _: peers.llama_index_store(
                url.replace("postgresql://", "postgresql+psycopg://")
            ),
        }
    )
    operations = (APPEND, BATCH, NEWEST, SEARCH, BOTH, OPEN, EMPTY, COUNT, *more, REPLACE)
    return Contest(name, sizes, [ours, lambda _: raw.RawPostgreSQL(url, f"raw_{next(_names)}")], operations, others)


def _network(name: str, sizes: Sequence[int], url: str) -> Contest:
    contest = _postgresql(name, sizes, url)
    operations = [Operation(each.name, each.method, 12) for each in (APPEND, BATCH, NEWEST, SEARCH, BOTH, REPLACE)]
    others = _installed({("langchain_postgres",): lambda _: peers.langchain_postgres(url)})
    return Contest(name, sizes, contest.contestants, operations, others)


def _dynamodb(name: str, sizes: Sequence[int], stack: ExitStack) -> Contest:
    from tests.fakes.dynamodb.server import running

    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        os.environ.setdefault(key, "none")
    os.environ.setdefault("AWS_DEFAULT_REGION", "eu-central-1")
    endpoint = stack.enter_context(running())
    operations = [Operation(each.name, each.method, 20) for each in (APPEND, BATCH, NEWEST, SEARCH, BOTH, EMPTY)]
    ours: list[Open] = [lambda _: Ours(DynamoDB(endpoint_url=endpoint)), lambda _: remote.RawDynamoDB(endpoint)]
    return Contest(name, sizes, ours, operations)


def _qdrant(name: str, sizes: Sequence[int], _: ExitStack) -> Contest:
    operations = [Operation(each.name, each.method, 12) for each in (APPEND, BATCH, NEWEST, SEARCH, BOTH, EMPTY)]
    ours: list[Open] = [lambda _: Ours(Qdrant(path=":memory:")), lambda _: remote.RawQdrant()]
    return Contest(name, sizes, ours, operations)


def _service(name: str, sizes: Sequence[int], stack: ExitStack) -> Contest:
    def served(folder: Path) -> Contestant:
        url = stack.enter_context(servers.service(f"sqlite:///{folder / 'served.db'}"))
        return Ours(Dynamiq(DynamiqConnection(url=url, api_key=None), "bench"))

    operations = [Operation(each.name, each.method, 40) for each in (APPEND, BATCH, NEWEST, SEARCH, BOTH, REPLACE)]
    without: Open = lambda folder: Ours(SQLite(folder / "file.db"), "its SQLite file, opened here")  # noqa: E731
    return Contest(name, sizes, [served, without], operations)


def _installed(others: dict[tuple[str, ...], Open]) -> list[Open]:
    return [opened for modules, opened in others.items() if all(map(_has, modules))]


def _has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it
        return False
