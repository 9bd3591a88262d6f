"""A tool with which an agent searches its memory, and reads on in what it has found."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Literal
from xml.sax.saxutils import escape

from langchain.agents.middleware import ModelRequest
from langchain.tools import ToolRuntime
from langchain_core.language_models import BaseChatModel
from langchain_core.tools import BaseTool, StructuredTool

from dynamiq_memory import ConfigurationError, Memory, Message
from dynamiq_memory.integrations.messages import (
    MESSAGE_ID_KEY,
    format_messages,
    place_of,
    quoted_message,
    quoted_messages,
)
from dynamiq_memory.integrations.plans import computed
from langchain_dynamiq_memory._messages import langchain_id
from langchain_dynamiq_memory._scope import scoped_to_run

SearchScope = Literal["session", "user"]

TOOL_NAME = "search_memory"
# Characters of a text, of a text that is read on, and of all texts: about 500, 1,500 and 4,000 tokens.
_LONGEST_TEXT = 2_000
_LONGEST_PAGE = 6_000
_LONGEST_RESULT = 16_000
_SHOWN = 8
# Some results are in the agent's state already, belong to an earlier search, or repeat others.
_READ = 8 * _SHOWN
# Messages before and after one that is read on.
_AROUND = 2
_NOTHING = "Nothing found."
_DESCRIPTION = (
    "Search {scope} for messages about something, by words. Use it when the user refers to something that was said "
    "before and is not in the conversation at hand. Returns the messages that fit best, each with its time, speaker "
    "and id. Long messages are cut: to read on, or to read the messages around one, pass its id instead of a query."
)
_SCOPES = {"session": "the earlier part of this conversation", "user": "all conversations with this user"}

Query = Annotated[str | None, "The words to search for."]
MessageId = Annotated[str | None, "Instead of a query: the id of a message to read on, with the messages around it."]
Offset = Annotated[int, "With message_id: the number of its characters to skip."]


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

    def search_memory(
        runtime: ToolRuntime, query: Query = None, message_id: MessageId = None, offset: Offset = 0
    ) -> str:
        within, filters = _within(memory, scope, runtime)
        if message_id:
            found = within.get_all(1, _only(message_id, filters))
            around = within.backend.around(found, _AROUND, _AROUND, {**within.filters, **filters})
            return _page(found, around, offset, scope)
        return _results(within, query, within.search(query, filters, _READ), runtime, scope)

    async def asearch_memory(
        runtime: ToolRuntime, query: Query = None, message_id: MessageId = None, offset: Offset = 0
    ) -> str:
        within, filters = _within(memory, scope, runtime)
        if message_id:
            found = await within.aget_all(1, _only(message_id, filters))
            around = await within.backend.aaround(found, _AROUND, _AROUND, {**within.filters, **filters})
            return await computed(_page, found, around, offset, scope)
        found = await within.asearch(query, filters, _READ)
        return await computed(lambda found: _results(within, query, found, runtime, scope), found)

    return StructuredTool.from_function(
        search_memory,
        asearch_memory,
        name=TOOL_NAME,
        description=_DESCRIPTION.format(scope=_SCOPES[scope]),
    )


def check_model(request: ModelRequest[Any]) -> None:
    """Check that the model can call the tool, if it is offered it; LangChain itself raises an error without a text.

    Raises:
        ConfigurationError: It cannot.
    """
    is_offered = any(isinstance(tool, BaseTool) and tool.name == TOOL_NAME for tool in request.tools)
    if is_offered and getattr(type(request.model), "bind_tools", None) is BaseChatModel.bind_tools:
        raise ConfigurationError(
            f"the model {type(request.model).__name__} cannot call tools (it has no bind_tools), so its agent cannot "
            "search the memory: use a model that can, or DynamiqMemoryMiddleware(search=None)"
        )


def _within(memory: Memory, scope: SearchScope, runtime: ToolRuntime) -> tuple[Memory, dict[str, Any]]:
    session = scoped_to_run(memory, runtime.context, runtime.config.get("configurable", {}))
    if scope == "session":
        return session, {}
    user_id = session.filters["user_id"]
    if user_id is None:
        raise ConfigurationError("search='user' needs a user_id for each run: pass it in context or 'configurable'")
    return memory, {"user_id": user_id}


def _best_first(query: str | None, messages: list[Message]) -> list[Message]:
    """The messages with the best first: without a query, the latest, which come last."""
    return messages if query and query.strip() else messages[::-1]


def _only(message_id: str, filters: dict[str, Any]) -> dict[str, Any]:
    """A filter for one message. The id is the model's, and may have NUL or surrogates, which no filter may have."""
    return {**filters, MESSAGE_ID_KEY: message_id.replace("\0", "\ufffd").encode(errors="replace").decode()}


def _results(
    memory: Memory, query: str | None, messages: list[Message], runtime: ToolRuntime, scope: SearchScope
) -> str:
    """The messages that fit best, best first, each text once; of long ones, what is around the words of the query."""
    in_state = {message.id for message in runtime.state["messages"]}
    ranked = _best_first(query, messages)
    others = [message for message in ranked if langchain_id(message) not in in_state and not _is_search(message)]
    distinct: dict[Any, Message] = {}
    for message in others:
        distinct.setdefault((message.role, _text(message), message.superseded_at), message)
    best = itertools.islice(distinct.values(), _SHOWN)
    return _framed(_excerpt(message, scope, query or "", memory.backend.tokenizer) for message in best) or _NOTHING


def _page(found: Sequence[Message], around: Sequence[Sequence[Message]], offset: int, scope: SearchScope) -> str:
    """A message from an offset on, between those around it."""
    if not found:
        return "There is no message with this id: use an id from the results of a search."
    quoted = (
        _quoted(message, scope, max(0, offset), _LONGEST_PAGE) if message.id == found[0].id else _quoted(message, scope)
        for message in around[0]
        if message.id == found[0].id or not _is_search(message)
    )
    return _framed(quoted)


def _framed(quoted: Iterable[str]) -> str:
    """The first texts that fit, marked as quotations; empty if there are none."""
    shown, left = [], _LONGEST_RESULT
    for text in quoted:
        left -= len(text)
        if left < 0:
            break
        shown.append(text)
    return quoted_messages(shown) if shown else ""


def _excerpt(message: Message, scope: SearchScope, query: str, tokenize: Callable[[str], list[str]]) -> str:
    """A message as an XML element; of a long one, the part that has the words of the query in its middle."""
    text, size = _text(message), _LONGEST_TEXT
    place = place_of(query, text, tokenize, size // 2) if len(escape(text)) > size else 0
    while True:
        start = max(0, min(place - size // 2, len(text) - size))
        if len(escape(text[start : start + size])) <= _LONGEST_TEXT:
            return _element(message, scope, start, start + size, mark_start=True)
        size //= 2


def _quoted(message: Message, scope: SearchScope, offset: int = 0, longest: int = _LONGEST_TEXT) -> str:
    """A message as an XML element, from an offset on."""
    part = _text(message)[offset : offset + longest]
    while len(escape(part)) > longest:
        part = part[: len(part) // 2]
    return _element(message, scope, offset, offset + len(part))


def _element(message: Message, scope: SearchScope, start: int, end: int, *, mark_start: bool = False) -> str:
    """A part of a message as an XML element, from which no text can break out, with marks of what is left out."""
    text = _text(message)
    before = f"({start:,} characters before this in message {message.id}: offset=0) … "
    after = f" … ({len(text) - end:,} more characters in message {message.id}: offset={end})"
    return quoted_message(
        message,
        (before if start and mark_start else "") + text[start:end] + (after if end < len(text) else ""),
        session_id=message.session_id if scope == "user" else None,
        id=message.id,
        offset=str(start) if start else None,
    )


def _text(message: Message) -> str:
    return format_messages([message]).removeprefix(f"{message.role.value}: ")


def _is_search(message: Message) -> bool:
    """Whether a message calls the tool or is its result, which repeats other messages."""
    called = [(call.get("function") or {}).get("name") for call in message.tool_calls or ()]
    return TOOL_NAME in (*called, message.name)
