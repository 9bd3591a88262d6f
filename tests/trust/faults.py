"""Requests that fail at any point: before they reach the server, on the way, or after they were carried out.

A failed operation raises an error of ours. In a store with transactions it has happened as a whole or not at all, and
it has not happened if no request came through. In the others, a batch may be there in part, and no message that the
operation keeps is lost; making the same change again completes it.
"""

from __future__ import annotations

import socket
import sqlite3
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

from sqlalchemy import make_url

from dynamiq_memory import BackendError, MemoryBackend
from dynamiq_memory.backends import PostgreSQL, SQLite, Weaviate
from dynamiq_memory.connections import Weaviate as WeaviateConnection
from tests.fakes.http_server import Answer, Broken, Silent
from tests.fakes.weaviate.server import weaviate
from tests.trust.proxies import Gateway, Wire
from tests.trust.steps import SCOPE, State, Step, carry_out, plan
from tests.trust.stores import opened, shared_postgresql
from tests.trust.tally import Checks, Opened, Tally

ANSWERS = (
    None,
    Broken(),
    Answer({"status": {"error": "slow down"}, "message": "slow down"}, 429, {"retry-after": "0"}),
    Answer({"status": {"error": "failed"}, "message": "failed"}, 500),
    Answer({"status": {"error": "busy"}, "message": "busy"}, 503, {"retry-after": "0"}),
)
# A request that hangs costs its client's timeout, a second or more.
HANGING = (Silent(),)


@dataclass
class Changing:
    """A session that changes while requests fail.

    Attributes:
        direct: The store, past what breaks.
        store: The same store, through what breaks.
    """

    direct: MemoryBackend
    store: MemoryBackend
    state: State = field(default=())

    def change(self, random: Random, tally: Tally, heal: Callable[[], bool], where: str) -> None:
        """Make a change; `heal` ends the faults and returns whether nothing reached the server."""
        step = plan(random, self.state)
        failed: str | None = None
        try:
            carry_out(self.store, step, self.state)
        except BackendError as error:
            failed = f"{type(error).__name__}: {error}"[:200]
        except Exception as error:  # noqa: BLE001 - counted
            failed = f"{type(error).__name__}: {error}"[:200]
            tally.expect(False, f"{where}: {step.name} raises a foreign error, {failed}")
        untouched = heal()
        where = f"{where}, {step.name}, {failed}"
        allowed = self._allowed(step, failed, untouched=untouched)
        found = self._texts()
        if failed and not self.direct.capabilities.transactions:
            self._check_halves(tally, step, found, where)
            self._start_again()
            return
        tally.compare(found, [[row.text for row in each] for each in allowed], where)
        self.state = next((each for each in allowed if [row.text for row in each] == found), ())
        if not self.state:
            self._start_again()

    def _allowed(self, step: Step, failed: str | None, *, untouched: bool) -> list[State]:
        if failed is None:
            return [step.after(self.state)]
        return [self.state] if untouched else [self.state, step.after(self.state)]

    def _check_halves(self, tally: Tally, step: Step, found: list[str], where: str) -> None:
        before, after = ([row.text for row in each] for each in (self.state, step.after(self.state)))
        kept = [text for text in before if text in after]
        tally.compare([text for text in found if text in kept], [kept], f"{where}, what the change keeps")
        others = [text for text in found if text not in kept]
        tally.expect(len(set(others)) == len(others), f"{where}: doubled {others}", "doubled")
        tally.expect(set(others) <= {*before, *after}, f"{where}: nobody wrote {others}")
        if step.name != "summarise":  # of which the part to replace is no longer known
            carry_out(self.direct, step, self.state)
            tally.compare(self._texts(), [after], f"{where}, made again")

    def _texts(self) -> list[str]:
        return [str(message.content) for message in self.direct.get_all(filters=SCOPE)]

    def _start_again(self) -> None:
        self.direct.delete("s", "u")
        self.state = ()


# --- HTTP --------------------------------------------------------------------------------------------------------


def _answered(name: str, answers: Sequence[Answer | Broken | None] = ANSWERS) -> Callable[[Path], Any]:
    """A check with faults of single requests."""

    @contextmanager
    def check(folder: Path) -> Opened:
        with ExitStack() as stack:
            gateways: list[Gateway] = []

            def through(url: str) -> str:
                gateways.append(stack.enter_context(Gateway(url)))
                return gateways[-1].url

            seconds = None if answers is ANSWERS else 3
            store = stack.enter_context(opened(name, folder, through, seconds))
            session = Changing(store, store)

            def run(random: Random) -> Tally:
                gateway = gateways[-1]
                gateway.requests.clear()
                fault, lasting, number = (
                    random.choice(answers),
                    random.random() < 0.3 and answers is ANSWERS,
                    random.randint(0, 3),
                )
                carried_out = random.random() < 0.5
                gateway.break_at(number, fault, carried_out=carried_out, lasting=lasting)
                tally = Tally(runs=1)

                def heal() -> bool:
                    gateway.faults = lambda _: None
                    tally.faults += len(gateway.requests) > number
                    return lasting and fault is not None and not carried_out and number == 0

                where = f"{fault} at request {number}, {carried_out=}, {lasting=}"
                session.change(random, tally, heal, where)
                return tally

            yield run

    return check


# --- connections -------------------------------------------------------------------------------------------------


def _cut(name: str) -> Callable[[Path], Any]:
    """A check with connections that break at any byte."""

    @contextmanager
    def check(folder: Path) -> Opened:
        with ExitStack() as stack:
            wires: list[Wire] = []

            def through(url: str) -> str:
                place = urlsplit(url)
                address = (place.hostname or "", place.port or 0)
                wires.append(stack.enter_context(Wire(lambda: socket.create_connection(address))))
                return f"http://127.0.0.1:{wires[-1].port}"

            store = stack.enter_context(opened(name, folder, through))
            yield _cutting(wires[-1], store, store)

    return check


@contextmanager
def _cut_postgresql(_: Path) -> Opened:
    server = shared_postgresql()
    url = make_url(server.url)

    def connect() -> socket.socket:
        to_server = socket.socket(socket.AF_UNIX)
        to_server.connect(f"{url.query['host']}/.s.PGSQL.5432")
        return to_server

    with server.new_table() as table, Wire(connect) as wire:
        through = url.set(host="127.0.0.1", port=wire.port, query={}).render_as_string(hide_password=False)
        with PostgreSQL(server.url, table) as direct, PostgreSQL(through, table) as store:
            yield _cutting(wire, direct, store)


@contextmanager
def _cut_weaviate(_: Path) -> Opened:
    """gRPC is cut. While it is, a request waits for its timeout, and not for the minute that the client would."""
    with weaviate() as server, Wire(lambda: socket.create_connection((server.host, server.grpc_port))) as wire:
        name, url = f"Test_{uuid.uuid4().hex}", f"http://{server.host}:{server.http_port}"
        connection = WeaviateConnection(url=url, grpc_port=wire.port, timeout_query=1.0, timeout_insert=1.0)
        with (
            Weaviate(WeaviateConnection(url=url, grpc_port=server.grpc_port), collection_name=name) as direct,
            Weaviate(connection, collection_name=name) as store,
        ):
            yield _cutting(wire, direct, store)


def _cutting(wire: Wire, direct: MemoryBackend, store: MemoryBackend) -> Callable[[Random], Tally]:
    session = Changing(direct, store)

    def run(random: Random) -> Tally:
        before = wire.broken
        wire.left = int(10 ** random.uniform(0, 5))
        tally = Tally(runs=1)

        def heal() -> bool:
            wire.left = None
            tally.faults += wire.broken > before
            return False

        session.change(random, tally, heal, f"cut after {wire.left} bytes")
        return tally

    return run


# --- SQLite ------------------------------------------------------------------------------------------------------


@contextmanager
def locked(folder: Path) -> Opened:
    """Another process holds the file's lock, half of the time."""
    file = folder / "store.db"
    with SQLite(file, timeout=0.01) as store, closing(sqlite3.connect(file, isolation_level=None)) as other:
        session = Changing(store, store)

        def run(random: Random) -> Tally:
            held = random.random() < 0.5
            other.execute("BEGIN IMMEDIATE" if held else "BEGIN")
            tally = Tally(runs=1, faults=held)

            def heal() -> bool:
                other.execute("ROLLBACK")
                return held

            session.change(random, tally, heal, f"{held=}")
            return tally

        yield run


@contextmanager
def full(folder: Path) -> Opened:
    """The disk has few pages left, or none."""
    file, connect = folder / "store.db", sqlite3.connect
    with SQLite(file) as direct:
        session = Changing(direct, direct)

        def run(random: Random) -> Tally:
            with closing(connect(file)) as connection:
                (used,) = connection.execute("PRAGMA page_count").fetchone()
            pages = used + random.choice([0, 1, 3, 10, 1000])

            def limited(*arguments: Any, **options: Any) -> sqlite3.Connection:
                connection: sqlite3.Connection = connect(*arguments, **options)
                connection.execute(f"PRAGMA max_page_count = {pages}")
                return connection

            tally = Tally(runs=1, faults=1)
            with patch.object(sqlite3, "connect", limited), SQLite(file) as session.store:
                session.change(random, tally, lambda: False, f"{pages - used} pages left")
            return tally

        yield run


CHECKS: Checks = {
    "SQLite, locked": locked,
    "SQLite, disk full": full,
    "PostgreSQL, connections cut": _cut_postgresql,
    "service over SQLite, connections cut": _cut("service over SQLite"),
    "Weaviate, connections cut": _cut_weaviate,
    **{f"{name}, requests fail": _answered(name) for name in ("service over SQLite", "DynamoDB", "Qdrant", "Pinecone")},
    **{f"{name}, a request hangs": _answered(name, HANGING) for name in ("service over SQLite", "DynamoDB", "Qdrant")},
}
