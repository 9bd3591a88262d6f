"""Times and filters that keep new messages after those that are stored."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from dynamiq_memory.filters import earlier_than
from dynamiq_memory.messages import Message, clock

__all__ = ["earlier_than", "move_after", "set_batch_times", "set_times_between"]


def set_batch_times(messages: Sequence[Message], after: Sequence[Message] = ()) -> None:
    """Set the times of messages that are stored as one batch so that no other message comes between them.

    A batch is stored at once, but ordered by its messages' times, and another thread may make a message in the
    meantime. (A message of another process may still fall within the same microsecond.)

    Args:
        messages: The messages, in order; their times are changed.
        after: The session's messages, or its last one: the batch is later, even if that one's clock is ahead.
    """
    latest = after[-1].timestamp if after else None
    times = clock.several(len(messages), -math.inf if latest is None else latest)
    for message, at in zip(messages, times, strict=True):
        message.timestamp = at


def move_after(messages: Sequence[Message], latest: Sequence[Message]) -> None:
    """Move messages after the last one of their session, if that one's time is ahead of the clock.

    Otherwise they keep their times: messages are ordered by when they were made, not by when they are stored.

    Args:
        messages: The messages, in order; their times may be changed.
        latest: The session's messages, or its last one; empty if it has none.
    """
    if latest and (latest[-1].timestamp or 0.0) > time.time():
        set_batch_times(messages, latest)


def set_times_between(messages: Sequence[Message], before: Message, after: Message) -> None:
    """Set the times of messages that belong directly after a stored one, though others have come since.

    Args:
        messages: The messages, in order; their times are changed.
        before: The stored message that they follow.
        after: The next stored message. Where no time is between, that of `before` is kept: the later arrival counts.
    """
    first, end = before.timestamp or 0.0, math.nextafter(after.timestamp or 0.0, -math.inf)
    at = first
    for message in messages:
        at = message.timestamp = max(first, min(math.nextafter(at, math.inf), end))
