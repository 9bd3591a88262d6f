"""A tool with which an agent searches its memory."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, Literal

from langchain.tools import ToolRuntime
from langchain_core.tools import BaseTool, StructuredTool

from dynamiq_memory import ConfigurationError, Memory, Message
from dynamiq_memory.integrations.messages import format_messages
from langchain_dynamiq_memory._messages import langchain_id
from langchain_dynamiq_memory._scope import scoped_to_run

SearchScope = Literal["session", "user"]

TOOL_NAME = "search_memory"
# Characters of a text, and of a result: about 500 and 4,000 tokens.
_LONGEST_TEXT = 2_000
_LONGEST_RESULT = 16_000
_SHOWN = 8
# Some results are in the agent's state already, belong to an earlier search, or repeat others.
_READ = 8 * _SHOWN
_DESCRIPTION = (
    "Search {scope} for messages about something, by words. Use it when the user refers to something that was said "
    "before and is not in the conversation at hand. Returns the messages that fit best, each with its time."
)
_SCOPES = {"session": "the earlier part of this conversation", "user": "all conversations with this user"}


def search_tool(memory: Memory, scope: SearchScope) -> BaseTool:
    """Make the tool.

    Args:
        memory: The memory; scoped to the session or the user of each run.
        scope: Whether to search the session or all sessions of the user.

    Raises:
        ConfigurationError: The scope is unknown.
    """
    if scope not in _SCOPES:
        raise ConfigurationError(f"search {scope!r} is unknown: use 'session', 'user', or None for no tool")

    def search_memory(query: str, runtime: ToolRuntime) -> str:
        within, filters = _within(memory, scope, runtime)
        return _format(within.search(query, filters, _READ), runtime)

    async def asearch_memory(query: str, runtime: ToolRuntime) -> str:
        within, filters = _within(memory, scope, runtime)
        return _format(await within.asearch(query, filters, _READ), runtime)

    return StructuredTool.from_function(
        search_memory,
        asearch_memory,
        name=TOOL_NAME,
        description=_DESCRIPTION.format(scope=_SCOPES[scope]),
    )


def _within(memory: Memory, scope: SearchScope, runtime: ToolRuntime) -> tuple[Memory, dict[str, Any]]:
    session = scoped_to_run(memory, runtime.context, runtime.config.get("configurable", {}))
    if scope == "session":
        return session, {}
    user_id = session.filters["user_id"]
    if user_id is None:
        raise ConfigurationError("search='user' needs a user_id for each run: pass it in context or 'configurable'")
    return memory, {"user_id": user_id}


def _format(messages: Sequence[Message], runtime: ToolRuntime) -> str:
    in_state = {message.id for message in runtime.state["messages"]}
    others = [message for message in messages if langchain_id(message) not in in_state and not _is_search(message)]
    lines: dict[str, str] = {}
    for message in others:  # each text once
        lines.setdefault(_cut(format_messages([message]), message.id), _time(message))
    shown, left = [], _LONGEST_RESULT
    for line, time in list(lines.items())[:_SHOWN]:
        left -= len(line)
        if left < 0:
            break
        shown.append(f"[{time}] {line}")
    return "\n".join(shown) or "Nothing found."


def _cut(text: str, message_id: str) -> str:
    """Shorten a text, with a mark that names its message."""
    if len(text) <= _LONGEST_TEXT:
        return text
    return f"{text[:_LONGEST_TEXT]} … ({len(text) - _LONGEST_TEXT:,} more characters in message {message_id})"


def _is_search(message: Message) -> bool:
    """Whether a message calls the tool or is its result, which repeats other messages."""
    called = [(call.get("function") or {}).get("name") for call in message.tool_calls or ()]
    return TOOL_NAME in (*called, message.name)


def _time(message: Message) -> str:
    return f"{dt.datetime.fromtimestamp(message.timestamp or 0.0, dt.UTC):%Y-%m-%d %H:%M} UTC"
