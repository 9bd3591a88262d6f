"""The collection: its definition, and whether an existing one is of this kind."""

from __future__ import annotations

import re
from typing import Any

import weaviate
from weaviate.classes.config import (
    Configure,
    ConsistencyLevel,
    DataType,
    Property,
    StopwordsPreset,
    Tokenization,
    VectorDistances,
)
from weaviate.exceptions import UnexpectedStatusCodeError

from dynamiq_memory.backends.weaviate.filters import ARRIVAL, FACTS, TIMESTAMP
from dynamiq_memory.backends.weaviate.records import BODY, DIMENSION, LENGTH, TERMS, VECTOR
from dynamiq_memory.exceptions import BackendError, ConfigurationError
from dynamiq_memory.messages import SESSION_KEY, USER_KEY
from dynamiq_memory.ranking import BM25

# https://docs.weaviate.io/weaviate/config-refs/collections: names are those of GraphQL.
_COLLECTION = re.compile(r"[A-Za-z][_0-9A-Za-z]{0,254}")
_TENANT = re.compile(r"[A-Za-z0-9_-]{1,64}")


def collection_name(given: object) -> str:
    """Check a collection's name; the service wants it to begin with a capital, so it does.

    Raises:
        ConfigurationError: It cannot be one.
    """
    if not isinstance(given, str) or not _COLLECTION.fullmatch(given):
        raise ConfigurationError(
            f"collection_name={given!r} cannot be used: give up to 255 letters, digits and underscores, a letter first"
        )
    return given[0].upper() + given[1:]


def tenant_name(given: object) -> str | None:
    """Check a tenant's name.

    Raises:
        ConfigurationError: It cannot be one.
    """
    if given is None:
        return None
    if not isinstance(given, str) or not _TENANT.fullmatch(given):
        raise ConfigurationError(
            f"tenant_name={given!r} cannot be used: give 1 to 64 letters, digits and the characters _ -"
        )
    return given


def consistency_level(given: object) -> ConsistencyLevel:
    """Read a consistency level.

    Raises:
        ConfigurationError: There is no such one.
    """
    name = getattr(given, "value", given)
    if name not in {"ONE", "QUORUM", "ALL"}:
        raise ConfigurationError(f'consistency_level must be "ONE", "QUORUM" or "ALL", not {given!r}')
    return ConsistencyLevel(name)


def properties() -> list[Property]:
    """What an object has."""
    plain_text: dict[str, Any] = {
        "data_type": DataType.TEXT,
        "tokenization": Tokenization.FIELD,
        "index_filterable": False,
        "index_searchable": False,
    }
    number: dict[str, Any] = {"index_filterable": True, "index_range_filters": True}
    return [
        Property(name=BODY, description="The message, as JSON", **plain_text),
        Property(name=USER_KEY, description="To read; filters use facts", **plain_text),
        Property(name=SESSION_KEY, description="To read; filters use facts", **plain_text),
        Property(
            name=FACTS,
            description="What filters find: each an exact JSON text",
            data_type=DataType.TEXT_ARRAY,
            tokenization=Tokenization.FIELD,
            index_filterable=True,
            index_searchable=False,
        ),
        Property(
            name=TERMS,
            description="What keyword search finds: stems, without stop words",
            data_type=DataType.TEXT,
            tokenization=Tokenization.WHITESPACE,
            index_filterable=False,
            index_searchable=True,
        ),
        Property(name=LENGTH, description="How many terms", data_type=DataType.INT, index_filterable=True),
        Property(name=TIMESTAMP, description="POSIX seconds", data_type=DataType.NUMBER, **number),
        Property(name=ARRIVAL, description="The order among equal times", data_type=DataType.INT, **number),
        Property(name=DIMENSION, description="How long the vector is, or 0", data_type=DataType.INT, **number),
    ]


def open_collection(
    client: weaviate.WeaviateClient, name: str, tenant: str | None, where: str, bm25: BM25, *, create: bool
) -> None:
    """Make sure that the collection, and the tenant, are there and of this kind.

    Raises:
        BackendError: There is none, and none is to be made.
        ConfigurationError: The collection is of another kind.
    """
    if not client.collections.exists(name):
        if not create:
            raise BackendError(f"there is no {where}: correct collection_name, or pass create_if_not_exist=True")
        _create(client, name, tenant, bm25)
    config = client.collections.use(name).config.get()
    _check(config, tenant, where)
    if tenant is not None and not client.collections.use(name).tenants.exists(tenant):
        if not create:
            raise BackendError(f"there is no tenant {tenant!r} in {where}: pass create_if_not_exist=True")
        client.collections.use(name).tenants.create(tenant)


def _create(client: weaviate.WeaviateClient, name: str, tenant: str | None, bm25: BM25) -> None:
    try:
        client.collections.create(
            name,
            description="Messages of conversations, kept by dynamiq-memory",
            properties=properties(),
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
        # Another process may have been first; else it was really refused.
        if not client.collections.exists(name):
            raise


def _check(config: Any, tenant: str | None, where: str) -> None:
    held = {each.name: each for each in config.properties}
    wrong = [each.name for each in properties() if not _is_as_wanted(each, held.get(each.name))]
    if wrong:
        raise ConfigurationError(
            f"{where} is of another kind: it has no such {', '.join(wrong)} as messages need, so it was not made by "
            "this package. Choose another collection_name; docs/weaviate.md says how to bring the messages of another "
            "collection over"
        )
    if VECTOR not in (config.vector_config or {}):
        raise ConfigurationError(f"{where} has no vector named {VECTOR!r}: choose another collection_name")
    if config.inverted_index_config.stopwords.preset is not StopwordsPreset.NONE:
        raise ConfigurationError(
            f"{where} drops stop words, of which ids may consist: set the preset of its stop words to none"
        )
    if config.multi_tenancy_config.enabled and tenant is None:
        raise ConfigurationError(f"{where} has tenants: give tenant_name")
    if tenant is not None and not config.multi_tenancy_config.enabled:
        raise ConfigurationError(
            f"{where} was made without tenants, which cannot be changed: leave tenant_name out, or choose another "
            "collection_name"
        )


def _is_as_wanted(wanted: Property, held: Any) -> bool:
    if held is None or held.data_type != wanted.dataType:
        return False
    same_text = wanted.tokenization is None or held.tokenization == wanted.tokenization
    filterable = held.index_filterable or not wanted.indexFilterable
    return bool(same_text and filterable and (held.index_searchable or not wanted.indexSearchable))
