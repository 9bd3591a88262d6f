"""Chains with a history."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any, Self

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.runnables import ConfigurableFieldSpec, Runnable, RunnableLambda, ensure_config
from langchain_core.runnables.history import RunnableWithMessageHistory

from dynamiq_memory import ConfigurationError, MessageError

# The keys of a chain's input and of its history where the caller names none.
_INPUT = "input"
_HISTORY = "dynamiq_memory_history"


def with_message_history(
    runnable: Runnable[Any, Any],
    get_session_history: Callable[..., BaseChatMessageHistory],
    *,
    input_messages_key: str | None = None,
    output_messages_key: str | None = None,
    history_messages_key: str | None = None,
    history_factory_config: Sequence[ConfigurableFieldSpec] | None = None,
) -> Runnable[Any, Any]:
    """Give a chain a history, like LangChain's `RunnableWithMessageHistory`, with the same arguments.

    LangChain's class finds out what to save by reading the history again when a run ends, unless
    `history_messages_key` is given. A run of the same session that has ended in the meantime, or a window that has
    moved, then costs the user's message. Here the history and the input are kept apart until the chain is called, so
    each run saves exactly its input and its output.

    Args:
        runnable: The chain or the model. It takes a list of messages, or a dict.
        get_session_history: Returns the history of a session.
        input_messages_key: The key of the input messages, if the input is a dict.
        output_messages_key: The key of the output messages, if the output is a dict.
        history_messages_key: The key by which the chain takes the history. Without it, the history comes before the
            input messages.
        history_factory_config: The parameters of `get_session_history`. Defaults to the session_id.
    """
    input_key, history_key = input_messages_key, history_messages_key
    if history_key is None:
        input_key, history_key = input_key or _INPUT, _HISTORY
        runnable = _both(_join if input_messages_key is None else _join_at(input_key)) | runnable
    chain = RunnableWithMessageHistory(
        runnable,
        get_session_history,
        input_messages_key=input_key,
        output_messages_key=output_messages_key,
        history_messages_key=history_key,
        history_factory_config=history_factory_config,
    )
    if history_messages_key is None and input_messages_key is None:
        return _both(lambda value: {_INPUT: _messages_of(value)}) | chain
    return chain


def _both(function: Callable[[Any], Any]) -> RunnableLambda[Any, Any]:
    """A step that needs no thread when it is called asynchronously."""

    async def call(value: Any) -> Any:
        return function(value)

    return RunnableLambda(function, call)


def _join(values: dict[str, Any]) -> list[BaseMessage]:
    return [*values[_HISTORY], *values[_INPUT]]


def _join_at(key: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def join(values: dict[str, Any]) -> dict[str, Any]:
        rest = {name: value for name, value in values.items() if name != _HISTORY}
        return {**rest, key: [*values[_HISTORY], *_messages_of(values[key])]}

    return join


def _messages_of(value: Any) -> list[BaseMessage]:
    """The messages of an input that may be a text, a message, a list of messages, or a dict with one of these."""
    if isinstance(value, dict):
        value = next(iter(value.values())) if len(value) == 1 else value.get(_INPUT)
    if isinstance(value, str):
        return [HumanMessage(value)]
    if isinstance(value, BaseMessage):
        return [value]
    if not isinstance(value, list | tuple):
        raise MessageError(f"the input of a chain must be a text, a message or a list of messages, not {value!r:.100}")
    return list(value)


# --- LangChain's own class ---------------------------------------------------------------------------------------


class ReadByChain(list[BaseMessage]):
    """A history as a run of LangChain's class has read it; joining it with the run's input there is refused."""

    def __init__(self, messages: Iterable[BaseMessage] = (), run: str | None = None) -> None:
        """Take the messages.

        Args:
            messages: The messages.
            run: The run that reads them.
        """
        super().__init__(messages)
        self._run = run

    def copy(self) -> Self:
        """Return a copy for the same run."""
        return type(self)(self, self._run)

    def __iadd__(self, messages: Iterable[BaseMessage]) -> Self:  # type: ignore[override, misc]
        """Add messages, unless the run that has read the history does it."""
        if self._run == _current_run(ensure_config()):
            raise ConfigurationError(
                "RunnableWithMessageHistory without history_messages_key can lose messages when runs of a session "
                "overlap: use langchain_dynamiq_memory.with_message_history(…) with the same arguments, or pass "
                "history_messages_key"
            )
        return super().__iadd__(messages)


def guard_reads(history_class: type[BaseChatMessageHistory]) -> None:
    """Make the reading methods that a class of histories defines return `ReadByChain` to LangChain's class."""
    read, aread = vars(history_class).get("messages"), vars(history_class).get("aget_messages")
    if isinstance(read, property) and (get := read.fget) is not None:
        guarded = property(lambda history: _guarded(history, get(history)), read.fset, read.fdel, read.__doc__)
        setattr(history_class, "messages", guarded)  # noqa: B010 - to mypy it is a variable
    if aread is not None:

        @wraps(aread)
        async def aguarded(history: BaseChatMessageHistory) -> list[BaseMessage]:
            return _guarded(history, await aread(history))

        setattr(history_class, "aget_messages", aguarded)  # noqa: B010


def _guarded(history: BaseChatMessageHistory, messages: list[BaseMessage]) -> list[BaseMessage]:
    config = ensure_config()
    if config.get("configurable", {}).get("message_history") is not history:
        return messages
    return ReadByChain(messages, _current_run(config))


def _current_run(config: Any) -> str:
    return str(getattr(config.get("callbacks"), "parent_run_id", None))
