"""Where recalled messages are placed. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum

from dynamiq_memory.conversation.calls import is_question
from dynamiq_memory.formatting import QUOTED
from dynamiq_memory.messages import Message


class Placement(StrEnum):
    """Where RELEVANT and BOTH place messages that were found by the query.

    Attributes:
        CHRONOLOGICAL: Among the others, as messages in the order of time.
        BEFORE_QUESTION: As one block of text in front of the last question, so that what comes before stays the same
            from prompt to prompt.
    """

    CHRONOLOGICAL = "chronological"
    BEFORE_QUESTION = "before_question"


def last_question(messages: Sequence[Message]) -> int | None:
    """Return the place of the last message that is a user's question; None if there is none."""
    return next((place for place in reversed(range(len(messages))) if is_question(messages[place])), None)


def with_block(question: Message, block: str) -> Message:
    """Copy a question with a block of text in front of its own content.

    What its framework keeps beside the canonical fields is left out, since it has the content without the block.
    """
    content = question.content
    longer = f"{block}\n\n{content}" if isinstance(content, str) else [{"type": "text", "text": block}, *content]
    return question.model_copy(update={"content": longer, "native": None})


def without_block(message: Message, block: re.Pattern[str] = QUOTED) -> Message:
    """Undo `with_block`, as far as a message that a framework gave back tells.

    Args:
        message: The message.
        block: The pattern of the block. Defaults to that of quoted messages.

    Returns:
        The message itself if it begins with no such block.
    """
    content = message.content
    text = content if isinstance(content, str) else (content or [{}])[0].get("text")
    found = block.match(text) if isinstance(text, str) else None
    if found is None or text is None:
        return message
    rest = text[found.end() :].removeprefix("\n\n")
    if isinstance(content, str):
        return message.model_copy(update={"content": rest})
    others = [{**content[0], "text": rest}, *content[1:]] if rest else content[1:]
    if len(others) == 1 and others[0].keys() == {"type", "text"}:
        return message.model_copy(update={"content": others[0]["text"]})
    return message.model_copy(update={"content": others})
