"""The Qdrant backend: a collection on a server, in a folder, or in this process."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import unquote, urlencode, urlsplit

from dynamiq_memory._checks import check_name, check_share, check_whole_number
from dynamiq_memory.backends import operations
from dynamiq_memory.backends._embedding import MessageEmbedder
from dynamiq_memory.backends._planned import PlannedBackend
from dynamiq_memory.backends._threads import Threads
from dynamiq_memory.backends._urls import Readers, options_in, yes_or_no
from dynamiq_memory.backends.base import Capabilities
from dynamiq_memory.backends.plans import Plan
from dynamiq_memory.connections import Qdrant as QdrantConnection
from dynamiq_memory.connections import without_secrets
from dynamiq_memory.exceptions import ConfigurationError, MissingDependencyError
from dynamiq_memory.messages import Message, views
from dynamiq_memory.ranking import BM25, Tokenize

try:
    import qdrant_client  # noqa: F401 - the modules below import it
except ImportError as error:
    raise MissingDependencyError(
        "the Qdrant backend needs qdrant-client: pip install 'dynamiq-memory[qdrant]'"
    ) from error

from dynamiq_memory.backends.qdrant import errors, reader, schema, writer
from dynamiq_memory.backends.qdrant.client import Clients, address_of
from dynamiq_memory.backends.qdrant.records import Stored
from dynamiq_memory.backends.qdrant.renewing import Vectors
from dynamiq_memory.backends.qdrant.requests import Request
from dynamiq_memory.backends.qdrant.search import Ranker

T = TypeVar("T")
Metric = Literal["cosine", "dot_product", "l2"]

_MAX_MESSAGE_BYTES = 8 * 1024 * 1024
_MOST_RANKED = 10_000
_CANDIDATES = 400
_INDEX_NAME = re.compile(r"[^/\0]+")
_READERS: Readers = {
    "https": yes_or_no,
    "prefer_grpc": yes_or_no,
    "create_if_not_exist": yes_or_no,
    "reindex": yes_or_no,
    "grpc_port": int,
    "embedder": str,
}


class Qdrant(PlannedBackend):
    """Stores messages in a Qdrant collection and ranks them by words and, with an embedder, by meaning.

    The newest messages of a session take one request, and so does a search, which ranks by both. Qdrant evaluates every
    filter. Asynchronous methods use the asynchronous client, except in local mode (`path`, ":memory:"), which runs in
    this process under a lock.

    Args:
        connection: A `dynamiq_memory.connections.Qdrant` (or an object with `url` and `api_key`), the URL of a server,
            ":memory:", or a `QdrantClient`, which the caller closes. Defaults to the settings of the environment.
        embedder: Converts texts to vectors: one of `dynamiq_memory.embedders`, or any embedder that `as_embedder`
            accepts. None ranks by words only.
        index_name: Name of the collection.
        dimension: Length of the vectors. Defaults to that of the collection; for a new collection, the embedder embeds
            one word to find it out.
        create_if_not_exist: Whether to create a missing collection. Otherwise it is an error.
        reindex: Make the words of stored messages again if another tokenizer made them, and embed the messages again
            that were stored with another embedder of the same dimension.
        path: A folder for the collection, without a server, for one process at a time.
        metric: How a new collection compares vectors: "cosine", "dot_product" or "l2".
        on_disk: Whether vectors and payloads of a new collection stay on disk rather than in memory.
        vector_weight: Weight of meaning in a search, from 0 to 1; the rest is that of words.
        candidates: Minimum number of messages of each kind that a search ranks.
        most_ranked: Maximum number of messages of each kind that a search ranks. Without a limit, it ranks all matching
            messages up to this number.
        prefer_grpc: Whether to use gRPC rather than HTTP.
        grpc_port: The server's port for gRPC.
        timeout: Seconds to wait for a response.
        max_message_bytes: Maximum size of a message, in bytes of its JSON. Defaults to 8 MiB.
        tokenizer: Splits a text into the terms of keyword ranking. Defaults to English words.
        bm25: The parameters of keyword ranking.

    Raises:
        ConfigurationError: An argument is invalid, or the collection does not fit it.
        BackendConnectionError: The server cannot be reached.
        BackendAuthenticationError: The server rejects the key.
        BackendError: The collection does not exist, and `create_if_not_exist` is False.
    """

    traces = "segments until Qdrant optimizes them, and snapshots"
    described = ("index_name", "url", "path", "metric", "dimension")

    def __init__(
        self,
        connection: Any = None,
        embedder: Any = None,
        index_name: str = "conversations",
        dimension: int | None = None,
        *,
        create_if_not_exist: bool = True,
        reindex: bool = False,
        path: str | Path | None = None,
        metric: Metric = "cosine",
        on_disk: bool = False,
        vector_weight: float = 0.5,
        candidates: int = _CANDIDATES,
        most_ranked: int = _MOST_RANKED,
        prefer_grpc: bool = False,
        grpc_port: int = 6334,
        timeout: int = 30,
        max_message_bytes: int = _MAX_MESSAGE_BYTES,
        tokenizer: Tokenize | None = None,
        bm25: BM25 | None = None,
    ) -> None:
        """Connect, and create or check the collection."""
        self.index_name = check_name("index_name", index_name, _INDEX_NAME, "choose a name without slashes")
        if metric not in schema.DISTANCES:
            raise ConfigurationError(f"metric must be one of {', '.join(schema.DISTANCES)}, not {metric!r}")
        check_whole_number("dimension", 1 if dimension is None else dimension)
        check_whole_number("candidates", candidates)
        check_whole_number("most_ranked", most_ranked)
        check_whole_number("grpc_port", grpc_port)
        check_whole_number("timeout", timeout)
        check_whole_number("max_message_bytes", max_message_bytes)
        super().__init__(tokenizer=tokenizer, bm25=bm25)
        self.metric = metric
        self.most_ranked = most_ranked
        self.max_message_bytes = max_message_bytes
        self._address = address_of(connection, path, prefer_grpc=prefer_grpc, grpc_port=grpc_port, timeout=timeout)
        self._location = f"Qdrant collection {index_name!r} ({self._address.shown or 'the given client'})"
        vectors = None
        if embedder is not None:
            copies = "Qdrant(…, embedder=…, index_name='another')"
            self._embedder = MessageEmbedder(embedder, dimension, self._location, reindexes=True, copies=copies)
            vectors = Vectors(self._embedder, self._location)
        self._writer = writer.Writer(self.tokenizer, None if self._embedder is None else self._embedder.label)
        self._ranker = Ranker(
            tokenizer=self.tokenizer,
            bm25=self.bm25,
            vectors=vectors,
            vector_weight=check_share("vector_weight", vector_weight),
            candidates=candidates,
            most_ranked=most_ranked,
            is_similarity=metric != "l2",
        )
        self._clients = Clients(self._address, self._location)
        self._per_loop = self._clients.per_loop
        self._uninterrupted = Threads("dynamiq-memory-Qdrant")
        self.request_errors = errors.LOCAL if self._clients.is_local else errors.REMOTE
        self.path, self.url = self._address.path, self._address.url and without_secrets(self._address.url)
        with self._opening():
            wanted = schema.Schema(self._location, self._embedder, vectors, metric, on_disk, self.tokenizer)
            is_local = self._clients.is_local
            self._run(schema.open_collection(wanted, create=create_if_not_exist, is_local=is_local, reindex=reindex))
        self.dimension = None if self._embedder is None else self._embedder.dimension

    @classmethod
    def from_url(cls, url: str) -> Qdrant:
        """Make a backend for `qdrant://localhost:6333/collection`, or `qdrant:///folder?collection=conversations`.

        Args:
            url: The URL. Its query may set `https` ("true" for a server with TLS), `prefer_grpc`, `grpc_port`,
                `create_if_not_exist`, `reindex`, and `embedder`: "local" or an OpenAI model. The URL must not contain
                keys: Qdrant's and OpenAI's come from the environment.

        Raises:
            ConfigurationError: It is not such a URL, or an option is invalid.
        """
        parsed = urlsplit(url)
        if parsed.scheme != "qdrant" or "@" in parsed.netloc or parsed.path in ("", "/"):
            raise ConfigurationError(
                "this is not a Qdrant URL: use qdrant://localhost:6333/collection for a server, with its key in "
                "QDRANT_API_KEY, or qdrant:///folder?collection=name for a folder"
            )
        options = options_in(parsed.query, "qdrant", _READERS if parsed.netloc else {**_READERS, "collection": str})
        secure = options.pop("https", False)
        path = unquote(parsed.path)
        if parsed.netloc:
            connection = QdrantConnection(url=f"{'https' if secure else 'http'}://{parsed.netloc}")
            return cls(connection, index_name=path.strip("/"), **options)
        name = options.pop("collection", "conversations")
        return cls(None, index_name=name, path=path.removeprefix("/"), **options)

    def to_url(self) -> str | None:
        """Return the URL of the collection; None if the caller owns the client, the embedder or the ranking."""
        path, url = self._address.path, self._address.url
        if not self._fits_in_a_url or path == ":memory:" or (path is None and url is None):
            return None
        options = {"create_if_not_exist": "false"}
        if self._embedder is not None:
            options["embedder"] = str(self._embedder.given_name)
        if path is not None:
            folder = os.path.abspath(path)  # noqa: PTH100 - Path.absolute keeps ".."
            return f"qdrant:///{folder}?{urlencode({'collection': self.index_name, **options})}"
        parsed = urlsplit(url or "")
        if parsed.path.strip("/"):
            return None  # a server behind a prefix
        if self._address.prefer_grpc:
            options |= {"prefer_grpc": "true", "grpc_port": str(self._address.grpc_port)}
        if parsed.scheme == "https":
            options["https"] = "true"
        return f"qdrant://{parsed.netloc.rpartition('@')[2]}/{self.index_name}?{urlencode(options)}"

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities of this instance.

        A batch is stored request by request, and readers may see half a replacement.
        """
        return Capabilities(vector=self._embedder is not None, max_message_bytes=self.max_message_bytes)

    def _plan(self, operation: operations.Operation[Any]) -> Plan[Any]:  # noqa: PLR0911 - a table of the operations
        match operation:
            case operations.Write(messages):
                return self._writer.write(messages)
            case operations.Read(filter, limit, before, after):
                return _messages(reader.read(filter, limit, before, after))
            case operations.Search(filter, query, limit):
                return self._ranker.search(query, filter, limit)
            case operations.Around(filter, anchors, before_count, after_count):
                return reader.around(anchors, before_count, after_count, filter)
            case operations.Delete(filter):
                return writer.delete(filter)
            case operations.Replace(filter, messages):
                return self._writer.replace(filter, messages)
            case operations.Take(filter):
                return _messages(writer.take(filter))
            case operations.Count(filter):
                return reader.count(filter)
            case operations.Sessions(filter):
                return reader.sessions(filter)
        return super()._plan(operation)

    def _ask(self, request: Request[T]) -> T:
        if self._clients.is_local and threading.current_thread() is threading.main_thread():
            # An interrupt is raised in the main thread: there, it would leave the client's lists half changed.
            (result,) = self._uninterrupted.map(self._send, [request])
            return result
        return self._send(request)

    def _send(self, request: Request[T]) -> T:
        client = self._clients.client.get()
        with self._clients.lock():
            return request.send(client, self.index_name)

    async def _aask(self, request: Request[Any]) -> Any:
        if self._clients.per_loop is None:
            return await super()._aask(request)
        client: Any = await self._clients.per_loop.get()
        return await request.send(client, self.index_name)

    def _wait_before_retry(self, error: Exception, attempt: int) -> float:
        wait = None if self._clients.is_local else errors.wait_before_retry(error, attempt)
        if wait is None:
            raise errors.translated(error, self._location, self._address.api_key) from error
        return wait

    def _close(self) -> None:
        super()._close()
        self._uninterrupted.shut_down()
        self._clients.close()


def _messages(plan: Plan[list[Stored]]) -> Plan[list[Message]]:
    found = yield from plan
    return views(stored.message for stored in found)
