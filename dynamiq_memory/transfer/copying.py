"""Copying one store into another, and comparing two stores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from dynamiq_memory.backends.base import MemoryBackend
from dynamiq_memory.exceptions import ConfigurationError
from dynamiq_memory.filters import parse
from dynamiq_memory.messages import Message, Session
from dynamiq_memory.transfer.lines import first_difference, same
from dynamiq_memory.transfer.reading import messages_of
from dynamiq_memory.transfer.writing import Located, OnConflict, OnError, Progress, Report, Totals, Writer

_First = tuple[str | None, str | None]
"""The id and the field of the first difference, as `Difference` has them."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A session that is not the same in two stores.

    Attributes:
        user_id: The user it belongs to, or None.
        session_id: Its id, or None for messages without one.
        in_source: Number of its messages in the source.
        in_target: Number of its messages in the target.
        message_id: The first message that the target does not have at this place, as it is in the source; None if only
            the target has more messages.
        field: The first field of this message in which the target's differs, such as "content"; None if the target has
            another message there, or none.
    """

    user_id: str | None
    session_id: str | None
    in_source: int
    in_target: int
    message_id: str | None
    field: str | None = None


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of comparing two stores.

    Attributes:
        sessions: Number of sessions that were compared.
        messages: Number of messages of the source.
        differences: The sessions that differ.
    """

    sessions: int
    messages: int
    differences: tuple[Difference, ...]

    @property
    def identical(self) -> bool:
        """Whether each session of the source is the same in the target."""
        return not self.differences


def copy(
    source: MemoryBackend,
    target: MemoryBackend,
    *,
    filters: Mapping[str, Any] | None = None,
    on_conflict: OnConflict | str = OnConflict.ERROR,
    on_error: OnError | str = OnError.STOP,
    dry_run: bool = False,
    progress: Progress | None = None,
    report: Report | None = None,
) -> Totals:
    """Copy messages into another store, with their ids, times and order.

    Messages that the target has already are not written again. So a copy that was interrupted goes on when it is made
    again, and a second copy brings messages added since. A target with an embedder embeds all that it is given, so
    this is also the way to another embedder. Memory grows with the number of sessions, not of messages; a store that
    does not list its sessions itself reads all messages for it.

    Args:
        source: The store to read. Messages that others add to a session while it is read are copied or not.
        target: The store to write.
        filters: Copy only messages that match, such as `{"user_id": "u-1", "timestamp": {"gte": 1.7e9}}`.
        on_conflict: For a message that the target has with the same id and other content: "error" stops, "skip" keeps
            the target's, "replace" writes that of the source.
        on_error: For a message that the target cannot store: "stop", or "skip".
        dry_run: Whether to write nothing, and count what would be written.
        progress: Is called after each batch, with the numbers so far.
        report: Is called with the reason for each message that is skipped.

    Returns:
        The numbers of messages.

    Raises:
        TransferError: A message is in the target with other content, or cannot be stored. Messages copied before stay.
        ConfigurationError: Both are the same store.
        FilterError: The filter is malformed.
        BackendError: A store failed. Messages copied before stay.
    """
    _check_different(source, target)
    filter = parse(filters)
    sessions = _oldest_first(source.sessions(filters))
    expected = sum(session.messages for session in sessions)
    writer = Writer(target, on_conflict, on_error, dry_run=dry_run, progress=progress, report=report, expected=expected)
    return writer.write(Located(message) for message in messages_of(source, sessions, filter))


def verify(
    source: MemoryBackend,
    target: MemoryBackend,
    *,
    filters: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Compare each session of a store with that of another: the number of messages, their order, and every field.

    Sessions that only the target has are not looked at; to find them, verify in the other direction.

    Args:
        source: The store with the sessions.
        target: The other store.
        filters: Compare only messages that match.
        progress: Is called after each session, with the number of messages read so far.

    Raises:
        ConfigurationError: Both are the same store.
        FilterError: The filter is malformed.
        BackendError: A store failed.
    """
    _check_different(source, target)
    filter = parse(filters)
    sessions = _oldest_first(source.sessions(filters))
    totals = Totals(sum(session.messages for session in sessions))
    differences = []
    for session in sessions:
        pair = (messages_of(store, [session], filter) for store in (source, target))
        in_source, in_target, differing = _compared(*pair)
        totals.read += in_source
        if progress is not None:
            progress(totals)
        if differing:
            names = (session.user_id, session.session_id)
            differences.append(Difference(*names, in_source, in_target, *differing[0]))
    return Verification(len(sessions), totals.read, tuple(differences))


def _compared(source: Iterator[Message], target: Iterator[Message]) -> tuple[int, int, list[_First]]:
    """Count the messages of both, and find the first that differs, if there is one."""
    in_source = in_target = 0
    differing: list[_First] = []
    for one, other in zip_longest(source, target):
        in_source += one is not None
        in_target += other is not None
        if not differing and (one is None or other is None or not same(one, other)):
            differing.append((None if one is None else one.id, _first_field(one, other)))
    return in_source, in_target, differing


def _first_field(one: Message | None, other: Message | None) -> str | None:
    if one is None or other is None or one.id != other.id:
        return None
    return first_difference(one, other)


def _oldest_first(sessions: list[Session]) -> list[Session]:
    return sessions[::-1]


def _check_different(source: MemoryBackend, target: MemoryBackend) -> None:
    url = source.to_url()
    if source is target or (url is not None and url == target.to_url()):
        raise ConfigurationError("source and target are the same store: give the target another name or file")
