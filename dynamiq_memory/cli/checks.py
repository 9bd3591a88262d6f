"""The checks of `doctor`."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import packages_distributions, version

from dynamiq_memory import __version__
from dynamiq_memory.backends.base import MemoryBackend
from dynamiq_memory.cli.output import in_options, time_of
from dynamiq_memory.cli.stores import opened
from dynamiq_memory.exceptions import DynamiqMemoryError
from dynamiq_memory.messages import Message, MessageRole

_SCOPE = {"user_id": "dynamiq-memory-doctor", "session_id": "dynamiq-memory-doctor"}
_WORD = "dynamiq"


@dataclass(frozen=True, slots=True)
class Check:
    """The result of a check.

    Attributes:
        name: The check.
        ok: Whether there is nothing to fix.
        detail: The finding; after a failure, also how to fix it.
    """

    name: str
    ok: bool
    detail: str


def checks_of(store: str, *, full: bool, write: bool) -> Iterator[Check]:
    """Check a store.

    Args:
        store: A URL, or a name in the file of stores.
        full: Whether to count messages and look at the newest, for which some stores read everything.
        write: Whether to store a message and delete it.
    """
    yield Check("versions", True, f"dynamiq-memory {__version__}, Python {platform.python_version()}")
    try:
        backend = opened(store)
    except DynamiqMemoryError as error:
        yield Check("opens", False, in_options(error))
        return
    with backend:
        yield Check("opens", True, f"{backend!r}, with {_drivers(backend)}")
        checks: dict[str, Callable[[MemoryBackend], str]] = {"reads": _reads, "searches": _searches}
        checks |= {"counts": _counts, "clock": _clock} if full else {}
        checks |= {"writes": _writes} if write else {}
        for name, check in checks.items():
            try:
                detail = check(backend)
            except DynamiqMemoryError as error:
                yield Check(name, False, in_options(error))
            else:
                yield Check(name, not detail.startswith("!"), detail.removeprefix("!"))


def _drivers(backend: MemoryBackend) -> str:
    """Name the versions of the libraries that the backend uses."""
    known = packages_distributions()
    modules = {error.__module__.partition(".")[0] for error in backend.driver_errors}
    names = sorted({name for module in modules for name in known.get(module, ())})
    return ", ".join(f"{name} {version(name)}" for name in names) or "no library"


def _reads(backend: MemoryBackend) -> str:
    return "the store is empty" if backend.is_empty() else "there are messages"


def _counts(backend: MemoryBackend) -> str:
    return f"{backend.count():,} messages"


def _clock(backend: MemoryBackend) -> str:
    newest = backend.get_all(1)
    if not newest:
        return "the store is empty"
    ahead = (newest[0].timestamp or 0.0) - time.time()
    if ahead > 1:
        return (
            f"!the newest message is of {time_of(newest[0].timestamp)} UTC, {ahead:,.0f} seconds ahead of this "
            "machine's clock: correct the clock here, or on the machine that wrote it"
        )
    return f"the newest message is of {time_of(newest[0].timestamp)} UTC"


def _searches(backend: MemoryBackend) -> str:
    backend.search(_WORD, _SCOPE, limit=1)  # which also asks the embedder
    ranks = backend.capabilities
    how = "words and meaning" if ranks.hybrid else "meaning" if ranks.vector else "words"
    stored = backend.stored_embedder
    if stored is None or ranks.vector:
        return f"by {how}"
    return (
        f"by {how}; this store has vectors of {stored!r}, and is opened without an embedder: add ?embedder=… to its "
        "URL to search by meaning"
    )


def _writes(backend: MemoryBackend) -> str:
    stored = backend.add(Message(role=MessageRole.USER, content=_WORD, metadata=_SCOPE))
    found = backend.get_all(1, _SCOPE)
    backend.delete(_SCOPE["session_id"], _SCOPE["user_id"])
    if [each.id for each in found] != [stored.id]:
        return "!a message that was stored was not found: is this another store than the one that was written?"
    return "a message was stored, found and deleted"
