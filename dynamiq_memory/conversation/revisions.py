"""Superseded messages: those that an edit, another answer or an undo replaced.

They stay stored, with the time of the replacement in their metadata. They are found by search, but are not given to
agents as if they had been said in the conversation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dynamiq_memory.backends.operations import Read, Update
from dynamiq_memory.backends.plans import Plan
from dynamiq_memory.exceptions import InvalidArgumentError
from dynamiq_memory.filters import parse
from dynamiq_memory.messages import (
    MESSAGE_ID_KEY,
    SESSION_KEY,
    SUPERSEDED_KEY,
    USER_KEY,
    Message,
    check_identifier,
    clock,
    prepare,
)


def current(messages: Iterable[Message]) -> list[Message]:
    """Return the messages that are not superseded."""
    return [each for each in messages if SUPERSEDED_KEY not in each.metadata or each.superseded_at is None]


def marked(messages: Iterable[Message], at: float | None) -> list[Message]:
    """Copy messages with another mark.

    Args:
        messages: Stored messages; not changed.
        at: When they were superseded; None if they are current again.
    """
    copies = []
    for message in messages:
        metadata = {key: value for key, value in message.metadata.items() if key != SUPERSEDED_KEY}
        if at is not None:
            metadata[SUPERSEDED_KEY] = at
        copies.append(message.model_copy(update={"metadata": metadata}))
    return copies


def supersede(filters: Mapping[str, Any], message_id: object) -> Plan[list[Message]]:
    """Mark a message and all that follow it in its session.

    Args:
        filters: The messages among which it is.
        message_id: Its id.

    Returns:
        The messages that were current before, oldest first.
    """
    first = yield from _find(filters, message_id)
    session = {USER_KEY: first.user_id, SESSION_KEY: first.session_id}
    following = yield from Read(parse({**filters, **session}), after=first)
    return (yield from _mark(current([first, *following]), clock()))


def restore(filters: Mapping[str, Any], message_id: object) -> Plan[list[Message]]:
    """Take back a `supersede`: make a message and all that were superseded together with it current.

    Args:
        filters: The messages among which it is.
        message_id: Its id.

    Returns:
        The messages that were superseded before, oldest first.
    """
    one = yield from _find(filters, message_id)
    if one.superseded_at is None:
        return []
    together = {USER_KEY: one.user_id, SESSION_KEY: one.session_id, SUPERSEDED_KEY: one.superseded_at}
    return (yield from _mark((yield from Read(parse({**filters, **together}))), None))


def _find(filters: Mapping[str, Any], message_id: object) -> Plan[Message]:
    if isinstance(message_id, Message):
        raise InvalidArgumentError("message_id must be the id of a message, not the message: use message.id")
    id_ = check_identifier(message_id, "message_id")
    found = yield from Read(parse({**filters, MESSAGE_ID_KEY: id_}), 2)
    if len(found) != 1:
        several = "several messages have" if found else "no message has"
        raise InvalidArgumentError(
            f"{several} the id {message_id!r} here: give filters with its user_id and session_id, and the id as "
            "get_all returns it"
        )
    return found[0]


def _mark(messages: Sequence[Message], at: float | None) -> Plan[list[Message]]:
    if not messages:
        return []
    return (yield from Update(parse(None), prepare(marked(messages, at))))
