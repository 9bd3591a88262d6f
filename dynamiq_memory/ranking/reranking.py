"""Reranking: a model that reads the query together with each message orders the best ones again."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any

from dynamiq_memory.exceptions import BackendError, ConfigurationError
from dynamiq_memory.messages import Message
from dynamiq_memory.ranking.scores import RERANKER, Score

Reranker = Callable[[str, Sequence[Message]], Sequence[float]]
"""Returns a score for each message, higher for those that answer the query better."""

# A reranker takes long for each message.
RERANKED = 50


def reranker_of(given: Any) -> Reranker:
    """Make a reranker of what users have.

    Args:
        given: A function of a query and messages that returns a score for each; a document compressor of LangChain
            (`compress_documents`), a node postprocessor of LlamaIndex (`postprocess_nodes`), or a ranker of the
            `dynamiq` package (`execute`). Those of frameworks may leave messages out, which then come last.

    Raises:
        ConfigurationError: It is something else, or its framework is not installed.
    """
    for method, adapt in (
        ("compress_documents", _of_langchain),
        ("postprocess_nodes", _of_llama_index),
        ("execute", _of_dynamiq),
    ):
        if callable(getattr(given, method, None)) and not isinstance(given, type):
            return adapt(given)
    if not callable(given) or isinstance(given, type) or inspect.iscoroutinefunction(given):
        raise ConfigurationError(
            "reranker must be a plain function of a query and messages, or a reranker of LangChain, LlamaIndex or "
            f"dynamiq; not {given!r}"
        )
    rerank: Reranker = given
    return rerank


def reranked(rerank: Reranker, query: str, messages: Sequence[Message]) -> list[Message]:
    """Order the best messages again; the others follow with the lowest of the new scores.

    Args:
        rerank: The reranker.
        query: The query.
        messages: Messages, best first; their scores are replaced.

    Raises:
        BackendError: The reranker fails.
        ConfigurationError: It does not return a number for each message.
    """
    first, others = messages[:RERANKED], messages[RERANKED:]
    if not first:
        return []
    try:
        returned: Any = rerank(query, list(first))
        scores = list(returned) if isinstance(returned, Iterable) else [returned]
    except Exception as error:
        raise BackendError(f"the reranker failed: {type(error).__name__}: {error}") from error
    try:
        numbers = [float(score) for score in scores]
    except (TypeError, ValueError, OverflowError):
        numbers = []
    if len(numbers) != len(first) or not all(map(math.isfinite, numbers)):
        raise ConfigurationError(f"the reranker must return {len(first)} numbers, one for each message, not {scores!r}")
    for message, number in zip(first, numbers, strict=True):
        message.score = Score(number, {RERANKER: number})
    best = sorted(first, key=lambda message: message.score or 0.0, reverse=True)
    for message in others:
        message.score = best[-1].score
    return [*best, *others]


def _of_langchain(compressor: Any) -> Reranker:
    def rerank(query: str, messages: Sequence[Message]) -> list[float]:
        from langchain_core.documents import Document  # noqa: PLC0415 - there where such a reranker is

        documents = [Document(page_content=each.text, metadata={"place": n}) for n, each in enumerate(messages)]
        return _scores([each.metadata["place"] for each in compressor.compress_documents(documents, query)], messages)

    return rerank


def _of_llama_index(postprocessor: Any) -> Reranker:
    def rerank(query: str, messages: Sequence[Message]) -> list[float]:
        from llama_index.core.schema import NodeWithScore, TextNode  # noqa: PLC0415 - there where such a reranker is

        nodes = [
            NodeWithScore(node=TextNode(text=each.text, id_=str(n)), score=each.score)
            for n, each in enumerate(messages)
        ]
        ranked = postprocessor.postprocess_nodes(nodes, query_str=query)
        return _scores([int(each.node.node_id) for each in ranked], messages)

    return rerank


def _of_dynamiq(ranker: Any) -> Reranker:
    def rerank(query: str, messages: Sequence[Message]) -> list[float]:
        from dynamiq.types import Document  # noqa: PLC0415 - there where such a reranker is

        documents = [
            Document(content=each.text, metadata={"place": n}, score=each.score) for n, each in enumerate(messages)
        ]
        ranked = ranker.execute(SimpleNamespace(query=query, documents=documents))["documents"]
        return _scores([each.metadata["place"] for each in ranked], messages)

    return rerank


def _scores(places: Sequence[int], messages: Sequence[Message]) -> list[float]:
    """Scores by rank, since those of frameworks need not be numbers that can be compared; 0 for what is left out."""
    rank = {place: number for number, place in enumerate(places)}
    return [1.0 / (1 + rank[place]) if place in rank else 0.0 for place in range(len(messages))]
