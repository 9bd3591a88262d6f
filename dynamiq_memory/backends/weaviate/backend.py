"""Messages in a collection of a Weaviate server."""

from __future__ import annotations

import asyncio
import re
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ClassVar
from urllib.parse import unquote, urlencode, urlsplit

from dynamiq_memory.backends._embedding import Embed, EmbedQuery, MessageEmbedder
from dynamiq_memory.backends._planned import PlannedBackend
from dynamiq_memory.backends._urls import Readers, options_in, yes_or_no
from dynamiq_memory.backends.base import Capabilities
from dynamiq_memory.backends.operations import (
    Around,
    Count,
    Delete,
    IsEmpty,
    Operation,
    Read,
    Replace,
    Search,
    Sessions,
    Take,
    Update,
    Write,
)
from dynamiq_memory.backends.plans import Plan
from dynamiq_memory.connections import Weaviate as WeaviateConnection
from dynamiq_memory.exceptions import BackendError, ConfigurationError, DynamiqMemoryError, MissingDependencyError
from dynamiq_memory.messages import Message, views
from dynamiq_memory.ranking import BM25, Tokenize, Tokenizer
from dynamiq_memory.ranking.tokenizer import signature_of

try:
    import weaviate
except ImportError as error:
    raise MissingDependencyError(
        "the Weaviate backend needs weaviate-client: pip install 'dynamiq-memory[weaviate]'"
    ) from error

from weaviate.classes.query import Filter as Native

from dynamiq_memory.backends.weaviate.client import Clients, check_grpc, settings_of
from dynamiq_memory.backends.weaviate.errors import DRIVER_ERRORS, translated
from dynamiq_memory.backends.weaviate.filters import MESSAGE, is_fact
from dynamiq_memory.backends.weaviate.reader import Reader
from dynamiq_memory.backends.weaviate.records import DIMENSION
from dynamiq_memory.backends.weaviate.schema import collection_name as checked_name
from dynamiq_memory.backends.weaviate.schema import consistency_level as checked_level
from dynamiq_memory.backends.weaviate.schema import open_collection
from dynamiq_memory.backends.weaviate.schema import tenant_name as checked_tenant
from dynamiq_memory.backends.weaviate.search import Searcher
from dynamiq_memory.backends.weaviate.steps import AtOnce
from dynamiq_memory.backends.weaviate.writer import Writer

_MAX_MESSAGE_BYTES = 16 * 1024 * 1024
# What a server that does not tell its limit takes in one message of gRPC, and what else goes into one.
_GRPC_BYTES = 10 * 1024 * 1024
_GRPC_MARGIN = 256 * 1024
_AT_ONCE = 8
# Older ones count by GraphQL, into whose text the client would write filters.
_OLDEST_SERVER = (1, 29)


class Weaviate(PlannedBackend):
    """Keeps messages in a collection of a Weaviate server, an object each, for any number of processes and machines.

    Searches by words and by meaning at once. Filters are looked up in the server's index. Asynchronous methods use the
    client's asynchronous side, on one event loop of the backend's own.

    Args:
        connection: A `dynamiq_memory.connections.Weaviate` (or an object with its attributes), a URL such as
            "http://localhost:8080", or a connected `weaviate.WeaviateClient`, which stays the caller's: asynchronous
            methods then use it in a thread pool. By default, what the environment says.
        embedder: What turns texts into vectors: one of `dynamiq_memory.embedders`, an `Embeddings` of LangChain, a
            `BaseEmbedding` of LlamaIndex, an embedder of dynamiq. Without one, messages are ranked by words alone.
        collection_name: The collection; its first letter becomes a capital, as the service wants it.
        create_if_not_exist: Whether to create the collection (and the tenant) if there is none; else that is an error.
        alpha: How much meaning counts against words, from 0 (words alone) to 1 (meaning alone).
        tenant_name: The tenant whose messages these are, in a collection that has tenants; None for one without.
        consistency_level: How many replicas must take or give an answer: "ONE", "QUORUM" or "ALL".
        max_results: How many results the server gives at once, its QUERY_MAXIMUM_RESULTS.
        max_message_bytes: The largest message taken, in bytes of its JSON; 16 MiB by default, and less where the
            server's GRPC_MAX_MESSAGE_SIZE is small.
        tokenizer: Turns a text into the terms of keyword ranking; English words by default.
        bm25: The parameters of keyword ranking.

    Raises:
        ConfigurationError: An argument is wrong, or the collection is of another kind.
        BackendConnectionError: The server cannot be reached.
        BackendAuthenticationError: It refuses the key.
        BackendError: The collection is not there, and is not to be created.
    """

    driver_errors: ClassVar[tuple[type[Exception], ...]] = DRIVER_ERRORS

    def __init__(
        self,
        connection: Any = None,
        embedder: Any = None,
        collection_name: str = "conversations",
        create_if_not_exist: bool = True,
        *,
        alpha: float = 0.5,
        tenant_name: str | None = None,
        consistency_level: str = "QUORUM",
        max_results: int = 10_000,
        max_message_bytes: int = _MAX_MESSAGE_BYTES,
        tokenizer: Tokenize | None = None,
        bm25: BM25 | None = None,
    ) -> None:
        """Connect, and create the collection."""
        self.collection_name = checked_name(collection_name)
        self.tenant_name = checked_tenant(tenant_name)
        self._level = checked_level(consistency_level)
        if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not 0 <= alpha <= 1:
            raise ConfigurationError(f"alpha must be from 0 (words alone) to 1 (meaning alone), not {alpha!r}")
        for name, number, least in (("max_results", max_results, 10), ("max_message_bytes", max_message_bytes, 1)):
            if not isinstance(number, int) or isinstance(number, bool) or number < least:
                raise ConfigurationError(f"{name} must be a whole number of {least} or more, not {number!r}")
        if isinstance(connection, weaviate.WeaviateAsyncClient):
            raise ConfigurationError(
                "give a weaviate.WeaviateClient, not an asynchronous one, which only one event loop can use; with a "
                "connection instead of a client, asynchronous methods have an asynchronous client of their own"
            )
        self._clients: Clients | None = None
        self._fan: ThreadPoolExecutor | None = None
        self._fan_lock = threading.Lock()
        super().__init__(tokenizer=tokenizer, bm25=bm25)
        self._given = connection if isinstance(connection, weaviate.WeaviateClient) else None
        place = ""
        if self._given is None:
            settings = settings_of(connection)
            self._clients = Clients(settings)
            weakref.finalize(self, self._clients.close)
            place = f" at {settings.address}"
        elif not self._given.is_connected():
            raise ConfigurationError("the Weaviate client is not connected: call its connect() first")
        tenant = "" if self.tenant_name is None else f", tenant {self.tenant_name!r}"
        self._where = f"Weaviate collection {self.collection_name!r}{tenant}{place}"
        self._embedder = None if embedder is None else MessageEmbedder(embedder, where=self._where)
        self._dimension_read = False
        self.alpha = float(alpha) if self._embedder is not None else 0.0
        self._forked = False
        self._model: str | None = None
        self._own_embedder: Any = None
        try:
            largest = self._open(create=create_if_not_exist)
        except self.driver_errors as error:
            self.close()
            raise self._translate(error) from error
        except BaseException:
            self.close()
            raise
        self.max_message_bytes = min(max_message_bytes, largest // 2)
        self._reader = Reader(max_results)
        self._writer = Writer(self._reader, self.tokenizer, self._where, largest)
        self._searcher = Searcher(self._reader, self.tokenizer, self.bm25, self.alpha, max_results)

    @classmethod
    def from_url(cls, url: str) -> Weaviate:
        """Make a backend for `weaviate://host:8080/Collection?grpc_port=50051`.

        Args:
            url: The URL; port 443, also where none is given, means TLS. Its query may set `grpc_host`, `grpc_port`,
                `secure` and `create_if_not_exist` ("true" or "false"), `tenant_name`, `alpha`,
                `consistency_level`, and `embedder`: a model of OpenAI's, whose key and URL the environment gives.
                Weaviate's key does not belong in it: the environment gives it.

        Raises:
            ConfigurationError: It is no such URL, or an option is wrong.
        """
        parsed = urlsplit(url)
        name = unquote(parsed.path.strip("/"))
        if parsed.scheme != "weaviate" or not parsed.hostname or "/" in name or "@" in parsed.netloc:
            raise ConfigurationError(
                "the URL is none of Weaviate: write weaviate://host:8080/Collection?grpc_port=50051, without a key, "
                "which the environment gives"
            )
        readers: Readers = {
            "grpc_host": str,
            "grpc_port": int,
            "secure": yes_or_no,
            "create_if_not_exist": yes_or_no,
            "tenant_name": str,
            "alpha": float,
            "consistency_level": str,
            "embedder": str,
        }
        options = options_in(parsed.query, "weaviate", readers)
        try:
            port = parsed.port or 443
        except ValueError:
            raise ConfigurationError("the port in the URL is wrong") from None
        secure = options.pop("secure", port == 443)
        where = {key: options.pop(key) for key in ("grpc_host", "grpc_port") if key in options}
        address = f"{'https' if secure else 'http'}://{parsed.hostname}:{port}"
        if name:
            options["collection_name"] = name
        model = options.pop("embedder", None)
        if model is not None:
            from dynamiq_memory.embedders import OpenAIDocumentEmbedder  # noqa: PLC0415 - needs its library

            options["embedder"] = OpenAIDocumentEmbedder(model)
        backend = cls(WeaviateConnection(url=address, **where), **options)
        backend._model = model
        backend._own_embedder = options.get("embedder")
        return backend

    def to_url(self) -> str | None:
        """The URL of the collection; None if the client, the embedder or the ranking is the caller's."""
        standard = signature_of(self.tokenizer) == signature_of(Tokenizer()) and self.bm25 == BM25()
        own_embedder = self._embedder is None or self._model is not None
        if self._clients is None or not standard or not own_embedder:
            return None
        settings = self._clients.settings
        options = {
            "secure": str(settings.http_secure).lower(),
            "grpc_host": settings.grpc_host,
            "grpc_port": str(settings.grpc_port),
            "create_if_not_exist": "false",
            "consistency_level": self._level.value,
        }
        if self._model is not None:
            options |= {"embedder": self._model, "alpha": str(self.alpha)}
        if self.tenant_name is not None:
            options["tenant_name"] = self.tenant_name
        return f"weaviate://{settings.http_host}:{settings.http_port}/{self.collection_name}?{urlencode(options)}"

    @property
    def capabilities(self) -> Capabilities:
        """What this instance can do."""
        return Capabilities(keyword=self.alpha < 1, vector=self.alpha > 0, max_message_bytes=self.max_message_bytes)

    def to_dict(self) -> dict[str, Any]:
        """Describe the backend without its secrets and messages."""
        return super().to_dict() | {
            "collection_name": self.collection_name,
            "tenant_name": self.tenant_name,
            "alpha": self.alpha,
            "consistency_level": self._level.value,
            "url": None if self._clients is None else self._clients.settings.address,
        }

    def __repr__(self) -> str:
        """Name the collection."""
        return f"Weaviate(collection_name={self.collection_name!r}, tenant_name={self.tenant_name!r})"

    # --- operations ------------------------------------------------------------------------------------------

    @property
    def _is_asynchronous(self) -> bool:
        return self._clients is not None

    def _plan(self, operation: Operation[Any]) -> Plan[Any]:  # noqa: C901, PLR0911 - a table of the operations
        match operation:
            case Write(messages):
                return self._writer.write(messages)
            case Read(filter, limit, before, after):
                return _viewed(self._reader.messages(filter, limit, before, after))
            case Search(filter, query, limit):
                return _viewed(self._searcher.search(query, filter, limit))
            case Around(filter, anchors, before_count, after_count):
                return _windows(anchors, self._reader.around(anchors, before_count, after_count, filter))
            case Delete(filter):
                return self._writer.delete(filter)
            case Replace(filter, messages):
                return self._writer.replace(filter, messages)
            case Update(filter, messages):
                return self._writer.update(filter, messages)
            case Take(filter):
                return _viewed(self._writer.take(filter))
            case Count(filter):
                return self._reader.count(filter)
            case Sessions(filter):
                return self._reader.sessions(filter)
            case IsEmpty(filter) if not filter.conditions:
                return self._plan_empty()
        return super()._plan(operation)

    def _plan_empty(self) -> Plan[bool]:
        reply = yield partial(_any, filters=is_fact(MESSAGE))
        return not reply.objects

    def _plan_dimension(self) -> Plan[int | None]:
        """How long the stored vectors are; None if there are none."""
        reply = yield partial(_any, filters=Native.by_property(DIMENSION).greater_than(0))
        return reply.objects[0].properties[DIMENSION] if reply.objects else None

    # --- steps -----------------------------------------------------------------------------------------------

    def _step(self, step: Any) -> Any:
        if isinstance(step, AtOnce):
            if len(step.plans) == 1:
                return [self._run(step.plans[0])]
            return list(self._helpers().map(self._run, step.plans))
        if isinstance(step, Embed | EmbedQuery) and self._embedder is not None and not self._dimension_read:
            self._expect(self._run(self._plan_dimension()))
        return super()._step(step)

    async def _astep(self, step: Any) -> Any:
        if isinstance(step, AtOnce):
            found = await asyncio.gather(*map(self._arun, step.plans), return_exceptions=True)
            for each in found:
                if isinstance(each, BaseException):
                    raise each
            return found
        if isinstance(step, Embed | EmbedQuery) and self._embedder is not None and not self._dimension_read:
            self._expect(await self._arun(self._plan_dimension()))
        return await super()._astep(step)

    def _ask(self, request: Any) -> Any:
        return request(self._collection(self._client()))

    async def _aask(self, request: Any) -> Any:
        if self._clients is None:
            raise AssertionError("a given client is used in threads")
        return await self._clients.run(lambda client: request(self._collection(client)))

    def _expect(self, dimension: int | None) -> None:
        if self._embedder is not None and dimension is not None:
            self._embedder.expect(dimension)
        self._dimension_read = dimension is not None

    def _helpers(self) -> ThreadPoolExecutor:
        with self._fan_lock:
            if self._fan is None:
                self._fan = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="dynamiq-memory-Weaviate")
            return self._fan

    # --- the clients -----------------------------------------------------------------------------------------

    def _open(self, *, create: bool) -> int:
        client = self._client()
        if self._clients is not None:
            check_grpc(self._clients.settings)
        meta = client.get_meta()
        version = re.match(r"(\d+)\.(\d+)", str(meta.get("version", "")))
        if version is None or (int(version[1]), int(version[2])) < _OLDEST_SERVER:
            raise ConfigurationError(f"{self._where}: the server is Weaviate {meta.get('version')}; use 1.29 or newer")
        open_collection(client, self.collection_name, self.tenant_name, self._where, self.bm25, create=create)
        return int(meta.get("grpcMaxMessageSize") or _GRPC_BYTES) - _GRPC_MARGIN

    def _client(self) -> weaviate.WeaviateClient:
        if self._clients is not None:
            return self._clients.sync()
        if self._forked or self._given is None:
            raise BackendError(
                f"{self._where}: the client was made before this process was forked, and shares its connections with "
                "the parent. Connect a new one in this process, or give a connection instead of a client"
            )
        return self._given

    def _collection(self, client: Any) -> Any:
        collection = client.collections.use(self.collection_name).with_consistency_level(self._level)
        return collection if self.tenant_name is None else collection.with_tenant(self.tenant_name)

    def _close(self) -> None:
        if self._own_embedder is not None:
            self._own_embedder.close()
        if self._fan is not None:
            self._fan.shutdown(wait=True)
        if self._clients is not None:
            self._clients.close()

    def _translate(self, error: Exception) -> DynamiqMemoryError:
        return translated(error, self._where)

    def _before_fork(self) -> None:
        super()._before_fork()
        if self._clients is not None:
            self._clients.before_fork()

    def _after_fork_in_parent(self) -> None:
        super()._after_fork_in_parent()
        if self._clients is not None:
            self._clients.after_fork_in_parent()

    def _after_fork(self) -> None:
        super()._after_fork()
        self._fan, self._fan_lock = None, threading.Lock()
        self._forked = True
        if self._clients is not None:
            self._clients.abandon()
        self._writer.renew_lock()


def _viewed(plan: Plan[list[Message]]) -> Plan[list[Message]]:
    return views((yield from plan))


def _windows(
    anchors: Sequence[Message], plan: Plan[list[tuple[list[Message], list[Message]]]]
) -> Plan[list[list[Message]]]:
    sides = yield from plan
    return [[*views(earlier), anchor, *views(later)] for anchor, (earlier, later) in zip(anchors, sides, strict=True)]


def _any(collection: Any, *, filters: Any) -> Any:
    return collection.query.fetch_objects(filters=filters, limit=1, return_properties=[DIMENSION], return_metadata=[])
