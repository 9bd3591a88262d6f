"""What is stored: one message of a conversation, in a shape that every framework can read."""

from __future__ import annotations

import datetime as dt
import math
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from dynamiq_memory._ids import new_id
from dynamiq_memory._json import copy_plain, dumps, is_clean, loads, normalise
from dynamiq_memory.exceptions import MessageError

# Keys that `metadata` shows when a message is read back. They are views of `timestamp` and `id`, never stored
# a second time.
TIMESTAMP_KEY = "timestamp"
MESSAGE_ID_KEY = "message_id"
USER_KEY = "user_id"
SESSION_KEY = "session_id"

# The end of the year 9999, the last that datetime knows.
LATEST = 253_402_300_799.0
# Batches that are put behind a time ahead of the clock, within so many seconds of it, must not get the same times.
_SAME_SKEW = 1e-3
_TEXT_PARTS = ("text", "input_text", "output_text")


class MessageRole(StrEnum):
    """Who speaks."""

    USER = "user"
    SYSTEM = "system"
    ASSISTANT = "assistant"
    TOOL = "tool"


class _Clock:
    """POSIX seconds that never repeat within a process, even when the system's clock stands or steps back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0.0
        self._ahead = 0.0

    def __call__(self) -> float:
        with self._lock:
            self._last = self._next()
            return self._last

    def several(self, count: int, behind: float) -> list[float]:
        """Give as many times, following each other so closely that no other of this process falls in between.

        Args:
            count: How many.
            behind: A time that they are later than, even if it lies ahead of the clock.
        """
        with self._lock:
            start = self._next()
            ahead = behind >= start
            last = behind if ahead else math.nextafter(start, -math.inf)
            if ahead and behind <= self._ahead < behind + _SAME_SKEW:
                last = self._ahead  # another batch behind the same message
            times = [last := min(LATEST, math.nextafter(last, math.inf)) for _ in range(count)]
            if times and ahead:
                self._ahead = times[-1]
            elif times:
                self._last = times[-1]
            return times

    def _next(self) -> float:
        return max(time.time(), math.nextafter(self._last, math.inf))

    def renew_lock(self) -> None:
        self._lock = threading.Lock()


clock = _Clock()


def _none_as_empty(content: Any) -> Any:
    return "" if content is None else content


class Message(BaseModel):
    """One message of a conversation.

    Attributes:
        role: Who speaks.
        content: A string, or a list of content parts in OpenAI's shape (dicts with a `type`). None, as OpenAI
            has it beside tool calls, is stored as the empty string.
        id: Unique within its user and session; a time-ordered UUIDv7 unless given. Adding a message whose id is
            in the session already replaces that message, so a retry cannot double it.
        timestamp: POSIX seconds, UTC; by default the time at which the object was made, strictly increasing within
            a process.
        metadata: JSON values by string keys; `user_id` and `session_id` (strings) are its scope. As read back it
            also shows `timestamp` and `message_id`.
        tool_calls: The calls that an assistant's message makes, in OpenAI's shape.
        tool_call_id: On a tool's message, the id of the call that it answers.
        name: The name of the tool or of the speaker.
        native: The dump of the framework that wrote the message, kept beside the fields above as opaque JSON so
            that the same framework reads back exactly what it wrote.
        score: On a search's result, its relevance: higher is better, comparable only within that result.
    """

    model_config = ConfigDict(extra="forbid")

    role: MessageRole
    content: Annotated[str | list[dict[str, Any]], BeforeValidator(_none_as_empty)] = ""
    id: str = Field(default_factory=new_id)
    timestamp: float | None = Field(default_factory=clock)
    metadata: dict[str, Any] = Field(default_factory=dict)
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    native: dict[str, Any] | None = None
    score: float | None = None

    @property
    def user_id(self) -> str | None:
        """The user whom the message belongs to."""
        return self.metadata.get(USER_KEY)

    @property
    def session_id(self) -> str | None:
        """The session that the message belongs to."""
        return self.metadata.get(SESSION_KEY)

    def to_openai(self) -> dict[str, Any]:
        """Return the message as the chat APIs of OpenAI and compatible servers take it."""
        fields = {"tool_calls": self.tool_calls or None, "tool_call_id": self.tool_call_id, "name": self.name}
        content = copy_plain(self.content)
        present = {name: copy_plain(value) for name, value in fields.items() if value is not None}
        return {"role": self.role.value, "content": content, **present}

    def to_json(self) -> str:
        """Write the message as JSON text that is valid UTF-8 and keeps all that metadata may hold."""
        return dumps({**self.__dict__, "role": self.role.value})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        return cls.model_validate(loads(text))

    @property
    def text(self) -> str:
        """The text of the content: the string itself, or its text parts joined by line breaks."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(
            part["text"]
            for part in self.content
            if part.get("type") in _TEXT_PARTS and isinstance(part.get("text"), str)
        )


MESSAGES: TypeAdapter[list[Message]] = TypeAdapter(list[Message])

Scope = tuple[str | None, str | None]
"""A conversation's identity within a store: user_id and session_id."""
Key = tuple[str | None, str | None, str]
"""A message's identity within a store: user_id, session_id and id."""


@dataclass(frozen=True, slots=True)
class Session:
    """A conversation in a store.

    Attributes:
        user_id: The user it belongs to, or None.
        session_id: Its id, or None for messages without one.
        messages: The number of its messages.
        first: Timestamp of its first message, POSIX seconds.
        last: Timestamp of its last message, POSIX seconds.
    """

    user_id: str | None
    session_id: str | None
    messages: int
    first: float
    last: float


def scope_of(message: Message) -> Scope:
    """Return the identity of the conversation that a message belongs to."""
    metadata = message.metadata
    return (metadata.get(USER_KEY), metadata.get(SESSION_KEY))


def key_of(message: Message) -> Key:
    """Return the message's identity within a store."""
    metadata = message.metadata
    return (metadata.get(USER_KEY), metadata.get(SESSION_KEY), message.id)


def prepare(
    messages: Sequence[Message], scope: Mapping[str, str] | None = None, place: float | None = None
) -> list[Message]:
    """Check messages and copy them into the form that is stored.

    Args:
        messages: What the caller gave; left as it is.
        scope: `user_id` and `session_id` for the messages that carry none.
        place: The time at which messages without one of their own are to stand, or None for where they are.

    Returns:
        Independent copies: values normalised, timestamp set, the views taken out of `metadata`. Of several
        messages with one id in one session, the last stands, at the place of the first. The times of messages
        to which the caller gave none are moved as far as the order of the batch demands.

    Raises:
        MessageError: A message cannot be stored as it is given.
    """
    fields = [_prepared_fields(message, position, scope or {}) for position, message in enumerate(messages)]
    free = [values["timestamp"] is None for values in fields]
    for message, values in zip(messages, fields, strict=True):
        if values["timestamp"] is None:
            values["timestamp"] = message.timestamp if message.timestamp is not None else clock()
    try:
        copies = MESSAGES.validate_python(fields)
    except ValidationError as error:  # a field was set to something else after the message was made
        raise refusal(error) from None
    _keep_order(copies, free, place)
    unique = {(copy.user_id, copy.session_id, copy.id): copy for copy in copies}
    return list(unique.values())


def _keep_order(batch: Sequence[Message], free: Sequence[bool], place: float | None) -> None:
    """Move the times of messages to which the caller gave none so that the batch keeps its order."""
    last: dict[tuple[str | None, str | None], float] = {}
    for message, movable in zip(batch, free, strict=True):
        session = (message.user_id, message.session_id)
        time_of = message.timestamp or 0.0
        if movable:
            time_of = message.timestamp = max(time_of, math.nextafter(last.get(session, -math.inf), math.inf))
        last[session] = max(time_of, last.get(session, -math.inf))
    # The latest of the given times before each message.
    given = list(
        accumulate(
            (-math.inf if movable else message.timestamp or 0.0 for message, movable in zip(batch, free, strict=True)),
            max,
            initial=-math.inf,
        )
    )
    behind: dict[tuple[str | None, str | None], float] = {}
    for number in reversed(range(len(batch))):
        message, session = batch[number], (batch[number].user_id, batch[number].session_id)
        bound = behind.get(session, math.inf if place is None else math.nextafter(place, math.inf))
        if free[number] and (message.timestamp or 0.0) >= bound:
            # Before what stands behind it; between two equal times there is no room: then arrival decides.
            earlier = math.nextafter(bound, -math.inf)
            message.timestamp = bound if given[number] >= earlier else earlier
        behind[session] = min(bound, message.timestamp or 0.0)


def _prepared_fields(message: Message, position: int, scope: Mapping[str, str]) -> dict[str, Any]:
    check_message(message, position)
    metadata = normalise(message.metadata, "metadata")
    if not isinstance(metadata, dict):
        raise MessageError(f"metadata must be a dict, not {metadata!r}")
    given_time = metadata.pop(TIMESTAMP_KEY, None)
    # A dict that also shows message_id was read back from a store: its time belongs to that other message.
    shown_id = metadata.pop(MESSAGE_ID_KEY, None)
    if shown_id is not None:
        if given_time is None and shown_id != message.id:
            raise MessageError(
                "metadata['message_id'] shows the id of a stored message and sets none: give Message(id=…), or use "
                "another key"
            )
        given_time = None
    for key, value in scope.items():
        if metadata.get(key) is None:
            metadata[key] = value
    for key in (USER_KEY, SESSION_KEY):
        if metadata.get(key) is None:
            metadata.pop(key, None)
        else:
            check_identifier(metadata[key], f"metadata[{key!r}]")
    check_identifier(message.id, "id")
    timestamp = message.timestamp if "timestamp" in message.model_fields_set else None
    if timestamp is None:
        timestamp = parse_timestamp(given_time)
    if timestamp is not None and not (isinstance(timestamp, int | float) and abs(timestamp) <= LATEST):
        raise MessageError(
            f"timestamp is {timestamp!r}: give POSIX seconds (not milliseconds) up to the year 9999, or None for the "
            "present time"
        )
    return {
        "id": message.id,
        "role": message.role,
        "content": normalise(message.content, "content"),
        "timestamp": timestamp,
        "metadata": metadata,
        "tool_calls": normalise(message.tool_calls, "tool_calls"),
        "tool_call_id": normalise(message.tool_call_id, "tool_call_id"),
        "name": normalise(message.name, "name"),
        "native": normalise(message.native, "native"),
    }


def check_message(message: object, position: int) -> None:
    """Check that what was given as a message is one.

    Raises:
        MessageError: It is something else.
    """
    if not isinstance(message, Message):
        raise MessageError(
            f"messages[{position}] is a {type(message).__name__}, not a dynamiq_memory.Message: "
            "build one with Message(role=…, content=…)"
        )
    if type(message).model_fields.keys() != Message.model_fields.keys():
        raise MessageError(
            f"messages[{position}] is a {type(message).__name__} with fields that would not be stored: put them into "
            "its metadata or native"
        )


def refusal(error: ValidationError) -> MessageError:
    """Say in our words what is wrong with a message's fields."""
    first = error.errors(include_url=False)[0]
    field = next((part for part in first["loc"] if isinstance(part, str)), "message")
    if field == "role":
        return MessageError(f"role {first['input']!r} is unknown: use one of {', '.join(MessageRole)}")
    return MessageError(f"{field} is wrong: {first['msg']}, not {first['input']!r:.100}")


def check_identifier(value: object, where: str) -> str:
    """Check a user_id, session_id or message id.

    Args:
        value: What the caller gave.
        where: What it is, for the error's text.

    Raises:
        MessageError: It is no string, is empty, or holds what a store's key cannot hold.
    """
    if not isinstance(value, str):
        raise MessageError(f"{where} must be a string, not {value!r} of type {type(value).__name__}: use str(…)")
    if not value:
        raise MessageError(f"{where} must not be empty (was a variable not set?)")
    if not is_clean(value):
        raise MessageError(f"{where} must not hold NUL or lone surrogates: {value!r}")
    return value


def parse_timestamp(value: Any) -> float | None:
    """Read the time that a caller put under `metadata["timestamp"]`, as the dynamiq package allows."""
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            try:
                value = dt.datetime.fromisoformat(value)
            except ValueError:
                value = None
    if isinstance(value, dt.datetime) and value.tzinfo is not None:
        return value.timestamp()
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise MessageError(
        "metadata['timestamp'] sets the time of the message: give POSIX seconds, or an ISO 8601 text or a "
        "datetime with a time zone; use another key for anything else"
    )


def views(stored: Iterable[Message]) -> list[Message]:
    """Copy stored messages for a caller, who may change them.

    Args:
        stored: Prepared messages.

    Returns:
        Independent copies, with `timestamp` and `message_id` shown in their metadata.
    """
    # Validating plain dicts all at once takes a third of the time of copying the models.
    return MESSAGES.validate_python([_fields(message) for message in stored])


def _fields(message: Message) -> dict[str, Any]:
    fields = dict(message.__dict__)
    shown = {TIMESTAMP_KEY: message.timestamp, MESSAGE_ID_KEY: message.id}
    fields["metadata"] = copy_plain(message.metadata) | shown
    for name in ("content", "tool_calls", "native"):
        if not isinstance(fields[name], str | None):
            fields[name] = copy_plain(fields[name])
    return fields


def size_of(message: Message) -> int:
    """The bytes of a prepared message: its text in UTF-8, its other values as JSON."""
    rest = [message.metadata, message.tool_calls, message.tool_call_id, message.name, message.native]
    if isinstance(message.content, str):
        return len(message.content.encode("utf-8", "surrogatepass")) + len(dumps(rest).encode())
    return len(dumps([message.content, *rest]).encode())
