"""Processes that die at random moments while they write, and what the store holds afterwards.

A writer says before each step what it will do, and after it that it has been done. Whatever was done must be there
afterwards, once, whole and in order. A step that was under way may be there or not, but never in part.
"""

from __future__ import annotations

import multiprocessing
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

import psutil  # type: ignore[import-untyped]
import psycopg
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.tools import tool

from dynamiq_memory import BackendError, Memory, MemoryBackend
from dynamiq_memory.backends import Dynamiq, PostgreSQL, Qdrant, SQLite
from dynamiq_memory.connections import Dynamiq as DynamiqConnection
from dynamiq_memory.testing import say
from langchain_dynamiq_memory import DynamiqChatMessageHistory, DynamiqMemoryMiddleware
from tests.fakes.langchain import ScriptedModel
from tests.fakes.postgresql.server import PostgreSQLServer, postgresql
from tests.service.serving import ServiceProcess
from tests.trust.steps import CHANGES, SCOPE, WORD, Row, State, Step, carry_out, plan
from tests.trust.stores import shared_postgresql
from tests.trust.tally import Check, Checks, Opened, Tally

# A server of processes that has imported what the writers need: each is a fork of it, and starts within milliseconds.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__])
_SECONDS = 120


# --- writers that are killed -------------------------------------------------------------------------------------


class Store:
    """A writer on a store.

    Args:
        open_store: Opens the store; it is called in the writer's process, too, and so must be picklable.
        changes: The names of the steps that it takes.
    """

    atomic = True

    def __init__(self, open_store: Opening, changes: tuple[str, ...] = CHANGES) -> None:
        self.open_store = open_store
        self.changes = changes

    def plan(self, random: Random, state: State) -> Step:
        return plan(random, state, self.changes)

    @contextmanager
    def at_work(self) -> Iterator[Callable[[Step, State], None]]:
        """Carries out steps."""
        with self.open_store() as store:
            yield lambda step, state: carry_out(store, step, state)

    def allowed(self, state: State, step: Step) -> list[State]:
        """What may be found if the step was under way."""
        return [state, step.after(state)] if self.atomic else step.halves(state)


@dataclass(frozen=True)
class Opening:
    """Opens a store: a class and its arguments."""

    kind: Callable[..., MemoryBackend]
    arguments: tuple[Any, ...]
    options: dict[str, Any] = field(default_factory=dict)

    def __call__(self) -> MemoryBackend:
        return self.kind(*self.arguments, **self.options)


class Halves(Store):
    """A store without transactions, which may keep a part of a batch."""

    atomic = False


class History(Store):
    """LangChain's chat history. It only adds and clears."""

    def plan(self, random: Random, state: State) -> Step:
        return plan(random, state, ("add", "batch", "batch", "delete") if len(state) < 100 else ("delete",))

    @contextmanager
    def at_work(self) -> Iterator[Callable[[Step, State], None]]:
        with self.open_store() as store:
            history = DynamiqChatMessageHistory(Memory(store), SCOPE["session_id"], SCOPE["user_id"])
            yield lambda step, _: history.clear() if step.name == "delete" else history.add_messages(_said(step.rows))


def _said(rows: State) -> list[BaseMessage]:
    # The metadata that LangChain's messages keep has no `number`, which is in their text, too.
    return [HumanMessage(row.text, id=row.id) for row in rows]


class Agent(Store):
    """LangChain's agent with the middleware. Each step is a run: a question, a call of a tool, its result, an answer."""

    def plan(self, random: Random, state: State) -> Step:
        first = max((row.number for row in state), default=0) + 1
        if len(state) > 100:
            return Step("delete", below=first)
        texts = [f"{WORD} {first} {random.getrandbits(32):x} {part}" for part in range(4)]
        return Step("turn", tuple(Row(first, text) for text in texts))

    @contextmanager
    def at_work(self) -> Iterator[Callable[[Step, State], None]]:
        with self.open_store() as store:
            memory = Memory(store, filters=SCOPE)

            def run(step: Step, _: State) -> None:
                if step.name == "delete":
                    memory.delete(**SCOPE)
                    return
                question, call, result, answer = (row.text for row in step.rows)
                made = AIMessage(call, tool_calls=[{"name": "look", "args": {"said": result}, "id": call}])
                middleware: list[AgentMiddleware[Any, Any]] = [DynamiqMemoryMiddleware(memory)]
                agent = create_agent(ScriptedModel(script=[made, AIMessage(answer)]), [_look], middleware=middleware)
                agent.invoke({"messages": [HumanMessage(question)]})

            yield run

    def allowed(self, state: State, step: Step) -> list[State]:
        return step.halves(state)


@tool("look")
def _look(said: str) -> str:
    """Return what is said."""
    return said


def _write(writer: Store, seed: int, state: State, log: Connection) -> None:
    """Write until killed; runs in a process of its own."""
    random = Random(seed)
    with writer.at_work() as carry_out_step:
        while True:
            step = writer.plan(random, state)
            log.send(step)
            carry_out_step(step, state)
            log.send(None)
            state = step.after(state)


class KilledWriter:
    """A check that kills a writer, and looks at what it left.

    Args:
        writer: What writes.
        examine: Looks at the store in ways of its own.
    """

    def __init__(self, writer: Store, examine: Callable[[Tally], None] = lambda _: None) -> None:
        self.writer = writer
        self.examine = examine
        self.state: State = ()
        self.bystander = say("somebody else's", user="somebody else", session="s")
        with writer.open_store() as store:
            store.add(self.bystander)

    def __call__(self, random: Random) -> Tally:
        tally = Tally(runs=1, faults=1)
        steps, finished = self._killed(random)
        for step in steps[:finished]:
            self.state = step.after(self.state)
        tally.operations += finished
        under_way = steps[finished:]
        allowed = self.writer.allowed(self.state, under_way[0]) if under_way else [self.state]
        with self.writer.open_store() as store:
            self.state = look(tally, store, self.state, allowed, f"after {under_way or steps[-1:]}"[:300])
            others = [m.content for m in store.get_all(filters={"user_id": self.bystander.user_id})]
            tally.expect(others == [self.bystander.content], f"somebody else's messages: {others}", "leaked")
        self.examine(tally)
        return tally

    def _killed(self, random: Random) -> tuple[list[Step], int]:
        """Start a writer and kill it: what it began, and how much of this it finished."""
        ours, theirs = _processes.Pipe(duplex=False)
        arguments = (self.writer, random.getrandbits(32), self.state, theirs)
        process = _processes.Process(target=_write, args=arguments, daemon=True)
        process.start()
        theirs.close()
        said: list[Step | None] = []
        with ours:
            for _ in range(random.randint(1, 25)):
                assert ours.poll(_SECONDS), "the writer hangs"
                said.append(ours.recv())
            # Most writers die at work on a step, some between two.
            time.sleep(random.choice([0.0, 0.001, 0.01]) * random.random())
            process.kill()
            process.join(_SECONDS)
            assert process.exitcode == -signal.SIGKILL, f"the writer ended by itself: {process.exitcode}"
            with suppress(EOFError, OSError):  # its end, maybe in the middle of a word
                while True:
                    said.append(ours.recv())
        return [step for step in said if step is not None], said.count(None)


def look(tally: Tally, store: MemoryBackend, state: State, allowed: list[State], where: str) -> State:
    """Compare the store with what it may hold, in each way in which it can be read. Returns what it holds."""
    found = store.get_all(filters=SCOPE)
    texts = [str(message.content) for message in found]
    tally.compare(texts, [[row.text for row in each] for each in allowed], where)
    tally.expect(store.count(SCOPE) == len(texts), f"{where}: count")
    words = [str(message.content) for message in store.search(WORD, SCOPE)]
    tally.expect(sorted(words) == sorted(texts), f"{where}: search finds {len(words)} of {len(texts)}")
    listed = [session.messages for session in store.sessions({"user_id": SCOPE["user_id"]})]
    tally.expect(listed == [len(texts)] * bool(texts), f"{where}: sessions {listed}")
    return tuple(Row(int(text.split()[1]), text) for text in texts)


@contextmanager
def sqlite_client(folder: Path) -> Opened:
    file = folder / "store.db"

    def examine(tally: Tally) -> None:
        with closing(sqlite3.connect(file)) as connection:
            tally.expect(connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)], "integrity_check")

    yield KilledWriter(Store(Opening(SQLite, (file,))), examine)


@contextmanager
def postgresql_client(_: Path) -> Opened:
    server = shared_postgresql()
    with server.new_table() as table:
        yield KilledWriter(Store(Opening(PostgreSQL, (server.url, table))))


@contextmanager
def qdrant_folder(folder: Path) -> Opened:
    yield KilledWriter(Halves(Opening(Qdrant, (), {"path": str(folder / "qdrant")}), ("add", "batch")))


@contextmanager
def langchain_history(folder: Path) -> Opened:
    yield KilledWriter(History(Opening(SQLite, (folder / "store.db",))))


@contextmanager
def langchain_agent(folder: Path) -> Opened:
    yield KilledWriter(Agent(Opening(SQLite, (folder / "store.db",))))


# --- servers that are killed -------------------------------------------------------------------------------------


def killed_server(store: MemoryBackend, kill_and_start: Callable[[], None]) -> Check:
    """A check that kills the server of a store while this process writes, and looks at what it holds again."""
    state: State = ()

    def check(random: Random) -> Tally:
        nonlocal state
        tally = Tally(runs=1, faults=1)
        assert store.count(SCOPE) == len(state)  # it has a connection now
        step, failed = None, False
        with ThreadPoolExecutor(1) as pool:
            killer = pool.submit(_later, kill_and_start, random.random() / 2)
            while not killer.done() and not failed:
                step = plan(random, state)
                try:
                    carry_out(store, step, state)
                except BackendError:
                    failed = True
                else:
                    state = step.after(state)
                    tally.operations += 1
            killer.result()
        allowed = [state, step.after(state)] if step and failed else [state]
        state = look(tally, store, state, allowed, f"after {step}, {failed=}"[:300])
        return tally

    return check


def _later(action: Callable[[], None], seconds: float) -> None:
    time.sleep(seconds)
    action()


@contextmanager
def postgresql_server(_: Path) -> Opened:
    with postgresql() as server, server.new_table() as table, PostgreSQL(server.url, table) as store:
        yield killed_server(store, lambda: _crash(server))


def _crash(server: PostgreSQLServer) -> None:
    """Kill one of the server's processes, at which it ends all others and recovers from its log."""
    processes = psutil.Process(server.own.get_pid()).children()
    session = next(process for process in processes if "[local]" in process.cmdline()[0])
    session.kill()
    _, alive = psutil.wait_procs(processes, _SECONDS)
    assert not alive, f"they outlived a crash: {alive}"
    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            psycopg.connect(server.url).close()
        except psycopg.OperationalError:  # it recovers
            assert time.monotonic() < deadline, "the server did not come back"
            time.sleep(0.02)
        else:
            return


@contextmanager
def service(folder: Path) -> Opened:
    server = ServiceProcess(folder)

    def kill_and_start() -> None:
        server.kill()
        server.start()

    try:
        server.start()
        with Dynamiq(DynamiqConnection(url=server.url, api_key=None), "m", timeout=120) as store:
            yield killed_server(store, kill_and_start)
    finally:
        server.kill()


CHECKS: Checks = {
    "SQLite": sqlite_client,
    "PostgreSQL, the client dies": postgresql_client,
    "PostgreSQL, the server dies": postgresql_server,
    "service over SQLite": service,
    "LangChain history over SQLite": langchain_history,
    "LangChain agent over SQLite": langchain_agent,
    "Qdrant in a folder": qdrant_folder,
}
