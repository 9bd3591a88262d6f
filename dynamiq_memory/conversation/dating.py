"""When questions were asked, said in front of them. Pure functions.

"Last week I was at the dentist" can only be understood with its date, which no message contains.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from dynamiq_memory.conversation.calls import is_question, results_of
from dynamiq_memory.conversation.placement import with_block, without_block
from dynamiq_memory.conversation.tokens import sent_content
from dynamiq_memory.messages import SESSION_KEY, Message
from dynamiq_memory.ranking.dates import date_of

# Not those of the locale.
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Dates(StrEnum):
    """Whether an agent is told when the questions that it is given were asked.

    Attributes:
        OFF: Messages are given as they are stored.
        TURNS: The first question of each day, and of each session where there may be several, begins with a line
            such as `[12 Mar 2024, session "kitchen"]`.
    """

    OFF = "off"
    TURNS = "turns"


@dataclass(frozen=True, slots=True)
class Dating:
    """Adds dates to questions.

    Attributes:
        zone: The time zone of the dates.
        names_sessions: Whether sessions are named.
    """

    zone: dt.tzinfo
    names_sessions: bool = False

    def dated(self, messages: Sequence[Message]) -> list[Message]:
        """Add a date to the first question of each day and session."""
        result: list[Message] = []
        last = ""
        for message in messages:
            label = self.label(message)
            result.append(with_block(message, label) if label and label != last else message)
            last = label or last
        return result

    def longest(self, message: Message) -> Message:
        """Return a message as `dated` returns it at most, to count its tokens."""
        return self.dated([message])[0]

    def label(self, message: Message) -> str:
        """Return the date of a question; empty for other messages.

        Results have none, since providers expect them to come first, and what only a framework can send is left alone.
        """
        date = date_of(message.timestamp or 0.0, self.zone)
        sent = sent_content(message) is message.content
        if date is None or not sent or not is_question(message) or results_of(message):
            return ""
        label = f"{date.day} {_MONTHS[date.month - 1]} {date.year}"
        if self.names_sessions and message.session_id is not None:
            # In JSON, no line break or quotation mark of an id ends the label.
            label += f", session {json.dumps(message.session_id, ensure_ascii=not message.session_id.isprintable())}"
        return f"[{label}]"


def dating_for(dates: Dates, zone: dt.tzinfo, filters: Mapping[str, Any]) -> Dating | None:
    """Return how the questions that match filters are dated; None if they are not."""
    if dates is Dates.OFF:
        return None
    return Dating(zone, names_sessions=not isinstance(filters.get(SESSION_KEY), str))


def as_stored(message: Message, labels: Collection[str]) -> Message:
    """Return a message that a framework gives back without a block of recalled messages and a date in front of it.

    Args:
        message: The message.
        labels: The dates of stored messages, each a result of `Dating.label`. Any other text is the user's own.
    """
    plain = without_block(message)
    if not labels:
        return plain
    return without_block(plain, re.compile(rf"(?:{'|'.join(map(re.escape, labels))})(?=\n\n|\Z)"))
