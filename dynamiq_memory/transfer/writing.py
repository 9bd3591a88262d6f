"""Writing messages into a store in batches, without writing twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

from dynamiq_memory._batches import limited
from dynamiq_memory._checks import check_choice
from dynamiq_memory.backends.base import MemoryBackend
from dynamiq_memory.backends.operations import stored_versions
from dynamiq_memory.backends.plans import run
from dynamiq_memory.exceptions import InvalidArgumentError, MessageError, TransferError
from dynamiq_memory.messages import (
    SESSION_KEY,
    USER_KEY,
    Key,
    Message,
    Scope,
    check_identifier,
    key_of,
    prepare,
    scope_of,
    size_of,
)
from dynamiq_memory.transfer.lines import same
from dynamiq_memory.transfer.reading import BATCH, BATCH_BYTES


class OnConflict(StrEnum):
    """The treatment of a message that the target has with the same id and other content."""

    ERROR = "error"
    SKIP = "skip"
    REPLACE = "replace"


class OnError(StrEnum):
    """The treatment of a message that cannot be read, or that the target cannot store."""

    STOP = "stop"
    SKIP = "skip"


@dataclass(slots=True)
class Totals:
    """Numbers of messages.

    Attributes:
        expected: Those there are to read, if it is known before.
        read: Those that were read.
        written: Those that the target did not have.
        replaced: Those that the target had with other content, which was replaced.
        unchanged: Those that the target had as they are.
        kept: Those that the target had with other content, which was kept.
        skipped: Those that could not be read or stored.
    """

    expected: int | None = None
    read: int = 0
    written: int = 0
    replaced: int = 0
    unchanged: int = 0
    kept: int = 0
    skipped: int = 0


Progress = Callable[[Totals], object]
"""Is called after each batch."""
Report = Callable[[str], object]
"""Is called with the reason for each message that is skipped."""


class Located(NamedTuple):
    """A message to write, and where it is from for errors, such as "line 7"; "" if only its id says so."""

    message: Message
    location: str = ""


class Writer:
    """Writes messages into a store.

    Args:
        target: The store.
        on_conflict: Treatment of messages that the target has with other content.
        on_error: Treatment of messages that cannot be read or stored.
        dry_run: Whether to write nothing, and only count.
        progress: Is called after each batch.
        report: Is called with the reason for each message that is skipped.
        expected: Number of messages, if it is known.
    """

    def __init__(
        self,
        target: MemoryBackend,
        on_conflict: OnConflict | str,
        on_error: OnError | str,
        *,
        dry_run: bool = False,
        progress: Progress | None = None,
        report: Report | None = None,
        expected: int | None = None,
    ) -> None:
        """Check the settings."""
        self._target = target
        self._dry_run = dry_run
        self._on_conflict = check_choice(OnConflict, on_conflict, "on_conflict", InvalidArgumentError)
        self._on_error = check_choice(OnError, on_error, "on_error", InvalidArgumentError)
        self._store: Callable[[Sequence[Message]], object] = prepare if dry_run else target.add_many
        self._progress = progress
        self._report = report
        self._totals = Totals(expected)
        # The sessions that may have messages; None for all.
        self._used: set[Scope] | None = None

    def write(self, messages: Iterable[Located]) -> Totals:
        """Write messages, in order.

        Raises:
            TransferError: The target has a message with other content, or cannot store it.

        A note of the error, whatever it is, says how many messages were written before.
        """
        with suppress(InvalidArgumentError):  # a store that finds only named sessions cannot say
            self._used = set() if self._target.is_empty() else None
        try:
            for batch in limited(self._measured(messages), BATCH, BATCH_BYTES):
                self._write(batch)
                if self._progress is not None:
                    self._progress(replace(self._totals))
        except BaseException as error:
            if not self._dry_run:
                error.add_note(f"messages written before: {self._totals.written + self._totals.replaced:,}")
            raise
        return self._totals

    def refuse(self, location: str, error: MessageError) -> None:
        """Skip what cannot be read or stored, or stop.

        Raises:
            TransferError: This writer stops at errors.
        """
        reason = f"{location}: {error}" if location else str(error)
        if self._on_error is OnError.STOP:
            raise TransferError(reason) from error
        self._totals.skipped += 1
        if self._report is not None:
            self._report(reason)

    def _measured(self, messages: Iterable[Located]) -> Iterator[tuple[Located, int]]:
        """Return messages with their sizes, without those that cannot be looked up or written as JSON."""
        for each in messages:
            message = each.message
            try:
                for name in (USER_KEY, SESSION_KEY):
                    if message.metadata.get(name) is not None:
                        check_identifier(message.metadata[name], f"metadata[{name!r}]")
                size = size_of(message)
            except MessageError as error:
                self._totals.read += 1
                self.refuse(each.location or f"message {message.id}", error)
            else:
                yield each, size

    def _write(self, batch: Sequence[Located]) -> None:
        self._totals.read += len(batch)
        chosen = self._chosen(batch)
        try:
            self._store([each.message for each, _ in chosen])
        except MessageError:  # nothing was written: find the message
            for each, is_new in chosen:
                if self._stores(each):
                    self._count(is_new)
        else:
            for _, is_new in chosen:
                self._count(is_new)

    def _count(self, is_new: bool) -> None:
        self._totals.written += is_new
        self._totals.replaced += not is_new

    def _stores(self, each: Located) -> bool:
        """Store one message, or refuse it."""
        try:
            self._store([each.message])
        except MessageError as error:
            name = each.message.id
            self.refuse(each.location or f"message {name}" * (name not in str(error)), error)
            return False
        return True

    def _chosen(self, batch: Sequence[Located]) -> list[tuple[Located, bool]]:
        """Return the messages to store, each with whether the target does not have it."""
        stored = self._stored([each.message for each in batch])
        chosen = []
        for each in batch:
            key = key_of(each.message)
            present = stored.get(key)
            if present is not None and "timestamp" not in each.message.model_fields_set:
                each.message.timestamp = present.timestamp  # its first import gave it the time
            if present is not None and same(present, each.message):
                self._totals.unchanged += 1
            elif present is None or self._replaces(each):
                chosen.append((each, present is None))
                stored[key] = each.message
        return chosen

    def _replaces(self, each: Located) -> bool:
        """Return whether to replace a message that the target has with other content.

        Raises:
            TransferError: Neither to replace nor to keep it.
        """
        if self._on_conflict is OnConflict.ERROR:
            user_id, session_id, message_id = key_of(each.message)
            raise TransferError(
                f"{each.location}{': ' * bool(each.location)}message {message_id} of user_id={user_id!r}, "
                f"session_id={session_id!r} is in the target with other content: choose on_conflict='replace' for this "
                "one, or on_conflict='skip' to keep the other"
            )
        self._totals.kept += self._on_conflict is OnConflict.SKIP
        return self._on_conflict is OnConflict.REPLACE

    def _stored(self, messages: Sequence[Message]) -> dict[Key, Message]:
        """Read the versions that the target has of messages."""
        if self._used is not None:
            used, scopes = self._used, set(map(scope_of, messages))
            messages = [message for message in messages if scope_of(message) in used]
            used |= scopes
        return {key_of(each): each for each in run(stored_versions(messages), self._target.execute)}
