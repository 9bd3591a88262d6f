"""Which messages of a finished turn are saved."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from dynamiq_memory.conversation.calls import calls_of, is_question
from dynamiq_memory.messages import Message, MessageRole, check_message

if TYPE_CHECKING:
    from collections.abc import Iterable


class MemorySaveMode(StrEnum):
    """Which messages of a turn are saved.

    Attributes:
        FULL: All messages except system messages: input, tool calls, tool results and answers.
        INPUT_OUTPUT: The user's input and the final answer.
    """

    FULL = "full"
    INPUT_OUTPUT = "input_output"


def select_to_save(messages: Iterable[Message], mode: MemorySaveMode) -> list[Message]:
    """Select the messages that a save mode keeps.

    Args:
        messages: The messages of one or more turns, in order.
        mode: The save mode.

    Returns:
        The selected messages in order. If a turn ended without an answer, because the model or a tool failed, its
        input is still kept.

    Raises:
        MessageError: An item is not a `Message`.
    """
    messages = list(messages)
    for position, message in enumerate(messages):
        check_message(message, position)
    conversation = [message for message in messages if message.role is not MessageRole.SYSTEM]
    if mode is MemorySaveMode.FULL:
        return conversation
    selected: list[Message] = []
    answer: Message | None = None
    for message in conversation:
        if is_question(message):
            if answer is not None:
                selected.append(answer)
                answer = None
            selected.append(message)
        elif message.role is MessageRole.ASSISTANT:
            # Text that accompanies a tool call is not the final answer.
            answer = None if calls_of(message) else message
    if answer is not None:
        selected.append(answer)
    return selected
