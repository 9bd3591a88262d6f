"""The order of messages and sessions."""

from __future__ import annotations

import secrets
import struct
import threading
import time
from collections.abc import Iterable, Iterator, Sequence

from dynamiq_memory._forks import WatchesForks
from dynamiq_memory.exceptions import BackendError
from dynamiq_memory.filters import Filter, parse
from dynamiq_memory.messages import (
    MESSAGE_ID_KEY,
    SESSION_KEY,
    USER_KEY,
    Message,
    Scope,
    Session,
    key_of,
    scope_of,
)

TIME_DIGITS = 16
_NANOSECOND_DIGITS = 16
_PROCESS_DIGITS = 6
ARRIVAL_DIGITS = _NANOSECOND_DIGITS + _PROCESS_DIGITS
_SIGN = 1 << 63
_ALL = (1 << 64) - 1
_ANY = Filter()


def time_digits(timestamp: float) -> str:
    """Write a time as 16 hexadecimal digits that sort like the numbers, including negative ones.

    The bits of a double sort like its value if the sign bit is inverted, or all bits for a negative number.
    """
    bits = struct.unpack(">Q", struct.pack(">d", timestamp + 0.0))[0]
    return f"{bits ^ _ALL if bits & _SIGN else bits | _SIGN:0{TIME_DIGITS}x}"


def time_of(key: str) -> float:
    """Read the time that a sort key begins with."""
    bits = int(key[:TIME_DIGITS], 16)
    value: float = struct.unpack(">d", struct.pack(">Q", bits ^ _SIGN if bits & _SIGN else bits ^ _ALL))[0]
    return value


class Arrivals(WatchesForks):
    """Numbers messages in the order in which they arrive.

    Numbers strictly increase within a process. Between processes, their clocks decide, to the nanosecond.

    Args:
        unit: Nanoseconds per number. Must be 1,000 for stores with doubles, which are exact up to 2**53.
    """

    def __init__(self, unit: int = 1) -> None:
        """Start at the current time."""
        self._unit = unit
        self._last = 0
        self._after_fork()

    def numbers(self, count: int) -> range:
        """Return `count` new numbers: units of time since 1970."""
        with self._lock:
            first = max(time.time_ns() // self._unit, self._last + 1)
            self._last = first + count - 1
        return range(first, first + count)

    def keys(self, count: int) -> list[str]:
        """Return `count` new sort keys of 22 hexadecimal digits. If the clocks agree, the process decides."""
        return [f"{number:0{_NANOSECOND_DIGITS}x}{self._process}" for number in self.numbers(count)]

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._process = f"{secrets.randbits(4 * _PROCESS_DIGITS):0{_PROCESS_DIGITS}x}"


def sessions_of(times: Iterable[tuple[Scope, float]]) -> list[Session]:
    """Group messages into sessions, most recently used first, then by user and session.

    Args:
        times: The scope and the timestamp of each message.
    """
    groups: dict[Scope, list[float]] = {}
    for scope, timestamp in times:
        groups.setdefault(scope, []).append(timestamp)
    return latest_first(Session(*scope, len(each), min(each), max(each)) for scope, each in groups.items())


def latest_first(sessions: Iterable[Session]) -> list[Session]:
    """Sort sessions, most recently used first, then by user and session."""
    return sorted(sessions, key=lambda each: (-each.last, each.user_id or "", each.session_id or ""))


def session_filter(message: Message, filter: Filter = _ANY) -> Filter:
    """Return the filter for a message's session, narrowed by another filter."""
    session = parse({USER_KEY: message.user_id, SESSION_KEY: message.session_id})
    return Filter(session.conditions + filter.conditions)


def version_filters(messages: Sequence[Message], filter: Filter = _ANY) -> Iterator[Filter]:
    """Yield one filter per session for the stored versions of messages, narrowed by another filter."""
    sessions: dict[Scope, list[str]] = {}
    for message in messages:
        sessions.setdefault(scope_of(message), []).append(message.id)
    for (user_id, session_id), ids in sessions.items():
        versions = parse({USER_KEY: user_id, SESSION_KEY: session_id, MESSAGE_ID_KEY: ids})
        yield Filter(versions.conditions + filter.conditions)


def with_stored_version(messages: Sequence[Message], stored: Iterable[Message]) -> list[Message]:
    """Return the messages that have a stored version."""
    keys = {key_of(message) for message in stored}
    return [message for message in messages if key_of(message) in keys]


def check_replaced_order(stored: Iterable[Message], messages: Sequence[Message]) -> None:
    """Check that a replacement keeps its order in a store where a new version keeps the old one's position.

    Args:
        stored: The stored versions of the new messages, in order.
        messages: The new messages.

    Raises:
        BackendError: It does not, because messages of equal times keep the order of their stored versions.
    """
    wanted = {key_of(message): message for message in messages}
    kept = [wanted[key] for key in map(key_of, stored) if key in wanted]
    placed = list({key_of(message): message for message in (*kept, *messages)})
    result = sorted(placed, key=lambda key: wanted[key].timestamp or 0.0)
    if result != sorted(wanted, key=lambda key: wanted[key].timestamp or 0.0):
        raise BackendError(
            "this store cannot change the order of messages with the same time: use different timestamps"
        )
