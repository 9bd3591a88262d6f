"""Creating the collection, and checking one that is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qdrant_client import models

from dynamiq_memory.backends.qdrant import records as points
from dynamiq_memory.exceptions import BackendError, ConfigurationError
from dynamiq_memory.messages import SESSION_KEY, USER_KEY

Ask = Callable[..., Any]
"""Calls a method of the client for the collection."""

VERSION = 1
DISTANCES = {
    "cosine": models.Distance.COSINE,
    "dot_product": models.Distance.DOT,
    "l2": models.Distance.EUCLID,
}

_ABOUT = points.special_id("about")
_KEYWORD = models.PayloadSchemaType.KEYWORD
# What is filtered and sorted by. Without these, a server reads every message of every user, or refuses.
_INDEXES: dict[str, Any] = {
    # Qdrant keeps the points of one tenant together.
    USER_KEY: models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True),
    SESSION_KEY: _KEYWORD,
    points.MESSAGE_ID: _KEYWORD,
    points.ORDER: models.IntegerIndexParams(type=models.IntegerIndexType.INTEGER, lookup=False, range=True),
    points.LABELS: _KEYWORD,
    f"{points.NUMBERS}[].key": _KEYWORD,
    f"{points.NUMBERS}[].value": models.PayloadSchemaType.FLOAT,
    points.GONE: _KEYWORD,
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a collection must be.

    Attributes:
        where: The collection and its server, for errors.
        embeds: Whether it has vectors.
        dimension: How many numbers these have, or None for any.
        metric: How they are compared.
        on_disk: Whether vectors and payloads stay on disk.
        tokenizer: The signature of the tokenizer of its words.
    """

    where: str
    embeds: bool
    dimension: int | None
    metric: str
    on_disk: bool
    tokenizer: str


def dimension_of(ask: Ask, wanted: Wanted) -> int | None:
    """Check a collection.

    Returns:
        How many numbers its vectors have; None if it has none.

    Raises:
        ConfigurationError: It is of another kind.
    """
    parameters = ask("get_collection").config.params
    dense, sparse = parameters.vectors or {}, parameters.sparse_vectors or {}
    if not isinstance(dense, dict) or set(dense) - {points.DENSE} or set(sparse) != {points.WORDS}:
        raise ConfigurationError(
            f"{wanted.where} was not made by this package: its vectors are others. Give another index_name; to take "
            "over its messages, read them with what wrote them and add them with add_many"
        )
    if wanted.embeds and not dense:
        raise ConfigurationError(
            f"{wanted.where} was made without an embedder, and its messages have no vectors: open it without one, or "
            "copy them: Qdrant(…, embedder=…, index_name='another').add_many(backend.get_all())"
        )
    if not dense:
        return None
    vectors = dense[points.DENSE]
    if not wanted.embeds:
        raise ConfigurationError(
            f"{wanted.where} has vectors of {vectors.size} numbers: give the embedder that its messages were stored "
            "with"
        )
    if wanted.dimension is not None and wanted.dimension != vectors.size:
        raise ConfigurationError(
            f"dimension={wanted.dimension}, and the vectors of {wanted.where} have {vectors.size} numbers: use the "
            "embedder that its messages were stored with, or another index_name for this one, and copy them by add_many"
        )
    if vectors.distance != DISTANCES[wanted.metric]:
        raise ConfigurationError(
            f"metric={wanted.metric!r}, and {wanted.where} compares by {vectors.distance.value}: open it with that"
        )
    return int(vectors.size)


def create(ask: Ask, wanted: Wanted) -> None:
    """Create a collection; its vectors' dimension must be known."""
    dense = {}
    if wanted.embeds:
        distance = DISTANCES[wanted.metric]
        dense[points.DENSE] = models.VectorParams(size=wanted.dimension, distance=distance, on_disk=wanted.on_disk)
    index = models.SparseIndexParams(on_disk=wanted.on_disk)
    ask(
        "create_collection",
        vectors_config=dense,
        sparse_vectors_config={points.WORDS: models.SparseVectorParams(index=index, modifier=models.Modifier.IDF)},
        on_disk_payload=wanted.on_disk or None,
    )


def complete(ask: Ask, wanted: Wanted, *, local: bool) -> None:
    """Make the indexes that are missing, and check or note what the collection was made with.

    Raises:
        ConfigurationError: It was made with another tokenizer.
        BackendError: A later version of this package made it.
    """
    if not local:  # where there are none
        present = ask("get_collection").payload_schema or {}
        for field, schema in _INDEXES.items():
            if field not in present:
                ask("create_payload_index", field_name=field, field_schema=schema, wait=True)
    about = ask("retrieve", ids=[_ABOUT], with_payload=True, with_vectors=False)
    if not about:
        # It is marked as gone, so that nothing reads it.
        note = {"version": VERSION, "tokenizer": wanted.tokenizer, points.GONE: points.NEVER_GONE}
        # The local mode of old clients fails in a search by words before there are any.
        words = {points.WORDS: models.SparseVector(indices=[0], values=[1.0])}
        ask("upsert", points=[models.PointStruct(id=_ABOUT, vector=words, payload=note)], wait=True)
        return
    payload = about[0].payload
    if payload["version"] != VERSION:
        raise BackendError(
            f"{wanted.where} was made by another version of this package (its schema is {payload['version']}, this "
            f"one's {VERSION}): update dynamiq-memory"
        )
    if payload["tokenizer"] != wanted.tokenizer:
        raise ConfigurationError(
            f"the words of {wanted.where} were made by the tokenizer {payload['tokenizer']}, not {wanted.tokenizer}: "
            "open it with that one, or copy its messages into another collection"
        )
