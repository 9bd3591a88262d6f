"""The stores, and `create_backend`, which creates one from a URL."""

from __future__ import annotations

import inspect
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from dynamiq_memory.backends.base import Capabilities, MemoryBackend, Session
from dynamiq_memory.exceptions import ConfigurationError, DynamiqMemoryError

if TYPE_CHECKING:
    from dynamiq_memory.backends.dynamiq import Dynamiq
    from dynamiq_memory.backends.dynamodb import DynamoDB
    from dynamiq_memory.backends.in_memory import InMemory
    from dynamiq_memory.backends.pinecone import Pinecone
    from dynamiq_memory.backends.postgresql import PostgreSQL
    from dynamiq_memory.backends.qdrant import Qdrant
    from dynamiq_memory.backends.sqlite import SQLite
    from dynamiq_memory.backends.weaviate import Weaviate

__all__ = [
    "Capabilities",
    "Dynamiq",
    "DynamoDB",
    "InMemory",
    "MemoryBackend",
    "Pinecone",
    "PostgreSQL",
    "Qdrant",
    "SQLite",
    "Session",
    "Weaviate",
    "create_backend",
]

ENTRY_POINT_GROUP = "dynamiq_memory.backends"
_CREATE = "create_if_not_exist"


# For each class, its module and its URL schemes. A module is imported on first use, since a store's client is slow to
# import and may not be installed.
_STORES = {
    "Dynamiq": ("dynamiq", "dynamiq+http", "dynamiq+https"),
    "DynamoDB": ("dynamodb", "dynamodb"),
    "InMemory": ("in_memory", "memory"),
    "Pinecone": ("pinecone", "pinecone"),
    "PostgreSQL": ("postgresql", "postgres", "postgresql", "postgresql+psycopg"),
    "Qdrant": ("qdrant", "qdrant"),
    "SQLite": ("sqlite", "sqlite"),
    "Weaviate": ("weaviate", "weaviate"),
}
_CLASS_OF_SCHEME = {scheme: name for name, (_, *schemes) in _STORES.items() for scheme in schemes}


def __getattr__(name: str) -> Any:
    if name in _STORES:
        return getattr(import_module(f"{__name__}.{_STORES[name][0]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


def create_backend(url: str, *, must_exist: bool = False) -> MemoryBackend:
    """Create a backend from a URL.

    This package's stores accept the URLs documented at their `from_url`: `memory://`, `sqlite:///path.db`,
    `postgresql://user:password@host/database`, `dynamodb://table?region=…`, `qdrant://host:6333/collection`,
    `pinecone://index`, `weaviate://host:8080/Collection`, `dynamiq+https://host/memory_id`. Other packages add a scheme
    with an entry point of that name in the group `dynamiq_memory.backends`: a function that takes the URL and returns
    the backend.

    Args:
        url: The store's URL.
        must_exist: Whether a file, table or collection that does not exist is an error, whatever the URL says, and is
            not created. For this package's stores.

    Raises:
        ConfigurationError: The scheme is unknown, or the URL is invalid for its backend.
        StoreNotFoundError: The store does not exist, and is not to be created.
        BackendError: The store cannot be opened.
    """
    scheme, separator, _ = url.partition("://") if isinstance(url, str) else ("", "", "")
    if not separator:
        raise ConfigurationError(f"{url!r} is not a URL; for example, use sqlite:///conversations.db")
    if scheme in _CLASS_OF_SCHEME:
        kind = __getattr__(_CLASS_OF_SCHEME[scheme])
        if must_exist and _CREATE in inspect.signature(kind.__init__).parameters:
            url += f"{'&' if '?' in url else '?'}{_CREATE}=false"
        try:
            return kind.from_url(url)  # type: ignore[no-any-return]
        except ValueError as error:
            if isinstance(error, DynamiqMemoryError):
                raise
            # The error is not shown, since it may contain a part of a password.
            raise ConfigurationError(
                f"the {scheme}:// URL, or a setting in the environment, cannot be read: check its host, port and query"
            ) from None
    for entry_point in entry_points(group=ENTRY_POINT_GROUP, name=scheme):
        backend = entry_point.load()(url)
        if not isinstance(backend, MemoryBackend):
            raise ConfigurationError(
                f"the entry point {entry_point.value!r} for {scheme}:// returned a {type(backend).__name__}, not a "
                "MemoryBackend"
            )
        return backend
    known = sorted({*_CLASS_OF_SCHEME, *entry_points(group=ENTRY_POINT_GROUP).names})
    raise ConfigurationError(f"no backend is known for {scheme}://; use one of {', '.join(known)}")
