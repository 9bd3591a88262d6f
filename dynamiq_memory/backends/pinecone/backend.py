"""Messages in a Pinecone index."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable
from enum import StrEnum
from typing import Any, ClassVar, TypeVar
from urllib.parse import unquote, urlsplit

from dynamiq_memory.backends._embedding import MessageEmbedder
from dynamiq_memory.backends._order import latest_first
from dynamiq_memory.backends._planned import PlannedBackend
from dynamiq_memory.backends._urls import Readers, options_in, yes_or_no
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
from dynamiq_memory.backends.pinecone.installed import check_installation
from dynamiq_memory.backends.plans import Plan
from dynamiq_memory.exceptions import BackendError, ConfigurationError
from dynamiq_memory.messages import Message, Session, views
from dynamiq_memory.ranking import BM25, Tokenize

check_installation()

from dynamiq_memory.backends._order import Arrivals  # noqa: E402
from dynamiq_memory.backends.pinecone.client import (  # noqa: E402 - imports the client
    AsyncIndexes,
    Caller,
    api_key_of,
    check_connection,
    has_async_twin,
    is_client,
    is_index,
    make_client,
)
from dynamiq_memory.backends.pinecone.reader import Reader  # noqa: E402
from dynamiq_memory.backends.pinecone.recent import Recent  # noqa: E402
from dynamiq_memory.backends.pinecone.records import Stored  # noqa: E402
from dynamiq_memory.backends.pinecone.schema import Opened, open_index  # noqa: E402
from dynamiq_memory.backends.pinecone.search import Ranker  # noqa: E402
from dynamiq_memory.backends.pinecone.writer import Writer  # noqa: E402

__all__ = ["Pinecone", "PineconeIndexType", "PineconeSimilarityMetric"]

_MAX_MESSAGE_BYTES = 8 * 1024 * 1024
_MOST_RANKED = 2_000
# https://docs.pinecone.io/reference/api/database-limits
_INDEX_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,43}[a-z0-9])?")
_MOST_DIMENSIONS = 20_000
_PROBE = "dimension"

# What a forked child has of its parent's clients: collecting them would take connections apart that the parent uses.
_inherited: list[Any] = []


class PineconeIndexType(StrEnum):
    """How an index that is created is run."""

    SERVERLESS = "serverless"
    POD = "pod"


class PineconeSimilarityMetric(StrEnum):
    """How vectors are compared."""

    COSINE = "cosine"
    EUCLIDEAN = "euclidean"
    DOT_PRODUCT = "dotproduct"


class Pinecone(PlannedBackend):
    """Keeps messages in a Pinecone index, a record each, and ranks them by meaning and by words.

    The newest messages of a user's session are two requests, however long the session. What this process wrote is in
    its next read, although the service shows it later; other processes see it when the service shows it. A batch is
    stored whole or not at all if it fits into a request (2 MB, 1,000 messages).

    Args:
        connection: A `dynamiq_memory.connections.Pinecone` (or an object with an `api_key`, such as the `dynamiq`
            package's), a `pinecone.Pinecone`, or an index of one; the last two stay the caller's. By default, what the
            environment says.
        embedder: Turns texts into vectors: one of `dynamiq_memory.embedders`, or of LangChain, LlamaIndex or dynamiq.
        index_name: The index. Not needed where `connection` is an index.
        index_type: How the index is run, if it is created. Where `connection` is an index, how it is run.
        cloud: Where a serverless index is created.
        region: Where a serverless index is created.
        namespace: The namespace within the index. It should hold nothing else.
        create_if_not_exist: Whether to create the index if there is none; else that is an error.
        metric: How vectors are compared; an index that is there must have the same.
        dimension: How many numbers a vector has; by default as many as the index's, or the embedder's.
        environment: Where a pod index is created.
        pod_type: Which pods it gets, such as "p1.x1".
        pods: How many pods it gets: replicas times shards.
        replicas: How many copies.
        shards: How many pods a copy is spread over.
        max_message_bytes: The largest message taken, in bytes of its JSON; 8 MiB by default. More than 28 KB are split
            over several records.
        most_ranked: How many messages, the most recent that match, a search reads and ranks by their words. By meaning,
            all are ranked, and as many of the best looked at.
        tokenizer: Turns a text into the terms of keyword ranking; English words by default.
        bm25: The parameters of keyword ranking.

    Raises:
        ConfigurationError: An argument is wrong, there is no API key, the index is of another kind, or two versions of
            the client are installed over each other.
        BackendConnectionError: The service cannot be reached.
        BackendAuthenticationError: It refuses the API key.
        BackendError: The index is not there, and is not to be created.
    """

    driver_errors: ClassVar[tuple[type[Exception], ...]] = ()  # translated where they are raised

    def __init__(
        self,
        connection: Any = None,
        embedder: Any = None,
        index_name: str = "conversations",
        index_type: PineconeIndexType | str = PineconeIndexType.SERVERLESS,
        cloud: str | None = "aws",
        region: str | None = "us-east-1",
        namespace: str = "default",
        create_if_not_exist: bool = True,
        *,
        metric: PineconeSimilarityMetric | str = PineconeSimilarityMetric.COSINE,
        dimension: int | None = None,
        environment: str | None = None,
        pod_type: str | None = None,
        pods: int = 1,
        replicas: int | None = None,
        shards: int | None = None,
        max_message_bytes: int = _MAX_MESSAGE_BYTES,
        most_ranked: int = _MOST_RANKED,
        tokenizer: Tokenize | None = None,
        bm25: BM25 | None = None,
    ) -> None:
        """Connect, and create the index."""
        if not isinstance(index_name, str) or not _INDEX_NAME.fullmatch(index_name):
            raise ConfigurationError(
                f"index_name={index_name!r} cannot be used: give 1 to 45 lower-case letters, digits and hyphens, "
                "none of these at the ends"
            )
        if not isinstance(namespace, str) or not namespace.isascii() or "\0" in namespace:
            raise ConfigurationError(f"namespace={namespace!r} cannot be used: give ASCII text")
        for name, number, most in (
            ("max_message_bytes", max_message_bytes, math.inf),
            ("most_ranked", most_ranked, math.inf),
            ("pods", pods, math.inf),
            ("replicas", 1 if replicas is None else replicas, math.inf),
            ("shards", 1 if shards is None else shards, math.inf),
            ("dimension", 1 if dimension is None else dimension, _MOST_DIMENSIONS),
        ):
            if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= most:
                raise ConfigurationError(f"{name} must be a whole number of 1 or more, not {number!r}")
        if embedder is None:
            raise ConfigurationError(
                "Pinecone needs an embedder: give embedder=dynamiq_memory.embedders.OpenAIDocumentEmbedder(), or one "
                "of LangChain or LlamaIndex"
            )
        self._recent = Recent()
        self._own_embedder: Any = None
        super().__init__(tokenizer=tokenizer, bm25=bm25)
        self.index_name = index_name
        self.index_type = _member(PineconeIndexType, index_type, "index_type")
        self.metric = _member(PineconeSimilarityMetric, metric, "metric")
        self.namespace = namespace
        self.max_message_bytes = max_message_bytes
        self.most_ranked: int = most_ranked
        self._where = f"Pinecone index {index_name!r}"
        self._embedder = MessageEmbedder(embedder, where=self._where)
        self._given = check_connection(connection)
        self._is_index = is_index(self._given)
        self._own = not self._is_index and not is_client(self._given)
        self._caller = Caller(namespace, self._where, api_key_of(self._given) if self._own else None)
        self._client: Any = None
        self._index: Any = None
        self._indexes: AsyncIndexes | None = None
        self._making = threading.Lock()
        self._creation = _Creation(
            self.index_type, cloud, region, environment, pod_type, pods=pods, replicas=replicas, shards=shards
        )
        try:
            self._opened = self._open(dimension, create=create_if_not_exist)
            self.dimension = self._opened.dimension
            self._check_dimension(dimension)
        except BaseException:
            self.close()
            raise
        self._arrivals = Arrivals()
        self._make_planners()

    @classmethod
    def from_url(cls, url: str) -> Pinecone:
        """Make a backend for `pinecone://conversations?namespace=chats&embedder=text-embedding-3-small`.

        Args:
            url: The URL; its host is the index. Its query may set `namespace`, `metric`, `index_type`, `cloud`,
                `region`, `environment`, `pod_type`, `create_if_not_exist` ("true" or "false"), and `embedder`: a
                model of OpenAI's, which embeds. API keys do not belong in it: the environment gives them.

        Raises:
            ConfigurationError: It is no such URL, or an option is wrong.
        """
        parsed = urlsplit(url)
        if parsed.scheme != "pinecone" or not parsed.netloc or parsed.path.strip("/") or "@" in parsed.netloc:
            raise ConfigurationError(
                "the URL is none of Pinecone: write pinecone://index?namespace=chats, without an API key, which the "
                "environment gives"
            )
        texts = ("namespace", "metric", "index_type", "cloud", "region", "environment", "pod_type", "embedder")
        readers: Readers = {**dict.fromkeys(texts, str), "create_if_not_exist": yes_or_no}
        options = options_in(parsed.query, "pinecone", readers)
        from dynamiq_memory.embedders import OpenAIDocumentEmbedder  # noqa: PLC0415 - only here

        model = options.pop("embedder", None)
        embedder = OpenAIDocumentEmbedder() if model is None else OpenAIDocumentEmbedder(model)
        backend = cls(None, embedder, unquote(parsed.netloc), **options)
        backend._own_embedder = embedder
        return backend

    @property
    def capabilities(self) -> Capabilities:
        """What this instance can do."""
        return Capabilities(vector=True, max_message_bytes=self.max_message_bytes)

    def to_dict(self) -> dict[str, Any]:
        """Describe the backend without its secrets and messages."""
        return super().to_dict() | {
            "index_name": self.index_name,
            "index_type": "serverless" if self._opened.serverless else "pod",
            "namespace": self.namespace,
            "metric": str(self.metric),
            "dimension": self.dimension,
        }

    def __repr__(self) -> str:
        """Name the index and the namespace."""
        return f"Pinecone(index_name={self.index_name!r}, namespace={self.namespace!r})"

    # --- plans -----------------------------------------------------------------------------------------------

    def _make_planners(self) -> None:
        """Set up what makes plans, on what is opened."""
        placeholder = [1.0] + [0.0] * (self.dimension - 1)
        self._reader = Reader(self._recent, listing=self._opened.serverless, placeholder=placeholder)
        unit = self._opened.metric == PineconeSimilarityMetric.EUCLIDEAN
        self._writer = Writer(self._reader, self._recent, self._arrivals, unit=unit)
        self._ranker = Ranker(self._reader, self._opened.metric, self.bm25, self.most_ranked)

    @property
    def _is_asynchronous(self) -> bool:
        return self._indexes is not None

    def _plan_of(self, operation: Operation[Any]) -> Plan[Any]:
        return self._plan(operation)  # it ranks stop words itself

    def _plan(self, operation: Operation[Any]) -> Plan[Any]:  # noqa: C901, PLR0911 - a table of the operations
        match operation:
            case Write(messages):
                return self._writer.write(messages)
            case Read(filter, limit, before, after):
                return _viewed(self._reader.read(filter, limit, before, after))
            case Search(filter, query, limit):
                return self._ranker.search(self.tokenizer_for(query), query, filter, limit)
            case Around(filter, anchors, before_count, after_count):
                return _viewed_windows(self._reader.around(anchors, before_count, after_count, filter))
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
                return _sorted(self._reader.sessions(filter))
        return super()._plan(operation)

    def _ask(self, request: Any) -> Any:
        return self._caller.call(self._sync_index(), request)

    async def _aask(self, request: Any) -> Any:
        if self._indexes is None:
            raise BackendError(f"{self._where} has no asynchronous client")
        return await self._caller.acall(await self._indexes.of_this_loop(), request)

    # --- the client ------------------------------------------------------------------------------------------

    def _open(self, dimension: int | None, *, create: bool) -> Opened:
        if self._is_index:
            self._index = self._given
            stats = self._caller.repeat(self._given.describe_index_stats)
            serverless = self.index_type == PineconeIndexType.SERVERLESS
            return Opened("", int(stats.dimension), self.metric, serverless)
        self._client = make_client(self._given) if self._own else self._given
        creation: Callable[[], dict[str, Any]] | None = None
        if create:
            creation = lambda: self._creation.arguments(self._dimension(dimension), self.metric)  # noqa: E731
        opened = open_index(self._client, self._caller, self.index_name, create=creation, metric=self.metric)
        if has_async_twin(self._client):
            self._indexes = AsyncIndexes(lambda: self._client.IndexAsyncio(host=opened.host))
        return opened

    def _check_dimension(self, given: int | None) -> None:
        if given is not None and given != self.dimension:
            raise ConfigurationError(
                f"{self._where} has vectors of {self.dimension} numbers, not of dimension={given}: give another "
                "index_name, and copy the messages there (get_all, then add_many) to embed them anew"
            )
        self._embedder.expect(self.dimension)

    def _dimension(self, given: int | None) -> int:
        """How many numbers the vectors of a new index have: those of the embedder's."""
        own = self._embedder.dimension_of(_PROBE)
        if own is None:
            raise ConfigurationError("the dimension of the embedder's vectors is not known: give dimension")
        if given is not None and given != own:
            raise ConfigurationError(f"the embedder's vectors have {own} numbers, not dimension={given}")
        return own

    def _sync_index(self) -> Any:
        index = self._index
        if index is not None:
            return index
        if self._is_index:
            raise BackendError(
                f"{self._where}: the index was made before this process was forked, and shares its connections with "
                "the parent. Make a new one in this process, or give a connection or a client instead"
            )
        with self._making:
            if self._index is None:
                self._index = self._client.Index(host=self._opened.host)
            return self._index

    def _close(self) -> None:
        if self._own_embedder is not None:
            self._own_embedder.close()
        if self._indexes is not None:
            self._indexes.close()
        if self._index is not None and not self._is_index:
            self._index.__exit__(None, None, None)
        close = getattr(self._client, "close", None)
        if self._own and callable(close):
            close()

    def _before_fork(self) -> None:
        self._recent.lock.acquire()  # the child must not get a half-written copy

    def _after_fork_in_parent(self) -> None:
        self._recent.lock.release()

    def _after_fork(self) -> None:
        super()._after_fork()
        self._recent.renew_lock()
        if self._closed:
            return
        self._making = threading.Lock()
        self._arrivals = Arrivals()
        _inherited.append(self._index)
        self._index = None
        if self._indexes is not None:
            _inherited.append(self._indexes.abandon())
        if self._own:
            _inherited.append(self._client)
            self._client = make_client(self._given)
        self._make_planners()


class _Creation:
    """How an index is created."""

    def __init__(
        self,
        kind: PineconeIndexType,
        cloud: str | None,
        region: str | None,
        environment: str | None,
        pod_type: str | None,
        *,
        pods: int,
        replicas: int | None,
        shards: int | None,
    ) -> None:
        self._kind = kind
        self._serverless = {"cloud": cloud, "region": region}
        counts = {"pods": pods, "replicas": replicas, "shards": shards}
        self._pod = {"environment": environment, "pod_type": pod_type}
        self._counts = {name: number for name, number in counts.items() if number is not None}

    def arguments(self, dimension: int, metric: str) -> dict[str, Any]:
        """What `create_index` needs to know.

        Raises:
            ConfigurationError: Something is missing.
        """
        settings: dict[str, Any] = self._pod if self._kind == PineconeIndexType.POD else self._serverless
        for name, value in settings.items():
            if not isinstance(value, str) or not value:
                raise ConfigurationError(f"{name} is missing: a {self._kind} index cannot be created without it")
        counts = self._counts if self._kind == PineconeIndexType.POD else {}
        return {"dimension": dimension, "metric": str(metric), "spec": {str(self._kind): {**settings, **counts}}}


Kind = TypeVar("Kind", bound=StrEnum)


def _member(kind: type[Kind], given: Any, name: str) -> Kind:
    # The members of dynamiq's own enumeration are strings too.
    value = getattr(given, "value", given)
    try:
        return kind(value)
    except ValueError:
        raise ConfigurationError(f"{name}={given!r} is unknown: use one of {', '.join(kind)}") from None


def _viewed(plan: Plan[list[Stored]]) -> Plan[list[Message]]:
    found = yield from plan
    return views(stored.message for stored in found if stored.message is not None)


def _viewed_windows(plan: Plan[list[list[Stored | Message]]]) -> Plan[list[list[Message]]]:
    windows = yield from plan
    # Windows may overlap; each has copies of its own, but for the anchor.
    return [
        [
            m
            for each in window
            for m in ([each] if isinstance(each, Message) else views([each.message] if each.message else []))
        ]
        for window in windows
    ]


def _sorted(plan: Plan[list[Session]]) -> Plan[list[Session]]:
    found = yield from plan
    return latest_first(found)
