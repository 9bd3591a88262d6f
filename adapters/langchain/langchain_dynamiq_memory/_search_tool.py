"""The tool by which an agent searches its memory itself."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, Literal

from langchain.tools import ToolRuntime
from langchain_core.tools import BaseTool, StructuredTool

from dynamiq_memory import ConfigurationError, Memory, Message
from dynamiq_memory.formatting import format_messages
from langchain_dynamiq_memory._messages import own_id
from langchain_dynamiq_memory._scope import scoped_to_run

SearchScope = Literal["session", "user"]

_NAME = "search_memory"
_FOUND = 8
# Some of what is found is in the agent's state already, an earlier search, or said again.
_READ = 8 * _FOUND
_DESCRIPTION = (
    "Search {where} for messages about something, by words. Use it when the user refers to something that was said "
    "before and is not in the conversation at hand. Returns the messages that fit best, each with its time."
)
_WHERE = {"session": "the earlier part of this conversation", "user": "all conversations with this user"}


def search_tool(memory: Memory, scope: SearchScope) -> BaseTool:
    """Make the tool.

    Args:
        memory: The memory; scoped to the session or the user of each run.
        scope: What is searched.

    Raises:
        ConfigurationError: The scope is unknown.
    """
    if scope not in _WHERE:
        raise ConfigurationError(f"search {scope!r} is unknown: use 'session', 'user', or None for no tool")

    def search_memory(query: str, runtime: ToolRuntime) -> str:
        within, filters = _within(memory, scope, runtime)
        return _told(within.search(query, filters, _READ), runtime)

    async def asearch_memory(query: str, runtime: ToolRuntime) -> str:
        within, filters = _within(memory, scope, runtime)
        return _told(await within.asearch(query, filters, _READ), runtime)

    return StructuredTool.from_function(
        search_memory,
        asearch_memory,
        name=_NAME,
        description=_DESCRIPTION.format(where=_WHERE[scope]),
    )


def _within(memory: Memory, scope: SearchScope, runtime: ToolRuntime) -> tuple[Memory, dict[str, Any]]:
    session = scoped_to_run(memory, runtime.context, runtime.config.get("configurable", {}))
    if scope == "session":
        return session, {}
    user_id = session.filters["user_id"]
    if user_id is None:
        raise ConfigurationError("search='user' needs a user_id for each run: pass it in context or 'configurable'")
    return memory, {"user_id": user_id}


def _told(found: Sequence[Message], runtime: ToolRuntime) -> str:
    at_hand = {message.id for message in runtime.state["messages"]}
    others = [message for message in found if own_id(message) not in at_hand and not _is_search(message)]
    lines: dict[str, str] = {}
    for message in others:  # what was said several times is told once
        lines.setdefault(format_messages([message]), _time(message))
    return "\n".join(f"[{time}] {line}" for line, time in list(lines.items())[:_FOUND]) or "Nothing found."


def _is_search(message: Message) -> bool:
    """Whether a message asks for a search or answers one: quoting those would only repeat what they quote."""
    called = [(call.get("function") or {}).get("name") for call in message.tool_calls or ()]
    return _NAME in (*called, message.name)


def _time(message: Message) -> str:
    return f"{dt.datetime.fromtimestamp(message.timestamp or 0.0, dt.UTC):%Y-%m-%d %H:%M} UTC"
