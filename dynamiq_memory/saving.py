"""Which messages of a finished turn an agent keeps."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from dynamiq_memory.messages import Message, MessageRole, check_message

if TYPE_CHECKING:
    from collections.abc import Iterable


class MemorySaveMode(StrEnum):
    """Which messages of a turn are kept.

    Attributes:
        FULL: Every message but the system's: input, tool calls, results, answers.
        INPUT_OUTPUT: The user's input and the final answer.
    """

    FULL = "full"
    INPUT_OUTPUT = "input_output"


def select_to_save(messages: Iterable[Message], mode: MemorySaveMode) -> list[Message]:
    """Choose what a save mode keeps.

    Args:
        messages: The messages of one or more turns, in order.
        mode: The save mode.

    Returns:
        The chosen messages in order. A turn that ended without an answer, because the model or a tool failed,
        keeps its input.

    Raises:
        MessageError: One of them is no `Message`.
    """
    given = list(messages)
    for position, message in enumerate(given):
        check_message(message, position)
    spoken = [message for message in given if message.role is not MessageRole.SYSTEM]
    if mode is MemorySaveMode.FULL:
        return spoken
    kept: list[Message] = []
    answer: Message | None = None
    for message in spoken:
        if message.role is MessageRole.USER:
            if answer is not None:
                kept.append(answer)
                answer = None
            kept.append(message)
        elif message.role is MessageRole.ASSISTANT:
            # What an assistant says along with a tool call is not its answer.
            answer = None if message.tool_calls else message
    if answer is not None:
        kept.append(answer)
    return kept
