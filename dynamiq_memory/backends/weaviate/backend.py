"""Messages in a collection of a Weaviate server."""

from __future__ import annotations

import asyncio
import re
import weakref
from typing import Any, ClassVar, TypeVar
from urllib.parse import unquote, urlencode, urlsplit

from dynamiq_memory._checks import check_choice, check_share, check_whole_number
from dynamiq_memory.backends import operations
from dynamiq_memory.backends._embedding import MessageEmbedder
from dynamiq_memory.backends._planned import PlannedBackend
from dynamiq_memory.backends._threads import Threads
from dynamiq_memory.backends._urls import Readers, options_in, yes_or_no
from dynamiq_memory.backends.base import Capabilities
from dynamiq_memory.backends.plans import Plan
from dynamiq_memory.connections import Weaviate as WeaviateConnection
from dynamiq_memory.exceptions import ConfigurationError, DynamiqMemoryError, MissingDependencyError
from dynamiq_memory.ranking import BM25, Tokenize

try:
    import weaviate
except ImportError as error:
    raise MissingDependencyError(
        "the Weaviate backend needs weaviate-client: pip install 'dynamiq-memory[weaviate]'"
    ) from error

from weaviate.classes.config import ConsistencyLevel
from weaviate.classes.query import Filter as ServerFilter

from dynamiq_memory.backends.weaviate import requests, schema
from dynamiq_memory.backends.weaviate.client import Clients, Server, server_of
from dynamiq_memory.backends.weaviate.errors import DRIVER_ERRORS, translated
from dynamiq_memory.backends.weaviate.reader import Reader
from dynamiq_memory.backends.weaviate.renewing import Vectors, renew_terms
from dynamiq_memory.backends.weaviate.requests import AtOnce, Request
from dynamiq_memory.backends.weaviate.search import Searcher
from dynamiq_memory.backends.weaviate.writer import Writer

T = TypeVar("T")

_MAX_MESSAGE_BYTES = 16 * 1024 * 1024
# The size of a gRPC message that a server accepts if it does not report its limit, and what else a message contains.
_GRPC_BYTES = 10 * 1024 * 1024
_GRPC_MARGIN = 256 * 1024
# Older servers count by GraphQL, and the client would write filters into its text.
_OLDEST_SERVER = (1, 29)


class Weaviate(PlannedBackend):
    """Stores messages in a collection of a Weaviate server, an object each, for many processes and machines.

    Searches by words and by meaning at once, and looks up filters in the server's index. Asynchronous methods use an
    asynchronous client, on an event loop in a thread of its own.

    Args:
        connection: A `dynamiq_memory.connections.Weaviate` (or an object with its attributes), a URL such as
            "http://localhost:8080", or a connected `weaviate.WeaviateClient` owned by the caller: asynchronous methods
            then use it in a thread pool. By default, the settings come from the environment.
        embedder: Converts texts to vectors: one of `dynamiq_memory.embedders`, an `Embeddings` of LangChain, a
            `BaseEmbedding` of LlamaIndex, an embedder of dynamiq. Without one, messages are ranked by words alone.
        collection_name: The collection; its first letter is capitalised, as the server requires.
        create_if_not_exist: Whether to create the collection and the tenant if they do not exist. If False, a missing
            one is an error.
        reindex: Make the terms of stored messages again if another tokenizer made them; with an embedder, embed the
            messages that were stored without one or with another one.
        alpha: The weight of meaning against words, from 0 (words alone) to 1 (meaning alone).
        tenant_name: The tenant that the messages belong to; None for a collection without tenants.
        consistency_level: How many replicas must acknowledge a write or answer a read: "ONE", "QUORUM" or "ALL".
        max_results: Maximum number of results that the server returns at once, its QUERY_MAXIMUM_RESULTS.
        max_message_bytes: The largest message accepted, in bytes of its JSON. Defaults to 16 MiB, or less if the
            server's GRPC_MAX_MESSAGE_SIZE is small.
        tokenizer: Splits a text into the terms of keyword ranking; English words by default.
        bm25: The parameters of keyword ranking.

    Raises:
        ConfigurationError: An argument is wrong, the collection was not created by this package, or its messages were
            stored with another tokenizer or embedder.
        BackendConnectionError: The server cannot be reached.
        BackendAuthenticationError: The server refuses the key.
        BackendError: The collection does not exist, and must not be created.
    """

    traces = "segments until Weaviate compacts them, and backups"
    driver_errors: ClassVar[tuple[type[Exception], ...]] = DRIVER_ERRORS
    request_errors = DRIVER_ERRORS
    described = ("collection_name", "tenant_name", "alpha", "consistency_level", "url")

    def __init__(
        self,
        connection: Any = None,
        embedder: Any = None,
        collection_name: str = "conversations",
        create_if_not_exist: bool = True,
        *,
        reindex: bool = False,
        alpha: float = 0.5,
        tenant_name: str | None = None,
        consistency_level: str = "QUORUM",
        max_results: int = 10_000,
        max_message_bytes: int = _MAX_MESSAGE_BYTES,
        tokenizer: Tokenize | None = None,
        bm25: BM25 | None = None,
    ) -> None:
        """Connect, and create the collection."""
        self.collection_name = schema.checked_collection(collection_name)
        self.tenant_name = schema.checked_tenant(tenant_name)
        self._level = check_choice(ConsistencyLevel, consistency_level, "consistency_level", ConfigurationError)
        self.consistency_level = self._level.value
        alpha = check_share("alpha", alpha)
        check_whole_number("max_results", max_results, 10)
        check_whole_number("max_message_bytes", max_message_bytes)
        source = _checked_client(connection) or server_of(connection)
        self._server = source if isinstance(source, Server) else None
        super().__init__(tokenizer=tokenizer, bm25=bm25)
        tenant = "" if self.tenant_name is None else f", tenant {self.tenant_name!r}"
        self.url = None if self._server is None else self._server.address
        address = "" if self.url is None else f" at {self.url}"
        self._location = f"Weaviate collection {self.collection_name!r}{tenant}{address}"
        self._embedder = (
            None
            if embedder is None
            else MessageEmbedder(
                embedder,
                location=self._location,
                reindexes=True,
                copies="Weaviate(…, embedder=…, collection_name='another')",
            )
        )
        self.alpha = 0.0 if embedder is None else alpha
        self._helpers = Threads("dynamiq-memory-Weaviate")
        self._clients = Clients(source, self._location)
        weakref.finalize(self, self._clients.close)
        self._reader = Reader(max_results, self._location)
        self._vectors = None if self._embedder is None else Vectors(self._embedder, self._reader)
        with self._opening():
            max_bytes = self._open(create=create_if_not_exist)
            self._run(self._renew(reindex=reindex))
        self.max_message_bytes = min(max_message_bytes, max_bytes // 2)
        self._writer = Writer(self._reader, self.tokenizer, self._embedder, max_bytes)
        self._searcher = Searcher(self._reader, self.tokenizer, self.bm25, self.alpha, self._vectors)

    @classmethod
    def from_url(cls, url: str) -> Weaviate:
        """Make a backend for `weaviate://host:8080/Collection?grpc_port=50051`.

        Args:
            url: The URL. Port 443, which is the default, means TLS. Its query may set `grpc_host`, `grpc_port`,
                `secure`, `create_if_not_exist` and `reindex` ("true" or "false"), `tenant_name`, `alpha`,
                `consistency_level`, and `embedder`: "local" or an OpenAI model. The environment sets its key and
                server, and Weaviate's key, which does not belong in the URL.

        Raises:
            ConfigurationError: It is not such a URL, or an option is wrong.
        """
        parsed = urlsplit(url)
        name = unquote(parsed.path.strip("/"))
        if parsed.scheme != "weaviate" or not parsed.hostname or "/" in name or "@" in parsed.netloc:
            raise ConfigurationError(
                "the URL is not one of Weaviate: write weaviate://host:8080/Collection?grpc_port=50051, without the "
                "key, which the environment sets"
            )
        options = options_in(parsed.query, "weaviate", _READERS)
        try:
            port = parsed.port or 443
        except ValueError:
            raise ConfigurationError("the port in the URL is wrong") from None
        secure = options.pop("secure", port == 443)
        address = f"{'https' if secure else 'http'}://{parsed.hostname}:{port}"
        grpc = {key: options.pop(key) for key in ("grpc_host", "grpc_port") if key in options}
        if name:
            options["collection_name"] = name
        return cls(WeaviateConnection(url=address, **grpc), **options)

    def to_url(self) -> str | None:
        """The URL of the collection; None if a URL cannot describe the client, the embedder or the ranking."""
        server = self._server
        if server is None or not self._fits_in_a_url:
            return None
        http, grpc = server.params.http, server.params.grpc
        options = {
            "secure": str(http.secure).lower(),
            "grpc_host": grpc.host,
            "grpc_port": str(grpc.port),
            "create_if_not_exist": "false",
            "consistency_level": self.consistency_level,
        }
        if self._embedder is not None:
            options |= {"embedder": str(self._embedder.given_name), "alpha": str(self.alpha)}
        if self.tenant_name is not None:
            options["tenant_name"] = self.tenant_name
        return f"weaviate://{http.host}:{http.port}/{self.collection_name}?{urlencode(options)}"

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities of this instance."""
        return Capabilities(keyword=self.alpha < 1, vector=self.alpha > 0, max_message_bytes=self.max_message_bytes)

    # --- operations ------------------------------------------------------------------------------------------

    def _plan(self, operation: operations.Operation[Any]) -> Plan[Any]:  # noqa: C901, PLR0911 - a table of the operations
        match operation:
            case operations.Write(messages):
                return self._with_dimension(self._writer.write(messages))
            case operations.Read(filter, limit, before, after):
                return self._reader.read(filter, limit, before, after)
            case operations.Search(filter, query, limit):
                return self._with_dimension(self._searcher.search(filter, query, limit))
            case operations.Around(filter, anchors, before_count, after_count):
                return self._reader.around(anchors, before_count, after_count, filter)
            case operations.Delete(filter):
                return self._writer.delete(filter)
            case operations.Replace(filter, messages):
                return self._with_dimension(self._writer.replace(filter, messages))
            case operations.Take(filter):
                return self._writer.take(filter)
            case operations.Count(filter):
                return self._reader.count(filter)
            case operations.Sessions(filter):
                return self._reader.sessions(filter)
            case operations.IsEmpty(filter) if not filter.conditions:
                return self._reader.is_empty()
        return super()._plan(operation)

    def _with_dimension(self, plan: Plan[T]) -> Plan[T]:
        """Carry out a plan that embeds, after reading the dimension of the stored vectors if it is not known yet."""
        yield from self._find_dimension()
        return (yield from plan)

    def _find_dimension(self) -> Plan[None]:
        if self._embedder is not None and self._embedder.dimension is None:
            embedded = ServerFilter.by_property(schema.DIMENSION).greater_than(0)
            rows = yield from requests.fetch(embedded, [schema.DIMENSION], 1)
            if rows:
                self._embedder.dimension = int(rows[0].properties[schema.DIMENSION])

    def _renew(self, *, reindex: bool) -> Plan[None]:
        """Renew the terms and vectors that other tokenizers and embedders made, or check that there are none."""
        yield from renew_terms(self._reader, self.tokenizer, self._embedder, reindex=reindex)
        if self._vectors is not None:
            yield from self._find_dimension()
            yield from self._vectors.open(reindex=reindex)

    @property
    def _is_asynchronous(self) -> bool:
        return self._server is not None

    def _step(self, step: Any) -> Any:
        if not isinstance(step, AtOnce):
            return super()._step(step)
        if len(step.plans) == 1:
            return [self._run(step.plans[0])]
        return self._helpers.map(self._run, step.plans)

    async def _astep(self, step: Any) -> Any:
        if not isinstance(step, AtOnce):
            return await super()._astep(step)
        results = await asyncio.gather(*map(self._arun, step.plans), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results

    def _ask(self, request: Request[T]) -> T:
        return request.send(self._collection(self._clients.client()))

    async def _aask(self, request: Request[Any]) -> Any:
        return await self._clients.run(lambda client: request.send(self._collection(client)))

    def _collection(self, client: Any) -> Any:
        collection = client.collections.use(self.collection_name).with_consistency_level(self._level)
        return collection if self.tenant_name is None else collection.with_tenant(self.tenant_name)

    def _translate(self, error: Exception) -> DynamiqMemoryError:
        return translated(error, self._location)

    # --- opening, closing, forks -----------------------------------------------------------------------------

    def _open(self, *, create: bool) -> int:
        """Check the server, open the collection, and return the largest object that the server takes."""
        client = self._clients.client()
        meta = client.get_meta()
        version = re.match(r"(\d+)\.(\d+)", str(meta.get("version", "")))
        if version is None or (int(version[1]), int(version[2])) < _OLDEST_SERVER:
            raise ConfigurationError(
                f"{self._location}: the server is Weaviate {meta.get('version')}; use 1.29 or newer"
            )
        schema.open_collection(client, self.collection_name, self.tenant_name, self._location, self.bm25, create=create)
        return int(meta.get("grpcMaxMessageSize") or _GRPC_BYTES) - _GRPC_MARGIN

    def _close(self) -> None:
        super()._close()
        self._helpers.shut_down()
        self._clients.close()


_READERS: Readers = {
    "grpc_host": str,
    "grpc_port": int,
    "secure": yes_or_no,
    "create_if_not_exist": yes_or_no,
    "reindex": yes_or_no,
    "tenant_name": str,
    "alpha": float,
    "consistency_level": str,
    "embedder": str,
}


def _checked_client(connection: Any) -> weaviate.WeaviateClient | None:
    """Return the connection if it is a client owned by the caller."""
    if isinstance(connection, weaviate.WeaviateAsyncClient):
        raise ConfigurationError(
            "give a weaviate.WeaviateClient, not an asynchronous one, which only one event loop can use; with a "
            "connection instead of a client, asynchronous methods make an asynchronous client"
        )
    if not isinstance(connection, weaviate.WeaviateClient):
        return None
    if not connection.is_connected():
        raise ConfigurationError("the Weaviate client is not connected: call its connect() first")
    return connection
