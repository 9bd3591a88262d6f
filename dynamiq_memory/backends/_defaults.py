"""Default plans for operations that a store does not implement itself, in terms of Read, Write and Delete."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from dynamiq_memory.backends import operations
from dynamiq_memory.backends._order import (
    check_replaced_order,
    session_filter,
    sessions_of,
    version_filters,
    with_stored_version,
)
from dynamiq_memory.backends.plans import Compute, Plan
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import Message, key_of, scope_of
from dynamiq_memory.ranking import BM25, InvertedIndex, Tokenize
from dynamiq_memory.ranking.bm25 import best
from dynamiq_memory.ranking.tokenizer import terms_of

if TYPE_CHECKING:
    from dynamiq_memory.backends.base import MemoryBackend


def default_plan(backend: MemoryBackend, operation: operations.Operation[Any]) -> Plan[Any]:
    """Return the default plan of an operation."""
    match operation:
        case operations.Search():
            return _search(backend, operation)
        case operations.Around():
            return _around(operation)
        case operations.Replace(filter, messages):
            return _replace(filter, messages)
        case operations.Update(filter, messages):
            return _update(filter, messages)
        case operations.Take(filter):
            return _take(filter)
        case operations.Count(filter):
            return _count(filter)
        case operations.Sessions(filter):
            return _sessions(filter)
        case operations.IsEmpty(filter):
            return _is_empty(filter)
    raise TypeError(f"{backend.name} cannot perform {type(operation).__name__}")


def rank(messages: list[Message], query: str, tokenizer: Tokenize, bm25: BM25, limit: int | None) -> list[Message]:
    """Rank messages by words in this process; messages that do not match are omitted.

    Args:
        messages: The messages, oldest first. The results get their `score`.
        query: The query.
        tokenizer: Splits texts into terms.
        bm25: The parameters of the ranking.
        limit: Maximum number of results, or None for all.
    """
    index = InvertedIndex()
    for number, message in enumerate(messages):
        index.add(number, terms_of(tokenizer, message.text))
    scores = index.scores(bm25, terms_of(tokenizer, query))
    ranked = best(scores, lambda number: number, limit)
    for number in ranked:
        messages[number].score = scores[number]
    return [messages[number] for number in ranked]


def stored_versions(messages: Sequence[Message], filter: Filter = Filter()) -> Plan[list[Message]]:  # noqa: B008 - frozen
    """Read the stored versions of messages that match a filter."""
    found: list[Message] = []
    for each in version_filters(messages, filter):
        found += yield from operations.Read(each)
    return found


def _search(backend: MemoryBackend, search: operations.Search) -> Plan[list[Message]]:
    """Rank with BM25 in this process, over all messages that match the filter, or the most recent of them."""
    found = yield from operations.Read(search.filter, backend.most_ranked)
    tokenizer = backend._tokenizer_for(search.query)  # noqa: SLF001 - a part of the base class
    return (yield from Compute(partial(rank, found, search.query, tokenizer, backend.bm25, search.limit)))


def _around(around: operations.Around) -> Plan[list[list[Message]]]:
    windows = []
    for anchor in around.anchors:
        session = session_filter(anchor, around.filter)
        earlier = (yield from operations.Read(session, around.before, before=anchor)) if around.before else []
        later = (yield from operations.Read(session, around.after, after=anchor)) if around.after else []
        windows.append([*earlier, anchor, *later])
    return windows


def _replace(filter: Filter, messages: Sequence[Message]) -> Plan[None]:
    """Write, then delete. Without a transaction, a crash can leave duplicates, but never lose messages."""
    old = {key_of(message): message for message in (yield from operations.Read(filter))}
    check_replaced_order((yield from stored_versions(messages)), messages)
    if messages:
        yield from operations.Write(messages)
    for message in messages:
        old.pop(key_of(message), None)
    for message in old.values():
        yield from operations.Delete(next(version_filters([message])))


def _update(filter: Filter, messages: Sequence[Message]) -> Plan[list[Message]]:
    """Read, then write. Without a transaction, a message that is deleted in between may come back."""
    stored = yield from stored_versions(messages, filter)
    present = with_stored_version(messages, stored)
    if present:
        yield from operations.Write(present)
    return present


def _take(filter: Filter) -> Plan[list[Message]]:
    """Delete one message after the other. The caller that deletes a message gets it."""
    taken = []
    for message in (yield from operations.Read(filter)):
        if (yield from operations.Delete(next(version_filters([message], filter)))):
            taken.append(message)  # noqa: PERF401 - a comprehension cannot yield
    return taken


def _count(filter: Filter) -> Plan[int]:
    return len((yield from operations.Read(filter)))


def _sessions(filter: Filter) -> Plan[Any]:
    return sessions_of(
        (scope_of(message), message.timestamp or 0.0) for message in (yield from operations.Read(filter))
    )


def _is_empty(filter: Filter) -> Plan[bool]:
    return not (yield from operations.Read(filter, 1))
