"""Every store, opened by its name over a server of the tests."""

from __future__ import annotations

import atexit
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

from dynamiq_memory import MemoryBackend
from dynamiq_memory.backends import Dynamiq, DynamoDB, InMemory, Pinecone, PostgreSQL, Qdrant, SQLite, Weaviate
from dynamiq_memory.connections import AWS
from dynamiq_memory.connections import Dynamiq as DynamiqConnection
from dynamiq_memory.connections import Pinecone as PineconeConnection
from dynamiq_memory.connections import Weaviate as WeaviateConnection
from tests.fakes.dynamodb.server import running as dynamodb
from tests.fakes.embedders import NGrams
from tests.fakes.pinecone.server import API_KEY
from tests.fakes.pinecone.server import running as pinecone
from tests.fakes.postgresql.server import PostgreSQLServer, postgresql
from tests.fakes.qdrant.server import qdrant
from tests.fakes.weaviate.server import weaviate
from tests.service.serving import serving

Through = Callable[[str], str]
"""Given the URL of a server, returns the URL to use instead of it."""

STORES = (
    "InMemory",
    "SQLite",
    "PostgreSQL",
    "service over SQLite",
    "DynamoDB",
    "Qdrant",
    "Weaviate",
    "Pinecone",
)


@contextmanager
def opened(
    name: str, folder: Path, through: Through = lambda url: url, seconds: int | None = None
) -> Iterator[MemoryBackend]:
    """An empty store.

    Args:
        name: One of `STORES`, or a service over another of them.
        folder: Where it may put files.
        through: Maps the URL of an HTTP server to that of a proxy in front of it.
        seconds: How long the service, DynamoDB and Qdrant wait for an answer; None for long.
    """
    with ExitStack() as stack:
        yield stack.enter_context(_open(name, folder, through, stack, seconds))


_shared = ExitStack()
# For soak; pytest ends it in conftest.py, since its workers may end without calling this.
atexit.register(_shared.close)


@cache
def shared_postgresql() -> PostgreSQLServer:
    """A server that runs until `end_shared`, since it takes seconds to start."""
    return _shared.enter_context(postgresql())


def end_shared() -> None:
    """End the shared server, if it runs."""
    _shared.close()
    shared_postgresql.cache_clear()


def _open(name: str, folder: Path, through: Through, stack: ExitStack, seconds: int | None = None) -> MemoryBackend:
    enter = stack.enter_context
    if name.startswith("service over "):
        inner = enter(_open(name.removeprefix("service over "), folder, through, stack))
        served = enter(serving(inner))
        return Dynamiq(DynamiqConnection(url=through(served.url), api_key=None), "m", timeout=seconds or 120)
    if name == "InMemory":
        return InMemory()
    if name == "SQLite":
        return SQLite(folder / "store.db", synchronous="NORMAL")
    if name == "PostgreSQL":
        server = shared_postgresql()
        return PostgreSQL(server.url, enter(server.new_table()))
    if name == "DynamoDB":
        keys = {"access_key_id": "test", "secret_access_key": "test", "region": "eu-west-1"}
        account, address = AWS.model_validate(keys), through(enter(dynamodb()))
        return DynamoDB(account, f"t-{uuid.uuid4()}", endpoint_url=address, read_timeout=seconds or 30)
    if name == "Qdrant":
        url, _ = enter(qdrant())
        return Qdrant(through(url), index_name=f"c-{uuid.uuid4()}", timeout=seconds or 30)
    if name == "Weaviate":
        host = enter(weaviate())
        connection = WeaviateConnection(url=through(f"http://{host.host}:{host.http_port}"), grpc_port=host.grpc_port)
        return Weaviate(connection, collection_name=f"Test_{uuid.uuid4().hex}", embedder=NGrams(64))
    if name == "Pinecone":
        return Pinecone(PineconeConnection(api_key=API_KEY, host=through(enter(pinecone()).url)), NGrams(64))
    raise ValueError(name)
