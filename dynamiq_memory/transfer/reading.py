"""Reading all messages of a store, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dynamiq_memory.backends.base import MemoryBackend
from dynamiq_memory.backends.operations import Read, ReadPage, Sessions
from dynamiq_memory.filters import Filter, parse
from dynamiq_memory.messages import SESSION_KEY, TIMESTAMP_KEY, USER_KEY, Message, Session

BATCH = 1000
"""Maximum number of messages that are read or written at once."""
BATCH_BYTES = 4 * 1024 * 1024
"""Size, in characters, at which a batch ends."""


def messages_of(source: MemoryBackend, sessions: Sequence[Session], filter: Filter) -> Iterator[Message]:
    """Read the messages of sessions, one session after the other, each in its order.

    Every store finds a session quickly, at any number of messages.

    Args:
        source: The store.
        sessions: The sessions, listed with the same filter.
        filter: Read only messages that match.
    """
    for session in sessions:
        scope = parse({USER_KEY: session.user_id, SESSION_KEY: session.session_id})
        within = Filter(scope.conditions + filter.conditions)
        if session.messages <= BATCH:
            page, more = source.execute(ReadPage(within, BATCH, BATCH_BYTES))
            if not more:
                yield from page
                continue
        yield from _pages(source, session, within)


def _pages(source: MemoryBackend, session: Session, within: Filter) -> Iterator[Message]:
    """Read a large session page by page."""
    # A page begins after a stored message, so the first one needs the first message.
    at_first = parse({TIMESTAMP_KEY: session.first})
    page, more = source.execute(Read(Filter(within.conditions + at_first.conditions))), True
    if not page:  # it has been deleted in the meantime
        yield from messages_of(source, source.execute(Sessions(within)), within)
        return
    yield from page
    while more:
        page, more = source.execute(ReadPage(within, BATCH, BATCH_BYTES, after=page[-1]))
        yield from page
