"""The message model: one message of a conversation, in a form that all frameworks can use."""

from __future__ import annotations

import datetime as dt
import math
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from dynamiq_memory._blocks import TEXT_KINDS
from dynamiq_memory._ids import new_id
from dynamiq_memory._json import copy_plain, dumps, is_clean, loads, normalise
from dynamiq_memory._openai import chat_message
from dynamiq_memory.exceptions import MessageError

# When a message is read, its metadata contains these two keys as views of `timestamp` and `id`. They are not stored in
# the metadata.
TIMESTAMP_KEY = "timestamp"
MESSAGE_ID_KEY = "message_id"
USER_KEY = "user_id"
SESSION_KEY = "session_id"
# When a message was superseded, POSIX seconds.
SUPERSEDED_KEY = "superseded_at"
# Whether a message was cut off.
INTERRUPTED_KEY = "interrupted"

# The end of the year 9999, the last year that datetime supports.
LATEST = 253_402_300_799.0
# Batches placed after the same future time, or after one that differs by less than this, must not get equal times.
_SAME_SKEW = 1e-3
# More sessions than this are rarely in use at once.
_MOST_BEHIND = 1000
_COPIED = (dict, list)
_NORMALISED = ("content", "tool_calls", "tool_call_id", "name", "native")


class MessageRole(StrEnum):
    """The author of a message."""

    USER = "user"
    SYSTEM = "system"
    ASSISTANT = "assistant"
    TOOL = "tool"


class _Clock:
    """POSIX seconds that strictly increase within a process, even if the system clock stops or is set back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0.0
        self._ahead = 0.0

    def __call__(self) -> float:
        with self._lock:
            self._last = self._next()
            return self._last

    def several(self, count: int, after: float) -> list[float]:
        """Return times that follow each other so closely that no other time of this process comes between them.

        Args:
            count: Number of times.
            after: All times are later than this one, even if it is in the future.
        """
        with self._lock:
            start = self._next()
            ahead = after >= start
            last = after if ahead else math.nextafter(start, -math.inf)
            if ahead and after <= self._ahead < after + _SAME_SKEW:
                last = self._ahead  # another batch after the same message
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
        role: Author of the message.
        content: A string, or a list of content parts in OpenAI's format (dicts with a `type`). None, which OpenAI
            uses with tool calls, is stored as the empty string.
        id: Unique within the user and session. Defaults to a time-ordered UUIDv7. Adding a message with an id that
            is already in the session replaces that message, so a retry does not duplicate it.
        timestamp: POSIX seconds. Defaults to the time at which the object is created, strictly increasing within a
            process.
        metadata: JSON values by string keys; `user_id` and `session_id` (strings) are the message's scope,
            `superseded_at` marks a superseded message, and `interrupted` one that was cut off. After reading, it also
            contains `timestamp` and `message_id`.
        tool_calls: Tool calls of an assistant message, in OpenAI's format.
        tool_call_id: Id of the call that a tool message answers.
        name: Name of the tool or the author.
        native: Additional data of the framework that wrote the message, as opaque JSON, so that the framework reads
            back exactly what it wrote.
        score: Relevance of a search result: higher is better, comparable only within the same result.
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
        """The user that the message belongs to."""
        return self.metadata.get(USER_KEY)

    @property
    def session_id(self) -> str | None:
        """The session that the message belongs to."""
        return self.metadata.get(SESSION_KEY)

    @property
    def superseded_at(self) -> float | None:
        """When the message was superseded (see `Memory.supersede`), POSIX seconds; None if it is current."""
        value = self.metadata.get(SUPERSEDED_KEY)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    @property
    def interrupted(self) -> bool:
        """Whether the message was cut off: `metadata["interrupted"]` is true."""
        return self.metadata.get(INTERRUPTED_KEY) is True

    def to_openai(self, *, strict: bool = False) -> dict[str, Any]:
        """Return the message in the format of OpenAI's chat API and compatible servers.

        Content parts of other providers and frameworks are converted: texts, images, sound and files to OpenAI's parts,
        calls of tools to `tool_calls`, a user's message that is a result to one of the tool. Parts that have no
        equivalent for the role are left out. `dynamiq_memory.to_openai` converts a whole conversation: only there,
        a message with several results becomes several, and ids are made where a provider gives none; here, the tool's
        name is the id. Characters that the API refuses in a tool's name become `_`, and the name is cut to 64.

        The API has no field for whether a result is an error (Anthropic's `is_error`, LangChain's `status`), so only
        the result's text says so. `content` and `native` keep that field.

        Args:
            strict: Whether to refuse parts that have no equivalent, rather than leave them out.

        Raises:
            MessageError: With `strict`, the content has such a part; the error names it.
        """
        return chat_message(
            self.role.value,
            self.content,
            self.tool_calls,
            self.tool_call_id,
            self.name,
            where=f"message {self.id}",
            strict=strict,
        )

    def to_json(self) -> str:
        """Return the message as JSON text in valid UTF-8, including the types that JSON does not have."""
        return dumps({**self.__dict__, "role": self.role.value})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a message from JSON text written by `to_json`."""
        return cls.model_validate(loads(text))

    @property
    def text(self) -> str:
        """The text of the content: the string itself, or the text parts joined by line breaks."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(
            part["text"]
            for part in self.content
            if part.get("type") in TEXT_KINDS and isinstance(part.get("text"), str)
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
    return _scope_in(message.metadata)


def _scope_in(metadata: Mapping[str, Any]) -> Scope:
    return (metadata.get(USER_KEY), metadata.get(SESSION_KEY))


def key_of(message: Message) -> Key:
    """Return the message's identity within a store."""
    metadata = message.metadata
    return (metadata.get(USER_KEY), metadata.get(SESSION_KEY), message.id)


class LateClock:
    """Corrects the times of new messages where this process's clock is behind those that wrote the session.

    A message without a time of its own belongs after what its sender has read. So where a read message is of the
    future, the difference is added to later times of its session, which keeps their order among each other.
    """

    def __init__(self) -> None:
        """Start without corrections."""
        # For each session of which the clock is behind: by how much, and its latest time.
        self._behind: dict[Scope, tuple[float, float]] = {}

    def observe(self, messages: Sequence[Message]) -> None:
        """Look at messages that were read, in order."""
        now = time.time()
        for message in reversed(messages):
            scope, timestamp = scope_of(message), message.timestamp or 0.0
            if timestamp <= now:
                return
            if timestamp > now + self._behind.get(scope, (0.0, 0.0))[0]:
                if len(self._behind) >= _MOST_BEHIND:
                    self._behind = {}
                self._behind[scope] = (timestamp - now + 1e-6, timestamp)

    def corrected(self, scope: Scope, timestamp: float) -> float:
        """Return the time for a new message of a session."""
        behind, latest = self._behind.get(scope, (0.0, -math.inf))
        return min(LATEST, max(timestamp + behind, math.nextafter(latest, math.inf)))


def prepare(
    messages: Sequence[Message],
    scope: Mapping[str, str] | None = None,
    latest: float | None = None,
    late_clock: LateClock | None = None,
) -> list[Message]:
    """Check messages and copy them to the form in which they are stored.

    Args:
        messages: The messages; they are not changed.
        scope: `user_id` and `session_id` for messages that have none.
        latest: Messages whose time the caller did not set are moved to this time or just before it. With None, they
            keep their time of creation.
        late_clock: Corrects times that the caller did not set.

    Returns:
        Independent copies with normalised values and a timestamp, and without the views in `metadata`. If several
        messages have the same id in the same session, the last one is returned, in the position of the first. Times
        that the caller did not set are moved as far as necessary to keep the order of the batch.

    Raises:
        MessageError: A message cannot be stored as it is.
    """
    fields = [_prepared_fields(message, position, scope or {}) for position, message in enumerate(messages)]
    scopes = [_scope_in(values["metadata"]) for values in fields]
    times = [values["timestamp"] for values in fields]
    movable = [timestamp is None for timestamp in times]
    for number, message in enumerate(messages):
        if movable[number]:
            created = message.timestamp if message.timestamp is not None else clock()
            times[number] = created if late_clock is None else late_clock.corrected(scopes[number], created)
    _keep_order(times, scopes, movable, latest)
    for values, timestamp in zip(fields, times, strict=True):
        values["timestamp"] = timestamp
    try:
        copies = MESSAGES.validate_python(fields)
    except ValidationError as error:  # a field was changed after the message was created
        raise refusal(error) from None
    return list({key_of(copy): copy for copy in copies}.values())


def _keep_order(times: list[float], scopes: Sequence[Scope], movable: Sequence[bool], latest: float | None) -> None:
    """Move the times that the caller did not set so that the batch keeps its order."""
    last: dict[Scope, float] = {}
    for number, scope in enumerate(scopes):
        before = last.get(scope, -math.inf)
        if movable[number]:
            times[number] = max(times[number], math.nextafter(before, math.inf))
        last[scope] = max(times[number], before)
    if latest is None and all(movable):
        return
    # For each message, the latest time before it that the caller set.
    set_times = (-math.inf if move else timestamp for timestamp, move in zip(times, movable, strict=True))
    fixed = list(accumulate(set_times, max, initial=-math.inf))
    next_times: dict[Scope, float] = {}
    for number in reversed(range(len(times))):
        scope = scopes[number]
        bound = next_times.get(scope, math.inf if latest is None else math.nextafter(latest, math.inf))
        if movable[number] and times[number] >= bound:
            # Just before the next message. If there is no time between it and the previous one, arrival decides.
            earlier = math.nextafter(bound, -math.inf)
            times[number] = bound if fixed[number] >= earlier else earlier
        next_times[scope] = min(bound, times[number])


def _prepared_fields(message: Message, position: int, scope: Mapping[str, str]) -> dict[str, Any]:
    check_message(message, position)
    metadata = normalise(message.metadata, "metadata")
    if not isinstance(metadata, dict):
        raise MessageError(f"metadata must be a dict, not {metadata!r}")
    metadata_time = metadata.pop(TIMESTAMP_KEY, None)
    # Metadata with a message_id was read from a store, so its time belongs to that message.
    metadata_id = metadata.pop(MESSAGE_ID_KEY, None)
    if metadata_id is not None:
        if metadata_time is None and metadata_id != message.id:
            raise MessageError(
                "metadata['message_id'] is the id of a stored message and does not set one: use Message(id=…), or "
                "another key"
            )
        metadata_time = None
    for key in (USER_KEY, SESSION_KEY):
        value = scope.get(key) if metadata.get(key) is None else metadata[key]
        if value is None:
            metadata.pop(key, None)
        else:
            metadata[key] = check_identifier(value, f"metadata[{key!r}]")
    check_identifier(message.id, "id")
    timestamp = message.timestamp if "timestamp" in message.model_fields_set else None
    if timestamp is None:
        timestamp = parse_timestamp(metadata_time)
    if timestamp is not None and not (isinstance(timestamp, int | float) and abs(timestamp) <= LATEST):
        raise MessageError(
            f"timestamp is {timestamp!r}: use POSIX seconds (not milliseconds) up to the year 9999, or None for the "
            "current time"
        )
    return {
        "id": message.id,
        "role": message.role,
        "timestamp": timestamp,
        "metadata": metadata,
        **{name: normalise(getattr(message, name), name) for name in _NORMALISED},
    }


def check_message(message: object, position: int) -> None:
    """Check that an object is a `Message`.

    Raises:
        MessageError: It is not.
    """
    if type(message) is Message:  # to compare the fields takes longer than all other checks
        return
    if not isinstance(message, Message):
        raise MessageError(
            f"messages[{position}] is a {type(message).__name__}, not a dynamiq_memory.Message: "
            "create one with Message(role=…, content=…)"
        )
    if type(message).model_fields.keys() != Message.model_fields.keys():
        raise MessageError(
            f"messages[{position}] is a {type(message).__name__} with fields that would not be stored: put them into "
            "its metadata or native"
        )


def refusal(error: ValidationError) -> MessageError:
    """Convert pydantic's error about a message's field to ours."""
    first = error.errors(include_url=False)[0]
    field = next((part for part in first["loc"] if isinstance(part, str)), "message")
    if field == "role":
        return MessageError(f"role {first['input']!r} is unknown: use one of {', '.join(MessageRole)}")
    return MessageError(f"{field} is invalid: {first['msg']}, not {first['input']!r:.100}")


def check_identifier(value: object, name: str) -> str:
    """Check a user_id, session_id or message id.

    Args:
        value: The id.
        name: Name of the id, for error messages.

    Raises:
        MessageError: The id is not a string, is empty, or contains NUL or lone surrogates.
    """
    if not isinstance(value, str):
        raise MessageError(f"{name} must be a string, not {value!r} of type {type(value).__name__}: use str(…)")
    if not value:
        raise MessageError(f"{name} must not be empty (was a variable not set?)")
    if not is_clean(value):
        raise MessageError(f"{name} must not contain NUL or lone surrogates: {value!r}")
    return value


def parse_timestamp(value: Any) -> float | None:
    """Read the time in `metadata["timestamp"]`, in any form that the dynamiq package allows."""
    if value is None:
        return None
    if isinstance(value, str):
        for read in (float, dt.datetime.fromisoformat):
            with suppress(ValueError):
                value = read(value)
                break
    if isinstance(value, dt.datetime) and value.tzinfo is not None:
        return value.timestamp()
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise MessageError(
        "metadata['timestamp'] sets the time of the message: use POSIX seconds, or an ISO 8601 text or a datetime with "
        "a time zone; use another key for anything else"
    )


def views(stored: Iterable[Message]) -> list[Message]:
    """Copy stored messages, so that the caller may change them.

    Args:
        stored: Prepared messages.

    Returns:
        Independent copies with `timestamp` and `message_id` in their metadata.
    """
    # Validating all plain dicts at once takes a third of the time of copying the models.
    return MESSAGES.validate_python([_fields(message) for message in stored])


def _fields(message: Message) -> dict[str, Any]:
    fields = message.__dict__.copy()
    metadata = fields["metadata"] = message.metadata.copy()
    for values, names in ((metadata, message.metadata), (fields, ("content", "tool_calls", "native"))):
        for name in names:
            if isinstance(values[name], _COPIED):
                values[name] = copy_plain(values[name])
    metadata[TIMESTAMP_KEY], metadata[MESSAGE_ID_KEY] = message.timestamp, message.id
    return fields


def size_of(message: Message) -> int:
    """Return the size of a prepared message in bytes: its text in UTF-8, and its other values as JSON."""
    rest = [message.metadata, message.tool_calls, message.tool_call_id, message.name, message.native]
    if isinstance(message.content, str):
        return len(message.content.encode("utf-8", "surrogatepass")) + len(dumps(rest).encode())
    return len(dumps([message.content, *rest]).encode())
