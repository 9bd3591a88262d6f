"""Creating the collection, and checking an existing one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qdrant_client import models

from dynamiq_memory.backends._embedding import MessageEmbedder
from dynamiq_memory.backends.plans import Plan
from dynamiq_memory.backends.qdrant import records, requests
from dynamiq_memory.backends.qdrant.errors import missing
from dynamiq_memory.backends.qdrant.renewing import NOTE, RENEWED, Vectors, renew_words, set_note
from dynamiq_memory.backends.qdrant.requests import Request
from dynamiq_memory.exceptions import BackendError, ConfigurationError
from dynamiq_memory.messages import MESSAGE_ID_KEY, SESSION_KEY, USER_KEY
from dynamiq_memory.ranking import Tokenize
from dynamiq_memory.ranking.tokenizer import earlier_signatures_of, signature_of

VERSION = 1
DISTANCES = {
    "cosine": models.Distance.COSINE,
    "dot_product": models.Distance.DOT,
    "l2": models.Distance.EUCLID,
}

_KEYWORD = models.PayloadSchemaType.KEYWORD
# The fields to filter and sort by. Without these indexes, a server reads every message of every user, or refuses.
_INDEXES: dict[str, Any] = {
    # Qdrant keeps the points of one tenant together.
    USER_KEY: models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True),
    SESSION_KEY: _KEYWORD,
    MESSAGE_ID_KEY: _KEYWORD,
    records.ORDER: models.IntegerIndexParams(type=models.IntegerIndexType.INTEGER, lookup=False, range=True),
    records.LABELS: _KEYWORD,
    f"{records.NUMBERS}[].key": _KEYWORD,
    f"{records.NUMBERS}[].value": models.PayloadSchemaType.FLOAT,
    records.GONE: _KEYWORD,
    records.EMBEDDER: _KEYWORD,
}


@dataclass(frozen=True, slots=True)
class Schema:
    """The properties that a collection must have.

    Attributes:
        location: The collection and its server, for errors.
        embedder: Makes its vectors; None for a collection without vectors.
        vectors: Those of the embedder, or None.
        metric: How vectors are compared.
        on_disk: Whether vectors and payloads stay on disk.
        tokenize: Splits texts into its words.
    """

    location: str
    embedder: MessageEmbedder | None
    vectors: Vectors | None
    metric: str
    on_disk: bool
    tokenize: Tokenize


def open_collection(schema: Schema, *, create: bool, is_local: bool, reindex: bool) -> Plan[None]:
    """Create the collection if it does not exist, check it, and set the dimension of the embedder.

    Args:
        schema: The properties that it must have.
        create: Whether to create it. Otherwise a missing collection is an error.
        is_local: Whether Qdrant runs in local mode, which has no indexes.
        reindex: Whether to make the words again that another tokenizer made, and the vectors of another embedder.

    Raises:
        BackendError: It does not exist, or was made by a later version of this package.
        ConfigurationError: It has other properties.
    """
    if not (yield from _exists()):
        if not create:
            raise missing(schema.location)
        yield from _create(schema)
    information = yield from Request(lambda client, name: client.get_collection(name))
    _check(schema, information.config.params)
    if not is_local:
        present = information.payload_schema or {}
        for field in [field for field in _INDEXES if field not in present]:
            yield from _index(field, _INDEXES[field])
    if (yield from _check_note(schema, reindex=reindex)):
        yield from renew_words(schema.tokenize, schema.location)
    if schema.vectors is not None:
        yield from schema.vectors.open(reindex=reindex)


def _exists() -> Request[bool]:
    return Request(lambda client, name: client.collection_exists(name))


def _create(schema: Schema) -> Plan[None]:
    """Create the collection, unless another process creates it first."""
    dense = {}
    embedder = schema.embedder
    if embedder is not None:
        size = embedder.dimension or embedder.measured_dimension()
        embedder.dimension = size
        dense[records.DENSE] = models.VectorParams(size=size, distance=DISTANCES[schema.metric], on_disk=schema.on_disk)
    index = models.SparseIndexParams(on_disk=schema.on_disk)
    words = {records.WORDS: models.SparseVectorParams(index=index, modifier=models.Modifier.IDF)}
    payload_on_disk = schema.on_disk or None
    try:
        yield from Request(
            lambda client, name: client.create_collection(name, dense, words, on_disk_payload=payload_on_disk)
        )
    except BackendError:
        if not (yield from _exists()):
            raise


def _check(schema: Schema, parameters: models.CollectionParams) -> None:
    """Check the collection's vectors, and set the dimension of the embedder."""
    location, embedder = schema.location, schema.embedder
    dense, sparse = parameters.vectors or {}, parameters.sparse_vectors or {}
    if not isinstance(dense, dict) or set(dense) - {records.DENSE} or set(sparse) != {records.WORDS}:
        raise ConfigurationError(
            f"{location} was not made by this package: its vectors differ. Use another index_name; to move its "
            "messages, read them with the program that wrote them and add them with add_many"
        )
    if embedder is not None and not dense:
        raise ConfigurationError(
            f"{location} was made without an embedder, and its messages have no vectors: open it without one, or "
            "copy them, which embeds them: `dynamiq-memory copy FROM TO`, or dynamiq_memory.transfer.copy(backend, "
            "Qdrant(…, embedder=…, index_name='another'))"
        )
    if not dense:
        return
    vectors = dense[records.DENSE]
    if embedder is None:
        raise ConfigurationError(
            f"{location} has vectors of {vectors.size} numbers: pass the embedder that its messages were stored with"
        )
    if embedder.dimension is not None and embedder.dimension != vectors.size:
        raise ConfigurationError(
            f"dimension={embedder.dimension}, but the vectors of {location} have {vectors.size} numbers: use the "
            "embedder that its messages were stored with, or copy them, which embeds them again: `dynamiq-memory copy "
            "FROM TO`, or dynamiq_memory.transfer.copy(backend, Qdrant(…, embedder=…, index_name='another'))"
        )
    if vectors.distance != DISTANCES[schema.metric]:
        raise ConfigurationError(
            f"metric={schema.metric!r}, but {location} compares by {vectors.distance.value}: open it with that metric"
        )
    embedder.dimension = vectors.size


def _check_note(schema: Schema, *, reindex: bool) -> Plan[bool]:
    """Check or write the note of the collection's version, tokenizer and embedder, a point that no reader sees.

    Returns:
        Whether the words of some messages must be made again.
    """
    location, signature, embedder = schema.location, signature_of(schema.tokenize), schema.embedder
    found = yield from requests.retrieve([NOTE], ["version", "tokenizer", "embedder", RENEWED])
    if not found:
        note: dict[str, Any] = {"version": VERSION, "tokenizer": signature, records.GONE: records.NEVER_GONE}
        if embedder is not None and embedder.name is not None:
            note["embedder"] = embedder.name
        # The local mode of old clients fails in a search by words before there are any.
        words: dict[str, Any] = {records.WORDS: models.SparseVector(indices=[0], values=[1.0])}
        yield from requests.upsert([models.PointStruct(id=NOTE, vector=words, payload=note)])
        return False
    note = records.payload_of(found[0])
    if note["version"] != VERSION:
        raise BackendError(
            f"{location} was made by another version of this package (its schema is {note['version']}, this "
            f"version's is {VERSION}): update dynamiq-memory"
        )
    if schema.vectors is not None and embedder is not None:
        schema.vectors.unnamed = note.get("embedder", embedder.name)
        if "embedder" not in note and embedder.name is not None:
            yield from set_note({"embedder": embedder.name})
    if note["tokenizer"] == signature:
        return note.get(RENEWED) is not None
    if note["tokenizer"] not in earlier_signatures_of(schema.tokenize) and not reindex:
        raise ConfigurationError(
            f"the words of {location} were made by the tokenizer {note['tokenizer']}, not {signature}: pass that "
            "tokenizer, or reindex=True to make them again"
        )
    return True


def _index(field: str, index: Any) -> Request[Any]:
    return Request(lambda client, name: client.create_payload_index(name, field, index, wait=True))
