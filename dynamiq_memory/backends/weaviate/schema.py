"""The collection: its properties and vector, and the checks that an existing one has them."""

from __future__ import annotations

import re
from typing import Any

import weaviate
from weaviate.classes.config import (
    Configure,
    DataType,
    Property,
    StopwordsPreset,
    Tokenization,
    VectorDistances,
)
from weaviate.exceptions import UnexpectedStatusCodeError

from dynamiq_memory._checks import check_name
from dynamiq_memory.exceptions import ConfigurationError, StoreNotFoundError
from dynamiq_memory.messages import SESSION_KEY, USER_KEY
from dynamiq_memory.ranking import BM25

BODY = "body"
FACTS = "facts"
TERMS = "terms"
LENGTH = "length"
TIMESTAMP = "timestamp"
ARRIVAL = "arrival"
DIMENSION = "dimension"
MADE_BY = "made_by"
VECTOR = "default"
POSITION = (TIMESTAMP, ARRIVAL)
IN_SESSION = (*POSITION, USER_KEY, SESSION_KEY)
WORDS = (*IN_SESSION, TERMS, LENGTH)

# https://docs.weaviate.io/weaviate/config-refs/collections: names follow GraphQL's rules.
_COLLECTION = re.compile(r"[A-Za-z][_0-9A-Za-z]{0,254}")
_TENANT = re.compile(r"[A-Za-z0-9_-]{1,64}")


def checked_collection(name: object) -> str:
    """Check a collection's name and capitalise its first letter, as the server does.

    Raises:
        ConfigurationError: It is not a valid name.
    """
    hint = "give up to 255 letters, digits and underscores, a letter first"
    valid = check_name("collection_name", name, _COLLECTION, hint)
    return valid[0].upper() + valid[1:]


def checked_tenant(name: object) -> str | None:
    """Check a tenant's name.

    Raises:
        ConfigurationError: It is not a valid name.
    """
    hint = "give 1 to 64 letters, digits and the characters _ -"
    return None if name is None else check_name("tenant_name", name, _TENANT, hint)


def _properties() -> list[Property]:
    unindexed: dict[str, Any] = {
        "data_type": DataType.TEXT,
        "tokenization": Tokenization.FIELD,
        "index_filterable": False,
        "index_searchable": False,
    }
    facts = unindexed | {"data_type": DataType.TEXT_ARRAY, "index_filterable": True}
    terms = unindexed | {"tokenization": Tokenization.WHITESPACE, "index_searchable": True}
    number: dict[str, Any] = {"index_filterable": True, "index_range_filters": True}
    return [
        Property(name=BODY, description="The message, as JSON", **unindexed),
        Property(name=USER_KEY, description="To read; filters use facts", **unindexed),
        Property(name=SESSION_KEY, description="To read; filters use facts", **unindexed),
        Property(name=FACTS, description="What filters find: each an exact JSON text", **facts),
        Property(name=MADE_BY, description="The tokenizer of the terms, the embedder of the vector", **facts),
        Property(name=TERMS, description="What keyword search finds: stems, without stop words", **terms),
        Property(name=LENGTH, description="How many terms", data_type=DataType.INT, index_filterable=True),
        Property(name=TIMESTAMP, description="POSIX seconds", data_type=DataType.NUMBER, **number),
        Property(name=ARRIVAL, description="The order among equal times", data_type=DataType.INT, **number),
        Property(name=DIMENSION, description="How long the vector is, or 0", data_type=DataType.INT, **number),
    ]


def open_collection(
    client: weaviate.WeaviateClient, name: str, tenant: str | None, location: str, bm25: BM25, *, create: bool
) -> None:
    """Make sure that the collection and the tenant exist and have the right definition.

    Args:
        client: A connected client.
        name: The collection.
        tenant: The tenant, or None for a collection without tenants.
        location: The collection, for errors.
        bm25: The parameters of keyword ranking, which a new collection gets.
        create: Whether to create them if they do not exist.

    Raises:
        StoreNotFoundError: One does not exist, and must not be created.
        ConfigurationError: The collection has another definition.
    """
    if not client.collections.exists(name):
        if not create:
            raise StoreNotFoundError(
                f"{location} does not exist: correct collection_name, or pass create_if_not_exist=True"
            )
        _create(client, name, tenant, bm25)
    collection = client.collections.use(name)
    config = collection.config.get()
    _check(config, tenant, location)
    if all(each.name != MADE_BY for each in config.properties):
        _add_made_by(collection)
    if tenant is not None and not collection.tenants.exists(tenant):
        if not create:
            raise StoreNotFoundError(
                f"the tenant {tenant!r} of {location} does not exist: pass create_if_not_exist=True"
            )
        collection.tenants.create(tenant)


def _create(client: weaviate.WeaviateClient, name: str, tenant: str | None, bm25: BM25) -> None:
    try:
        client.collections.create(
            name,
            description="Messages of conversations, kept by dynamiq-memory",
            properties=_properties(),
            vector_config=Configure.Vectors.self_provided(
                name=VECTOR,
                vector_index_config=Configure.VectorIndex.hnsw(distance_metric=VectorDistances.COSINE),
            ),
            inverted_index_config=Configure.inverted_index(
                bm25_b=bm25.b, bm25_k1=bm25.k1, stopwords_preset=StopwordsPreset.NONE
            ),
            multi_tenancy_config=None if tenant is None else Configure.multi_tenancy(enabled=True),
        )
    except UnexpectedStatusCodeError:
        # Another process may have created it first.
        if not client.collections.exists(name):
            raise


def _add_made_by(collection: Any) -> None:
    """Upgrade a collection of a version of this package that did not have this property."""
    (made_by,) = (each for each in _properties() if each.name == MADE_BY)
    try:
        collection.config.add_property(made_by)
    except UnexpectedStatusCodeError:
        # Another process may have added it first.
        if all(each.name != MADE_BY for each in collection.config.get().properties):
            raise


def _check(config: Any, tenant: str | None, location: str) -> None:
    present = {each.name: each for each in config.properties}
    wanted = [each for each in _properties() if each.name != MADE_BY or MADE_BY in present]
    wrong = [each.name for each in wanted if not _suits(present.get(each.name), each)]
    if wrong:
        raise ConfigurationError(
            f"{location} was not created by this package: it lacks {', '.join(wrong)} as messages need them. Choose "
            "another collection_name; docs/weaviate.md shows how to bring the messages of another collection over"
        )
    if VECTOR not in (config.vector_config or {}):
        raise ConfigurationError(f"{location} has no vector named {VECTOR!r}: choose another collection_name")
    if config.inverted_index_config.stopwords.preset is not StopwordsPreset.NONE:
        raise ConfigurationError(
            f"{location} drops stop words, and ids may consist of them: set the preset of its stop words to none"
        )
    if config.multi_tenancy_config.enabled and tenant is None:
        raise ConfigurationError(f"{location} has tenants: give tenant_name")
    if tenant is not None and not config.multi_tenancy_config.enabled:
        raise ConfigurationError(
            f"{location} was created without tenants, which cannot be changed: leave tenant_name out, or choose "
            "another collection_name"
        )


def _suits(present: Any, wanted: Property) -> bool:
    if present is None or present.data_type != wanted.dataType:
        return False
    same_text = wanted.tokenization is None or present.tokenization == wanted.tokenization
    filterable = present.index_filterable or not wanted.indexFilterable
    return bool(same_text and filterable and (present.index_searchable or not wanted.indexSearchable))
