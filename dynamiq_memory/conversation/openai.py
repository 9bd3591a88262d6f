"""A conversation in the format of OpenAI's chat API, which compatible servers take too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from dynamiq_memory._openai import chat_calls
from dynamiq_memory.conversation.calls import calls_without_ids, made_id, split_results, without_calls
from dynamiq_memory.conversation.turns import pair_results
from dynamiq_memory.exceptions import InvalidArgumentError
from dynamiq_memory.messages import Message, check_message


def to_openai(messages: Iterable[Message], *, strict: bool = False) -> list[dict[str, Any]]:
    """Convert a conversation to the format of OpenAI's chat API and compatible servers.

    Each message is converted as by `Message.to_openai`. Besides, a user's message with results of tools becomes a
    `tool` message for each of them, followed by what the user says; calls in several messages directly after each other
    become one message; calls without an id, or with one that is not unique within their message, get ids that depend on
    their message only, and so do their results. A message of which nothing is left is left out, as is whether a result
    is an error, for which the API has no field.

    Args:
        messages: The messages of one session, in order, such as those of `Memory.get_agent_conversation`.
        strict: Whether to refuse content parts that have no equivalent, rather than leave them out.

    Raises:
        InvalidArgumentError: It is not a list of messages.
        MessageError: With `strict`, a message has such a part, which the error names. Or an item is not a `Message`.
    """
    given: object = messages
    if isinstance(given, Message | str) or not isinstance(given, Iterable):
        raise InvalidArgumentError("messages must be a list of Message; for a single one, use message.to_openai()")
    messages = list(messages)
    for position, message in enumerate(messages):
        check_message(message, position)
    parts = [part for message in messages for part in split_results(message)]
    converted = (part.to_openai(strict=strict) for part in _with_ids(parts))
    return _joined(part for part in converted if part["role"] == "tool" or part["content"] or "tool_calls" in part)


def _with_ids(messages: list[Message]) -> list[Message]:
    """Give ids to calls that have none of their own, and the same ids to their results."""
    nameless = {place: numbers for place, message in enumerate(messages) if (numbers := calls_without_ids(message))}
    if not nameless:
        return messages
    result = list(messages)
    for place, numbers in nameless.items():
        message = messages[place]
        calls = chat_calls(message.tool_calls, message.content)
        named = [{**call, "id": made_id(message, n)} if n in numbers else call for n, call in enumerate(calls)]
        result[place] = without_calls(message).model_copy(update={"tool_calls": named})
    for place, (calling, number) in pair_results(messages).items():
        if number in nameless.get(calling, ()):
            result[place] = messages[place].model_copy(update={"tool_call_id": made_id(messages[calling], number)})
    return result


def _joined(messages: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join messages with calls that come directly after each other: the API wants the results directly after each."""
    joined: list[dict[str, Any]] = []
    for message in messages:
        last = joined[-1] if joined else {}
        if "tool_calls" in message and "tool_calls" in last:
            content = _content(last["content"], message["content"])
            joined[-1] = {**last, "content": content, "tool_calls": [*last["tool_calls"], *message["tool_calls"]]}
        else:
            joined.append(message)
    return joined


def _content(*contents: str | Sequence[dict[str, Any]]) -> str | list[dict[str, Any]]:
    said = [content for content in contents if content]
    if len(said) < 2:
        return said[0] if said else ""  # type: ignore[return-value]
    parts = ([{"type": "text", "text": content}] if isinstance(content, str) else content for content in said)
    return [part for content in parts for part in content]
