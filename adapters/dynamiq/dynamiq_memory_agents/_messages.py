"""Conversion between dynamiq's messages and ours.

A round of a dynamiq agent has one of two shapes. With function calling, it is an assistant's tool calls and their
results, as in our messages. In the other modes it is text: the assistant names the tool it wants, and the observation
comes as a user's message. Such a round is stored as a tool call and its result too, so that our retrieval and other
frameworks see one turn; `native` keeps dynamiq's own fields, and an agent reads back exactly those.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from dynamiq.prompts import Message as DynamiqMessage
from dynamiq.prompts import MessageRole as DynamiqRole

from dynamiq_memory import Message, MessageError, MessageRole
from dynamiq_memory.integrations.blocks import in_fields
from dynamiq_memory.integrations.interruptions import INTERRUPTED_KEY
from dynamiq_memory.integrations.messages import (
    MESSAGE_ID_KEY,
    SESSION_KEY,
    TIMESTAMP_KEY,
    USER_KEY,
    new_id,
    prepare,
)
from dynamiq_memory.integrations.native import pack, unpack

FRAMEWORK = "dynamiq"

logger = logging.getLogger(__name__)

# Errors of reading fields that have unexpected values.
_UNREADABLE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)

# The pseudo tool with which an agent that calls functions gives its answer.
_ANSWER_TOOL = "provide_final_answer"
_OBSERVATION = re.compile(r"\s*(Observation|Correction Instruction):")
_XML_ACTION = re.compile(r"<action>(.*?)</action>", re.DOTALL)
_XML_INPUT = re.compile(r"<action_input>(.*?)</action_input>", re.DOTALL)
_TEXT_ACTION = re.compile(r"Action:[ \t]*(\S[^\n]*)")
_TEXT_INPUT = re.compile(r"Action Input:(.*)", re.DOTALL)
# The tool of a round in which the agent could not parse the model's text.
_UNREAD_ACTION = "unknown"


def is_observation(message: DynamiqMessage) -> bool:
    """Whether a user's message is an agent's report of a round to its model, by its wording."""
    return message.role == DynamiqRole.USER and _OBSERVATION.match(message.content) is not None


def is_question(message: DynamiqMessage) -> bool:
    """Whether a message comes from the user, by its wording."""
    return message.role == DynamiqRole.USER and not is_observation(message)


def to_messages(messages: Sequence[DynamiqMessage], *, begun: bool = False) -> list[Message]:
    """Convert a part of a conversation to our messages.

    An agent's reports to its model, which are user's messages, belong to the turn: they are stored as a tool's result,
    or, if no tool has returned them (such as a summary), as a message of the assistant.

    Args:
        messages: Dynamiq's messages, in order; not changed.
        begun: Whether they continue a turn, so that the first is not the user's question whatever it looks like.

    Returns:
        One message for each, except for the agent's final answer: the call of its pseudo tool, and the acknowledgement,
        become the answer as text.
    """
    return [ours for _, ours in _pairs(messages, begun=begun)]


def to_stored(messages: Sequence[DynamiqMessage]) -> list[Message]:
    """Convert messages that have their scope, time and id in their metadata."""
    sessions: dict[tuple[Any, Any], list[DynamiqMessage]] = {}
    for message in messages:
        metadata = message.metadata or {}
        sessions.setdefault((metadata.get(USER_KEY), metadata.get(SESSION_KEY)), []).append(message)
    pairs = (pair for session in sessions.values() for pair in _pairs(session))
    return [_with_identity(ours, theirs.metadata or {}) for theirs, ours in pairs]


def from_messages(messages: Iterable[Message]) -> list[DynamiqMessage]:
    """Convert our messages to dynamiq's: as dynamiq wrote them, or by their canonical fields.

    Dynamiq's messages are text: images and files among the content parts are named in brackets. A message of others
    with results of tools becomes one for each.
    """
    return [_from_message(part) for parts in in_fields(messages, FRAMEWORK) for part in parts]


def _from_message(message: Message) -> DynamiqMessage:
    fields = _fields(message)
    native = unpack(FRAMEWORK, message)
    content = _text(message)
    if native is not None:
        try:
            restored = _message(content, message, {key: native[key] for key in fields})
            return _checked(restored, message)
        except _UNREADABLE as error:  # not written by this module
            logger.warning("the dynamiq fields of message %s cannot be read (%r)", message.id, error)
    return _message(content, message, fields)


def _checked(restored: DynamiqMessage, message: Message) -> DynamiqMessage:
    """Check that dynamiq's fields say what the canonical ones do: anyone who stores messages can store any `native`.

    Only the parts of a round that is text are stored in another form than dynamiq's: the request is an assistant's text
    that names the stored call, and the report a user's message, by its wording.

    Raises:
        ValueError: They do not.
    """
    own, stored = _fields(restored), _fields(message)
    text = {**stored, "tool_calls": None, "tool_call_id": None}
    if message.role is MessageRole.ASSISTANT and is_observation(restored):
        same = own == {**text, "role": MessageRole.USER.value} and not message.tool_calls
    elif message.role is MessageRole.TOOL and is_observation(restored):
        same = {**own, "name": None} == {**text, "name": None, "role": MessageRole.USER.value}
        same = same and own["name"] in (None, message.name)
    else:
        same = own == stored or (own == text and _called(message) == [_action_of(restored.content)])
    if not same:
        raise ValueError("they differ from the message")
    return restored


def _called(message: Message) -> list[tuple[Any, Any]]:
    functions = [call["function"] for call in message.tool_calls or ()]
    return [(function["name"], function["arguments"]) for function in functions]


def with_metadata(messages: Iterable[Message], metadata: Mapping[str, Any]) -> None:
    """Give messages the metadata of an agent's run.

    An agent only logs the errors of its memory, and the turn would be lost. So a value that cannot be stored is kept
    as its `repr`, and keys that have a meaning here get a prefix.
    """
    plain = {_free_key(key): value for key, value in metadata.items() if value is not None}
    try:
        prepare([Message(role=MessageRole.USER, metadata=dict(plain))])
    except MessageError as error:
        logger.warning(
            "metadata of a run of session %r cannot be stored as it is (%s)", metadata.get(SESSION_KEY), error
        )
        plain = {str(key): _storable(key, value) for key, value in plain.items()}
    for message in messages:
        message.metadata = dict(plain)


def with_stable_ids(messages: Sequence[Message]) -> None:
    """Give messages of a store without ids ids that are the same each time."""
    before: Counter[str] = Counter()
    for message in messages:
        metadata = message.metadata
        parts = [metadata.get(key) for key in (USER_KEY, SESSION_KEY, TIMESTAMP_KEY)]
        text = json.dumps([*parts, message.role.value, message.content, message.name], default=str)
        message.id = str(uuid5(NAMESPACE_OID, f"{text} {before[text]}"))
        before[text] += 1


def _pairs(messages: Sequence[DynamiqMessage], *, begun: bool = False) -> list[tuple[DynamiqMessage, Message]]:
    pairs: list[tuple[DynamiqMessage, Message]] = []
    answered: set[str] = set()
    for message in messages:
        if message.role == DynamiqRole.TOOL and message.tool_call_id in answered:
            continue
        answer = _final_answer(message)
        if answer is not None:
            answered = {str(call.get("id")) for call in message.tool_calls or ()}
            pairs.append((message, _plain(message.model_copy(update={"content": answer, "tool_calls": None}))))
            continue
        answered = set()
        if not is_observation(message) or not (pairs or begun):
            pairs.append((message, _plain(message)))
        elif pairs and pairs[-1][0].role == DynamiqRole.ASSISTANT and not pairs[-1][1].tool_calls:
            pairs.append((message, _plain(message)))
            _join(pairs[-2][1], pairs[-1][1])
        else:
            pairs.append((message, _aside(message)))
    return pairs


def _with_identity(message: Message, metadata: Mapping[str, Any]) -> Message:
    # The package stores None as the empty string.
    rest = {key: v for key, v in metadata.items() if v is not None and (v or key not in (USER_KEY, SESSION_KEY))}
    shown = rest.pop(MESSAGE_ID_KEY, None)
    if isinstance(shown, str) and shown:
        message.id = shown
    message.metadata = rest
    return message


def _aside(message: DynamiqMessage) -> Message:
    ours = _plain(message)
    ours.role = MessageRole.ASSISTANT
    ours.native = pack(FRAMEWORK, _fields(message), ours)
    return ours


def _plain(message: DynamiqMessage) -> Message:
    return Message(
        role=MessageRole(message.role.value),
        content=message.content,
        tool_calls=message.tool_calls or None,
        tool_call_id=message.tool_call_id,
        name=message.name,
    )


def _message(content: str, message: Message, fields: Mapping[str, Any]) -> DynamiqMessage:
    # Static: the text is not a template.
    return DynamiqMessage(content=content, metadata=dict(message.metadata), static=True, **fields)


def _fields(message: DynamiqMessage | Message) -> dict[str, Any]:
    return {
        "role": message.role.value,
        "tool_calls": message.tool_calls,
        "tool_call_id": message.tool_call_id,
        "name": message.name,
    }


def _text(message: Message) -> str:
    if isinstance(message.content, str):
        return message.content
    parts = [part["text"] if isinstance(part.get("text"), str) else _named(part) for part in message.content]
    return "\n".join(part for part in parts if part)


def _named(part: Mapping[str, Any]) -> str:
    kind = part.get("type")
    return "" if kind in ("reasoning", "thinking") else f"[{kind or 'attachment'}]"


def _join(request: Message, observation: Message) -> None:
    """Turn a round that is text into a tool call and its result."""
    request_fields, observation_fields = _fields(request), _fields(observation)
    name, arguments = _action_of(str(request.content))
    id_ = f"call_{new_id().replace('-', '')}"
    request.tool_calls = [{"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}]
    request.native = pack(FRAMEWORK, request_fields, request)
    observation.role, observation.tool_call_id, observation.name = MessageRole.TOOL, id_, name
    observation.native = pack(FRAMEWORK, observation_fields, observation)


def _action_of(text: str) -> tuple[str, str]:
    """The tool and the arguments that a model names in its text, as JSON, XML or lines."""
    try:
        parsed = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        parsed = None
    if isinstance(parsed, dict) and isinstance(parsed.get("action"), str):
        return parsed["action"], _arguments(parsed.get("action_input"))
    for action_pattern, input_pattern in ((_XML_ACTION, _XML_INPUT), (_TEXT_ACTION, _TEXT_INPUT)):
        action = action_pattern.search(text)
        if action is not None and action[1].strip():
            arguments = input_pattern.search(text)
            return action[1].strip(), _arguments(arguments[1] if arguments is not None else None)
    return _UNREAD_ACTION, "{}"


def _arguments(value: Any) -> str:
    if isinstance(value, str):
        text = re.sub(r"```(?:json)?", "", value, flags=re.IGNORECASE).strip()
        try:
            value, _ = json.JSONDecoder(strict=False).raw_decode(text)
        except (ValueError, RecursionError):
            value = text
    if value is None or value == "":
        return "{}"
    return json.dumps(value if isinstance(value, dict) else {"input": value}, ensure_ascii=False)


def _final_answer(message: DynamiqMessage) -> str | None:
    calls = message.tool_calls or []
    functions = [call.get("function") for call in calls if isinstance(call, dict)]
    if len(functions) != 1 or not isinstance(functions[0], dict) or functions[0].get("name") != _ANSWER_TOOL:
        return None
    arguments = functions[0].get("arguments")
    try:
        arguments = json.loads(arguments, strict=False) if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError):
        return None
    answer = arguments.get("answer") if isinstance(arguments, dict) else None
    if answer is None or isinstance(answer, str):
        return answer
    return json.dumps(answer, ensure_ascii=False)


def _free_key(key: Any) -> Any:
    return f"{FRAMEWORK}_{key}" if key in (TIMESTAMP_KEY, MESSAGE_ID_KEY, INTERRUPTED_KEY) else key


def _storable(key: Any, value: Any) -> Any:
    try:
        prepare([Message(role=MessageRole.USER, metadata={str(key): value})])
    except MessageError:
        return repr(value)
    return value
