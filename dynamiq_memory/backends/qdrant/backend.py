"""Messages in Qdrant: on a server, in a folder, or in this process."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlencode, urlsplit

from dynamiq_memory.backends._embedding import MessageEmbedder
from dynamiq_memory.backends._planned import PlannedBackend
from dynamiq_memory.backends._urls import Readers, check_server, options_in, yes_or_no
from dynamiq_memory.backends.base import Capabilities
from dynamiq_memory.backends.operations import (
    Around,
    Count,
    Delete,
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
from dynamiq_memory.connections import Qdrant as QdrantConnection
from dynamiq_memory.connections import plain, without_secrets
from dynamiq_memory.exceptions import BackendError, ConfigurationError, MissingDependencyError
from dynamiq_memory.messages import Message, views
from dynamiq_memory.ranking import BM25, Tokenize, Tokenizer
from dynamiq_memory.ranking.tokenizer import signature_of

try:
    from qdrant_client import AsyncQdrantClient, QdrantClient
except ImportError as error:
    raise MissingDependencyError(
        "the Qdrant backend needs qdrant-client: pip install 'dynamiq-memory[qdrant]'"
    ) from error

from dynamiq_memory.backends.qdrant import errors, reader, search
from dynamiq_memory.backends.qdrant import schema as collection
from dynamiq_memory.backends.qdrant.client import Address, Clients
from dynamiq_memory.backends.qdrant.records import Stored
from dynamiq_memory.backends.qdrant.steps import Ask
from dynamiq_memory.backends.qdrant.writer import Writer

Metric = Literal["cosine", "dot_product", "l2"]

_MAX_MESSAGE_BYTES = 8 * 1024 * 1024
_MOST_RANKED = 10_000
_CANDIDATES = 100
_PROBE = "dimension"


class Qdrant(PlannedBackend):
    """Keeps messages in a Qdrant collection, ranked by words and, with an embedder, by meaning.

    The newest messages of a session are one request; so is the ranking of a search, by both. Every filter is the
    store's own. Asynchronous methods use the asynchronous client, but for local mode (`path`, ":memory:"), which runs
    in this process under a lock.

    Args:
        connection: A `dynamiq_memory.connections.Qdrant` (or an object with `url` and `api_key`), the URL of a server,
            ":memory:", or a `QdrantClient`, which stays the caller's. By default, what the environment says.
        embedder: What turns texts into vectors: one of `dynamiq_memory.embedders`, or what `as_embedder` takes. None
            ranks by words alone.
        index_name: The collection.
        dimension: How many numbers a vector has. By default that of the collection; one that is created asks the
            embedder, by embedding a word.
        create_if_not_exist: Whether to create the collection if there is none; else that is an error.
        path: A folder to keep the collection in, without a server, for one process at a time.
        metric: How vectors are compared, in a collection that is created: "cosine", "dot_product" or "l2".
        on_disk: Whether vectors and payloads of a collection that is created stay on disk rather than in memory.
        vector_weight: How much meaning counts in a search, from 0 to 1; words count the rest.
        candidates: How many messages of each kind a search ranks, at least.
        most_ranked: How many at most; a search without a limit ranks all that match, up to that.
        prefer_grpc: Whether to talk gRPC rather than HTTP.
        grpc_port: The port for that.
        timeout: Seconds to wait for an answer.
        max_message_bytes: The largest message taken, in bytes of its JSON; 8 MiB by default.
        tokenizer: Turns a text into the terms of keyword ranking; English words by default.
        bm25: The parameters of keyword ranking.

    Raises:
        ConfigurationError: An argument is wrong, or the collection is of another kind.
        BackendConnectionError: The server cannot be reached.
        BackendAuthenticationError: It refuses the key.
        BackendError: The collection is not there, and is not to be created.
    """

    def __init__(
        self,
        connection: Any = None,
        embedder: Any = None,
        index_name: str = "conversations",
        dimension: int | None = None,
        *,
        create_if_not_exist: bool = True,
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
        if not isinstance(index_name, str) or not index_name or "/" in index_name or "\0" in index_name:
            raise ConfigurationError(f"index_name={index_name!r} cannot be used: give a name without slashes")
        if metric not in collection.DISTANCES:
            raise ConfigurationError(f"metric must be one of {', '.join(collection.DISTANCES)}, not {metric!r}")
        if not isinstance(vector_weight, int | float) or not 0 <= vector_weight <= 1:
            raise ConfigurationError(f"vector_weight must be from 0 to 1, not {vector_weight!r}")
        for name, number in (
            ("dimension", 1 if dimension is None else dimension),
            ("candidates", candidates),
            ("most_ranked", most_ranked),
            ("grpc_port", grpc_port),
            ("timeout", timeout),
            ("max_message_bytes", max_message_bytes),
        ):
            if not isinstance(number, int) or isinstance(number, bool) or number < 1:
                raise ConfigurationError(f"{name} must be a whole number of 1 or more, not {number!r}")
        super().__init__(tokenizer=tokenizer, bm25=bm25)
        self._model: str | None = None
        self.index_name = index_name
        self.metric = metric
        self.most_ranked = most_ranked
        self.max_message_bytes = max_message_bytes
        address, given = _address(connection, path, prefer_grpc=prefer_grpc, grpc_port=grpc_port, timeout=timeout)
        self._address = address
        place = address.path or (address.url and without_secrets(address.url)) or "the given client"
        self._where = f"Qdrant collection {index_name!r} ({place})"
        self._embedder = None if embedder is None else MessageEmbedder(embedder, dimension, self._where)
        self._clients = Clients(address, given, self._where)
        self._ranking = search.Settings(
            tokenizer=self.tokenizer,
            bm25=self.bm25,
            embeds=embedder is not None,
            vector_weight=float(vector_weight),
            candidates=candidates,
            most_ranked=most_ranked,
            similarity=metric != "l2",
        )
        self._writer = Writer(self.tokenizer, embeds=embedder is not None)
        try:
            self._open(create_if_not_exist, on_disk)
        except BaseException:
            self.close()
            raise

    @classmethod
    def from_url(cls, url: str) -> Qdrant:
        """Make a backend for `qdrant://localhost:6333/collection`, or `qdrant:///folder?collection=conversations`.

        Args:
            url: The URL. Its query may set `https` ("true" for a server with TLS), `prefer_grpc`, `grpc_port`,
                `create_if_not_exist`, and `embedder`: a model of OpenAI's, whose key and URL the environment gives.
                Qdrant's key does not belong in it: the environment gives it.

        Raises:
            ConfigurationError: It is no such URL, or an option is wrong.
        """
        parsed = urlsplit(url)
        if parsed.scheme != "qdrant" or "@" in parsed.netloc or parsed.path in ("", "/"):
            raise ConfigurationError(
                "the URL is none of Qdrant: write qdrant://localhost:6333/collection for a server, without its key, "
                "which QDRANT_API_KEY gives, or qdrant:///folder?collection=name for a folder"
            )
        options = options_in(parsed.query, "qdrant", _READERS if parsed.netloc else {**_READERS, "collection": str})
        model = options.pop("embedder", None)
        if model is not None:
            from dynamiq_memory.embedders import OpenAIDocumentEmbedder  # noqa: PLC0415 - needs its library

            options["embedder"] = OpenAIDocumentEmbedder(model)
        secure = options.pop("https", False)
        if not parsed.netloc:
            name = options.pop("collection", "conversations")
            backend = cls(path=unquote(parsed.path).removeprefix("/"), index_name=name, **options)
        else:
            server = f"{'https' if secure else 'http'}://{parsed.netloc}"
            connection = QdrantConnection(url=server)
            backend = cls(connection, index_name=unquote(parsed.path).strip("/"), **options)
        backend._model = model
        return backend

    def to_url(self) -> str | None:
        """The URL of the collection; None if the client, the embedder or the ranking is the caller's."""
        standard = signature_of(self.tokenizer) == signature_of(Tokenizer()) and self.bm25 == BM25()
        path, url = self._address.path, self._address.url
        own_embedder = self._embedder is None or self._model is not None
        if not standard or not own_embedder or path == ":memory:" or (path is None and url is None):
            return None
        options = {"create_if_not_exist": "false"}
        if self._model is not None:
            options["embedder"] = self._model
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
        """What this instance can do. A batch is stored request by request, a replacement may be seen half done."""
        return Capabilities(vector=self._embedder is not None, max_message_bytes=self.max_message_bytes)

    def to_dict(self) -> dict[str, Any]:
        """Describe the backend without its secrets and messages."""
        return super().to_dict() | {
            "index_name": self.index_name,
            "url": self._address.url and without_secrets(self._address.url),
            "path": self._address.path,
            "metric": self.metric,
            "dimension": self._embedder.dimension if self._embedder is not None else None,
        }

    def __repr__(self) -> str:
        """Name the collection."""
        place = self._address.path or (self._address.url and without_secrets(self._address.url))
        return f"Qdrant(index_name={self.index_name!r}, at={place!r})"

    async def aclose(self) -> None:
        """Release what the backend opened; see `close`."""
        await self._clients.aclose()
        await super().aclose()

    # --- operations ------------------------------------------------------------------------------------------

    @property
    def _is_asynchronous(self) -> bool:
        return self._clients.is_asynchronous

    def _plan(self, operation: Operation[Any]) -> Plan[Any]:  # noqa: C901, PLR0911 - a table of the operations
        match operation:
            case Write(messages):
                return self._writer.write(messages)
            case Read(filter, limit, before, after):
                return _viewed(reader.read(filter, limit, before, after))
            case Search(filter, query, limit):
                return _ranked(search.search(self._ranking, query, filter, limit))
            case Around(filter, anchors, before_count, after_count):
                return _windows(anchors, reader.around(anchors, before_count, after_count, filter))
            case Delete(filter):
                return self._writer.delete(filter)
            case Replace(filter, messages):
                return self._writer.replace(filter, messages)
            case Update(filter, messages):
                return self._writer.update(filter, messages)
            case Take(filter):
                return _viewed(self._writer.take(filter))
            case Count(filter):
                return reader.count(filter)
            case Sessions(filter):
                return reader.sessions(filter)
        return super()._plan(operation)

    def _close(self) -> None:
        self._clients.close()

    def _before_fork(self) -> None:
        self._clients.before_fork()

    def _after_fork_in_parent(self) -> None:
        self._clients.after_fork_in_parent()

    def _after_fork(self) -> None:
        super()._after_fork()
        self._clients.after_fork()
        self._writer = Writer(self.tokenizer, embeds=self._embedder is not None)

    # --- opening ---------------------------------------------------------------------------------------------

    def _open(self, create_if_not_exist: bool, on_disk: bool) -> None:
        there = self._call_client("collection_exists")
        if not there and not create_if_not_exist:
            raise ConfigurationError(
                f"{self._where} is not there: correct index_name, or give create_if_not_exist=True"
            )
        embedder = self._embedder
        if not there and embedder is not None and embedder.dimension is None:
            embedder.expect(embedder.dimension_of(_PROBE))
        wanted = collection.Wanted(
            where=self._where,
            embeds=embedder is not None,
            dimension=embedder.dimension if embedder is not None else None,
            metric=self.metric,
            on_disk=on_disk,
            tokenizer=signature_of(self.tokenizer),
        )
        if not there:
            try:
                collection.create(self._call_client, wanted)
            except BackendError:
                if not self._call_client("collection_exists"):  # else another process was faster
                    raise
        dimension = collection.dimension_of(self._call_client, wanted)
        collection.complete(self._call_client, wanted, local=self._clients.local)
        if embedder is not None and dimension is not None:
            embedder.expect(dimension)

    # --- requests --------------------------------------------------------------------------------------------

    def _ask(self, request: Ask) -> Any:
        """Call the client's method for the collection, again where a failure may pass."""
        local, tries = self._clients.local, 0
        kinds = errors.LOCAL if local else errors.REMOTE
        while True:
            tries += 1
            try:
                client = self._clients.client()
                with self._clients.exclusive():
                    return getattr(client, request.method)(self.index_name, **request.arguments)
            except kinds as error:
                wait = None if local else errors.wait_before(error, tries)
                if wait is None:
                    raise errors.translated(error, self._where, self._address.api_key) from error
                time.sleep(wait)

    async def _aask(self, request: Ask) -> Any:
        tries = 0
        while True:
            tries += 1
            try:
                client = await self._clients.async_client()
                return await getattr(client, request.method)(self.index_name, **request.arguments)
            except errors.REMOTE as error:
                wait = errors.wait_before(error, tries)
                if wait is None:
                    raise errors.translated(error, self._where, self._address.api_key) from error
                await asyncio.sleep(wait)

    def _call_client(self, method: str, **arguments: Any) -> Any:
        return self._ask(Ask(method, arguments))


_READERS: Readers = {
    "https": yes_or_no,
    "prefer_grpc": yes_or_no,
    "create_if_not_exist": yes_or_no,
    "grpc_port": int,
    "embedder": str,
}


def _folder(connection: Any, path: str | Path) -> Address:
    if connection is not None:
        raise ConfigurationError("give either connection or path: a folder needs no server")
    if Path(path).is_file():
        raise ConfigurationError(f"{str(path)!r} is a file: path names a folder, which is made if there is none")
    return Address(path=str(path))


def _address(connection: Any, path: str | Path | None, **settings: Any) -> tuple[Address, QdrantClient | None]:
    """What was given as a connection: where that is, or the caller's client."""
    if path is not None:
        return _folder(connection, path), None
    if isinstance(connection, QdrantClient):
        return Address(), connection
    if isinstance(connection, AsyncQdrantClient):
        raise ConfigurationError(
            "connection must be a QdrantClient or a Qdrant(url=…), which serve both, not an async one"
        )
    if connection == ":memory:":
        return Address(path=":memory:"), None
    if connection is None:
        connection = QdrantConnection()
    elif isinstance(connection, str):
        connection = QdrantConnection(url=connection)
    if not hasattr(connection, "url") or not hasattr(connection, "api_key"):
        raise ConfigurationError(
            'connection must be a dynamiq_memory.connections.Qdrant, a URL, ":memory:" or a QdrantClient, not a '
            f"{type(connection).__name__}"
        )
    url = connection.url
    check_server(url, "Qdrant's url (QDRANT_URL or Qdrant(url=…))")
    return Address(url=url, api_key=plain(connection.api_key), **settings), None


def _viewed(plan: Plan[list[Stored]]) -> Plan[list[Message]]:
    return _views((yield from plan))


def _views(found: Sequence[Stored]) -> list[Message]:
    return views(stored.message for stored in found)


def _ranked(plan: Plan[list[Message]]) -> Plan[list[Message]]:
    found = yield from plan
    results = views(found)
    for result, message in zip(results, found, strict=True):
        result.score = message.score
    return results


def _windows(
    anchors: Sequence[Message], plan: Plan[list[tuple[list[Stored], list[Stored]]]]
) -> Plan[list[list[Message]]]:
    sides = yield from plan
    return [[*_views(earlier), anchor, *_views(later)] for anchor, (earlier, later) in zip(anchors, sides, strict=True)]
