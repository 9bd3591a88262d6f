"""Forgetting a user: delete all that stores hold of them, then look whether it is gone."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from dynamiq_memory._wire import iso
from dynamiq_memory.backends.base import MemoryBackend
from dynamiq_memory.backends.operations import Count, Delete, Operation, Sessions
from dynamiq_memory.backends.plans import Plan, Step
from dynamiq_memory.exceptions import InvalidArgumentError
from dynamiq_memory.filters import parse
from dynamiq_memory.messages import USER_KEY, check_identifier, clock

T_co = TypeVar("T_co", covariant=True)

_DELETE_THREAD = "delete_thread"
_READ_THREAD = "get_tuple"
_CHECKPOINTER_TRACES = "what the checkpointer's own store keeps of deleted rows, and its backups"


@dataclass(frozen=True, slots=True)
class Erasure:
    """What was found and deleted in one store.

    Attributes:
        store: The store, without secrets.
        found: Number of messages, or of threads of a checkpointer, before. None if the store was not reached, or if it
            cannot say.
        sessions: The ids of the sessions with these messages, or of the threads; None for messages without a session.
        deleted: How many of them were deleted.
        left: How many were there when the store was read again. None if it was not, or cannot be.
        problem: Why it is not done; None if it is, or if this is a dry run.
        error: The exception that ended the work, if one did in this store; not in `to_dict`.
        traces: A description of places that may still hold deleted data, such as a backup.
    """

    store: str
    found: int | None = None
    sessions: tuple[str | None, ...] = ()
    deleted: int = 0
    left: int | None = None
    problem: str | None = None
    traces: str = ""
    error: Exception | None = None

    def to_dict(self) -> dict[str, Any]:
        """Describe it as JSON."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "error"}


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was done to forget a user.

    Attributes:
        user_id: The user.
        at: When it began, POSIX seconds.
        dry_run: Whether nothing was to be deleted.
        stores: A record for each store, in the order of the work: checkpointers, then memories.
    """

    user_id: str
    at: float
    dry_run: bool
    stores: tuple[Erasure, ...]

    @property
    def is_complete(self) -> bool:
        """Whether every store was read again, as far as it can be, and had nothing left."""
        return not self.dry_run and not any(each.problem or each.left for each in self.stores)

    @property
    def deleted(self) -> int:
        """Number of messages and threads deleted."""
        return sum(each.deleted for each in self.stores)

    def to_dict(self) -> dict[str, Any]:
        """Describe it as JSON, with `digest`: SHA-256, in hexadecimal, of the rest as JSON with sorted keys."""
        content: dict[str, Any] = {"user_id": self.user_id, "at": iso(self.at), "dry_run": self.dry_run}
        content |= {"is_complete": self.is_complete, "stores": [each.to_dict() for each in self.stores]}
        text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return content | {"digest": hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()}


def forget(user_id: str, backend: MemoryBackend, also: Sequence[Any] = (), *, dry_run: bool = False) -> Plan[Receipt]:
    """Delete what stores hold of a user.

    The sessions of the stores name the threads of checkpointers, which are therefore deleted first. A failure ends the
    work, so what was not reached is found when it is done again.

    Args:
        user_id: The user.
        backend: A store.
        also: Other stores, memories with a `backend`, and checkpointers with `delete_thread`.
        dry_run: Delete nothing.

    Returns:
        The receipt.

    Raises:
        InvalidArgumentError: The user is not an id, or something is not a store.
    """
    check_identifier(user_id, USER_KEY)
    if not isinstance(also, Sequence):
        raise InvalidArgumentError(f"also must be a list, not {also!r}")
    backends, checkpointers = _sorted([backend, *also])
    begun = clock()
    work = [_Messages(each, user_id) for each in backends]
    for each in work:
        yield from each.look()
    threads = list(dict.fromkeys(session for each in work for session in each.sessions if session is not None))
    tasks: list[_Threads | _Messages] = [*(_Threads(each, threads) for each in checkpointers), *work]
    for task in tasks[: len(checkpointers)]:
        yield from task.look()
    if not dry_run:
        yield from _erase(tasks)
    return Receipt(user_id, begun, dry_run, tuple(task.erasure() for task in tasks))


@dataclass(frozen=True, slots=True)
class _On(Step[T_co]):
    """An operation of a backend."""

    backend: MemoryBackend
    operation: Operation[T_co]


@dataclass(frozen=True, slots=True)
class _Call(Step[Any]):
    """A call of a checkpointer's method, of which there may be an asynchronous one with a leading `a`."""

    checkpointer: Any
    method: str
    argument: Any


def perform(step: Any) -> Any:
    """Perform a step of `forget`."""
    if isinstance(step, _On):
        return step.backend.execute(step.operation)
    return getattr(step.checkpointer, step.method)(step.argument)


async def aperform(step: Any) -> Any:
    """Perform a step of `forget`; methods without an asynchronous twin run in a thread."""
    if isinstance(step, _On):
        return await step.backend.aexecute(step.operation)
    twin = getattr(step.checkpointer, f"a{step.method}", None)
    if callable(twin):
        return await twin(step.argument)
    return await asyncio.to_thread(perform, step)


def _erase(tasks: Sequence[_Threads | _Messages]) -> Plan[None]:
    """Carry out tasks until one fails."""
    failed = next((task.name for task in tasks if task.problem), None)
    for task in tasks:
        if failed is None:
            try:
                yield from task.erase()
            except Exception as error:  # noqa: BLE001 - it is in the receipt, and ends the work
                task.fail(error)
            failed = task.name if task.problem else None
        elif task.problem is None:
            task.problem = f"not begun, since {failed} failed: do it again"


@dataclass(slots=True, kw_only=True)
class _Task:
    """What is to be deleted in one store, and how far this went."""

    deleted: int = 0
    left: int | None = None
    problem: str | None = None
    error: Exception | None = None

    def fail(self, error: Exception) -> None:
        self.error = error
        self.problem = f"{type(error).__name__}: {error}"

    @property
    def outcome(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("deleted", "left", "problem", "error")}


@dataclass(slots=True)
class _Messages(_Task):
    """The messages of a user in a store."""

    backend: MemoryBackend
    user_id: str
    found: int | None = None
    sessions: tuple[str | None, ...] = ()

    @property
    def name(self) -> str:
        return repr(self.backend)

    def look(self) -> Plan[None]:
        try:
            found = yield from _On(self.backend, Sessions(self._filter))
        except Exception as error:  # noqa: BLE001 - it is in the receipt, and ends the work
            self.fail(error)
        else:
            self.found = sum(session.messages for session in found)
            self.sessions = tuple(session.session_id for session in found)

    def erase(self) -> Plan[None]:
        try:
            self.deleted = yield from _On(self.backend, Delete(self._filter))
        except Exception:
            # Some stores delete in steps.
            with suppress(Exception):
                self.left = yield from _On(self.backend, Count(self._filter))
                self.deleted = max(0, (self.found or 0) - self.left)
            raise
        self.left = yield from _On(self.backend, Count(self._filter))
        if self.left:
            self.problem = "messages were stored during the deletion, or are still shown: do it again"

    def erasure(self) -> Erasure:
        return Erasure(self.name, self.found, self.sessions, traces=self.backend.traces, **self.outcome)

    @property
    def _filter(self) -> Any:
        return parse({USER_KEY: self.user_id})


@dataclass(slots=True)
class _Threads(_Task):
    """Threads of a checkpointer."""

    checkpointer: Any
    threads: Sequence[str]
    found: int | None = None

    @property
    def name(self) -> str:
        return type(self.checkpointer).__qualname__

    def look(self) -> Plan[None]:
        """Leave out the threads that are not there, if the checkpointer can be read."""
        if not callable(getattr(self.checkpointer, _READ_THREAD, None)):
            return
        try:
            self.threads = yield from self._existing()
        except Exception as error:  # noqa: BLE001 - it is in the receipt, and ends the work
            self.fail(error)
        else:
            self.found = len(self.threads)

    def erase(self) -> Plan[None]:
        for thread in self.threads:
            yield from _Call(self.checkpointer, _DELETE_THREAD, thread)
            self.deleted += 1
        if self.found is not None:
            self.left = len((yield from self._existing()))
        if self.left:
            self.problem = "threads are still there: do it again"

    def erasure(self) -> Erasure:
        return Erasure(self.name, self.found, tuple(self.threads), traces=_CHECKPOINTER_TRACES, **self.outcome)

    def _existing(self) -> Plan[list[str]]:
        existing = []
        for thread in self.threads:
            config = {"configurable": {"thread_id": thread}}
            if (yield from _Call(self.checkpointer, _READ_THREAD, config)) is not None:
                existing.append(thread)
        return existing


def _sorted(stores: Sequence[Any]) -> tuple[list[MemoryBackend], list[Any]]:
    """Return the backends and the checkpointers, each once."""
    backends: list[MemoryBackend] = []
    checkpointers: list[Any] = []
    for each in stores:
        backend = getattr(each, "backend", each)
        if isinstance(backend, MemoryBackend):
            if backend.default_session is not None:
                raise InvalidArgumentError(
                    f"{backend!r} reads the session {backend.default_session!r} alone: open it without one"
                )
            if backend not in backends:
                backends.append(backend)
        elif callable(getattr(each, _DELETE_THREAD, None)):
            if each not in checkpointers:
                checkpointers.append(each)
        else:
            raise InvalidArgumentError(
                f"also takes memories, backends, and checkpointers with delete_thread(thread_id), not {each!r}"
            )
    return backends, checkpointers
