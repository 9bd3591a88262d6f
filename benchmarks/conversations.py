"""Conversations with questions about them, and the messages that answer these, read from the files of public datasets.

Two formats are read: LoCoMo's, in which two people talk in turns, and a list of
`{"id", "msgs": [{"role", "text", "ts", "sess"}], "qs": [{"q", "gold", "before"}]}`, in which `gold` has the positions
of the messages that answer a question, and only the messages in front of `before` count (all of them with null).
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from dynamiq_memory import Message, MessageRole

# The evidence was written by hand: "D8:6; D9:17", "D:11:26", "D30:05".
_TURN_ID = re.compile(r"D:?(\d+):0*(\d+)")
# Messages of the same time stay in order.
_STEP = 1e-3


class Kind(StrEnum):
    """The format of a file."""

    LOCOMO = "locomo"
    CHATS = "chats"


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a conversation.

    Attributes:
        text: The question.
        gold: The ids of the messages that answer it.
        before: Only messages before this time count, POSIX seconds; None for all.
    """

    text: str
    gold: frozenset[str]
    before: float | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation of a user, and questions about it that at least one of its messages answers."""

    kind: Kind
    user_id: str
    messages: Sequence[Message]
    questions: Sequence[Question]


def read(path: Path) -> list[Conversation]:
    """Read the conversations of a file.

    Raises:
        SystemExit: It is in neither format.
    """
    samples = json.loads(path.read_text(encoding="utf-8"))
    try:
        found = [_locomo(sample) if "conversation" in sample else _chat(sample) for sample in samples]
    except (KeyError, TypeError, ValueError) as error:
        raise SystemExit(f"{path} is neither in LoCoMo's format nor a list of chats ({error!r})") from None
    if not any(conversation.questions for conversation in found):
        raise SystemExit(f"{path} has no question with an answering message")
    return found


def _locomo(sample: dict[str, Any]) -> Conversation:
    """Convert a conversation of LoCoMo, with the first speaker as the user and the other as the assistant."""
    user_id = sample["sample_id"]
    messages = {message.metadata["turn"]: message for message in _turns(user_id, sample["conversation"])}
    questions = []
    for entry in sample["qa"]:
        evidence = {f"D{s}:{t}" for text in entry.get("evidence", ()) for s, t in _TURN_ID.findall(text)}
        gold = frozenset(messages[turn].id for turn in evidence & set(messages))
        questions.append(Question(entry["question"], gold))
    return Conversation(Kind.LOCOMO, user_id, list(messages.values()), [each for each in questions if each.gold])


def _turns(user_id: str, conversation: dict[str, Any]) -> Iterator[Message]:
    numbers = [int(key.removeprefix("session_")) for key in conversation if re.fullmatch(r"session_\d+", key)]
    for number in sorted(numbers):
        written = conversation[f"session_{number}_date_time"]
        began = dt.datetime.strptime(written, "%I:%M %p on %d %B, %Y").replace(tzinfo=dt.UTC)
        for second, turn in enumerate(conversation[f"session_{number}"]):
            shared = f" [shares {turn['blip_caption']}]" if turn.get("blip_caption") else ""
            spoken_first = turn["speaker"] == conversation["speaker_a"]
            yield Message(
                role=MessageRole.USER if spoken_first else MessageRole.ASSISTANT,
                content=f"{turn['speaker']}: {turn['text']}{shared}",
                id=f"{user_id}-{turn['dia_id']}",
                timestamp=began.timestamp() + second,
                # All conversations use the same session names, so that a leak between users would be visible.
                metadata={"user_id": user_id, "session_id": f"session_{number}", "turn": turn["dia_id"]},
            )


def _chat(sample: dict[str, Any]) -> Conversation:
    user_id = str(sample["id"])
    messages = [
        Message(
            role=MessageRole(each["role"]),
            content=each["text"],
            id=f"{user_id}-{number}",
            timestamp=each["ts"] + number * _STEP,
            metadata={"user_id": user_id, "session_id": each["sess"]},
        )
        for number, each in enumerate(sample["msgs"])
    ]
    questions = [
        Question(
            each["q"],
            frozenset(messages[place].id for place in each["gold"]),
            None if each.get("before") is None else messages[each["before"]].timestamp,
        )
        for each in sample["qs"]
        if each["gold"]
    ]
    return Conversation(Kind.CHATS, user_id, messages, questions)
