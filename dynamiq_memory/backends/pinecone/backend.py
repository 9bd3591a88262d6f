"""The Pinecone backend: an index of the service."""

from __future__ import annotations

import re
from functools import partial
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from dynamiq_memory._checks import check_choice, check_name, check_whole_number
from dynamiq_memory.backends import operations
from dynamiq_memory.backends._embedding import MessageEmbedder
from dynamiq_memory.backends._planned import PlannedBackend
from dynamiq_memory.backends._urls import Readers, options_in, yes_or_no
from dynamiq_memory.backends.base import Capabilities
from dynamiq_memory.backends.pinecone.installed import check_installation
from dynamiq_memory.backends.plans import Plan
from dynamiq_memory.exceptions import ConfigurationError
from dynamiq_memory.messages import Message
from dynamiq_memory.ranking import BM25, Tokenize

check_installation()

# These import the client, which must be installed.
from dynamiq_memory.backends.pinecone import errors, schema  # noqa: E402
from dynamiq_memory.backends.pinecone.client import Clients  # noqa: E402
from dynamiq_memory.backends.pinecone.reader import Reader, messages_of  # noqa: E402
from dynamiq_memory.backends.pinecone.recent_writes import RecentWrites  # noqa: E402
from dynamiq_memory.backends.pinecone.records import Stored  # noqa: E402
from dynamiq_memory.backends.pinecone.requests import ClientRequest, IndexRequest  # noqa: E402
from dynamiq_memory.backends.pinecone.schema import PineconeIndexType, PineconeSimilarityMetric  # noqa: E402
from dynamiq_memory.backends.pinecone.search import Ranker  # noqa: E402
from dynamiq_memory.backends.pinecone.vectors import Vectors  # noqa: E402
from dynamiq_memory.backends.pinecone.writer import Writer  # noqa: E402

T = TypeVar("T")

_MAX_MESSAGE_BYTES = 8 * 1024 * 1024
_MOST_RANKED = 2_000
# https://docs.pinecone.io/reference/api/database-limits
_INDEX_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,43}[a-z0-9])?")
_NAMESPACE = re.compile(r"[\x01-\x7f]*")
_MOST_DIMENSIONS = 20_000
_DEFAULT_MODEL = "text-embedding-3-small"
_READERS: Readers = {
    "namespace": str,
    "metric": str,
    "index_type": str,
    "cloud": str,
    "region": str,
    "environment": str,
    "pod_type": str,
    "embedder": str,
    "create_if_not_exist": yes_or_no,
    "reindex": yes_or_no,
}


class Pinecone(PlannedBackend):
    """Stores messages in a Pinecone index, a record each, and ranks them by meaning and by words.

    The newest messages of a user's session take two requests, however long the session is. This process sees its own
    writes at once; the service shows them to other processes later. A batch is stored completely or not at all if it
    fits in one request (2 MB, 1,000 messages).

    Args:
        connection: A `dynamiq_memory.connections.Pinecone` (or an object with an `api_key`, such as the `dynamiq`
            package's), or a `pinecone.Pinecone` or one of its indexes, which the caller closes. Defaults to the
            settings of the environment.
        embedder: Converts texts to vectors: one of `dynamiq_memory.embedders`, or of LangChain, LlamaIndex or dynamiq.
        index_name: Name of the index. Ignored if `connection` is an index.
        index_type: How a new index is run. If `connection` is an index, how it is run.
        cloud: Cloud of a new serverless index.
        region: Region of a new serverless index.
        namespace: Namespace within the index. It must not contain anything else.
        create_if_not_exist: Whether to create a missing index. Otherwise it is an error.
        reindex: Embed the messages again that were stored with another embedder of the same dimension.
        metric: How vectors are compared. An existing index must have the same metric.
        dimension: Length of the vectors. Defaults to that of the index or of the embedder.
        environment: Environment of a new pod index.
        pod_type: Type of its pods, such as "p1.x1".
        pods: Number of its pods: replicas times shards.
        replicas: Number of copies.
        shards: Number of pods per copy.
        max_message_bytes: Maximum size of a message, in bytes of its JSON. Defaults to 8 MiB. A message of more than
            28 KB takes several records.
        most_ranked: Maximum number of messages that a search reads and ranks by their words, the most recent matching
            ones. It ranks all messages by meaning, and looks at this many of the best.
        tokenizer: Splits a text into the terms of keyword ranking. Defaults to English words.
        bm25: The parameters of keyword ranking.

    Raises:
        ConfigurationError: An argument is invalid, there is no API key, the index does not fit, or two versions of the
            client are installed over each other.
        BackendConnectionError: The service cannot be reached.
        BackendAuthenticationError: The service rejects the API key.
        BackendError: The index does not exist, and `create_if_not_exist` is False.
    """

    traces = "the index, which may show deleted records for some seconds, and backups of the index"
    request_errors = errors.CLIENT_ERRORS
    described = ("index_name", "namespace", "dimension")

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
        reindex: bool = False,
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
        """Connect, and open or create the index."""
        hint = "choose 1 to 45 lower-case letters, digits and hyphens, without hyphens at the ends"
        self.index_name = check_name("index_name", index_name, _INDEX_NAME, hint)
        self.namespace = check_name("namespace", namespace, _NAMESPACE, "choose an ASCII text")
        for name, number in (
            ("max_message_bytes", max_message_bytes),
            ("most_ranked", most_ranked),
            ("pods", pods),
            ("replicas", 1 if replicas is None else replicas),
            ("shards", 1 if shards is None else shards),
        ):
            check_whole_number(name, number)
        if dimension is not None:
            check_whole_number("dimension", dimension, most=_MOST_DIMENSIONS)
        if embedder is None:
            raise ConfigurationError(
                "Pinecone needs an embedder: pass embedder=dynamiq_memory.embedders.OpenAIDocumentEmbedder(), or one "
                "of LangChain or LlamaIndex"
            )
        super().__init__(tokenizer=tokenizer, bm25=bm25)
        self.index_type = check_choice(PineconeIndexType, index_type, "index_type", ConfigurationError)
        self.metric = check_choice(PineconeSimilarityMetric, metric, "metric", ConfigurationError)
        self.max_message_bytes = max_message_bytes
        self.most_ranked: int = most_ranked
        self._location = f"Pinecone index {index_name!r}"
        copies = "Pinecone(…, embedder=…, index_name='another')"
        self._embedder: MessageEmbedder = MessageEmbedder(
            embedder, location=self._location, reindexes=True, copies=copies
        )
        self._clients = Clients(connection, self._location)
        new = (
            schema.NewIndex(self.index_type, self.metric, cloud, region, environment, pod_type, pods, replicas, shards)
            if create_if_not_exist
            else None
        )
        with self._opening():
            index = self._run(self._open(dimension, new))
            self.dimension = index.dimension
            self._is_serverless = index.is_serverless
            self._reader = Reader(RecentWrites(), [1.0] + [0.0] * (self.dimension - 1), can_list=index.is_serverless)
            normalizes = self.metric == PineconeSimilarityMetric.EUCLIDEAN
            vectors = Vectors(self._embedder, self._reader, self._location, normalizes=normalizes)
            self._run(vectors.open(reindex=reindex))
        self._writer = Writer(self._reader, self._embedder.label, normalizes=normalizes)
        self._ranker = Ranker(self._reader, self.metric, self.bm25, self.most_ranked, lambda: vectors.comparable)

    @classmethod
    def from_url(cls, url: str) -> Pinecone:
        """Make a backend for `pinecone://conversations?namespace=chats&embedder=text-embedding-3-small`.

        Args:
            url: The URL; its host is the index. Its query may set `namespace`, `metric`, `index_type`, `cloud`,
                `region`, `environment`, `pod_type`, `create_if_not_exist` and `reindex` ("true" or "false"), and
                `embedder`: "local" or an OpenAI model. The URL must not contain keys: they come from the environment.

        Raises:
            ConfigurationError: It is not such a URL, or an option is invalid.
        """
        parsed = urlsplit(url)
        if parsed.scheme != "pinecone" or not parsed.netloc or parsed.path.strip("/") or "@" in parsed.netloc:
            raise ConfigurationError(
                "this is not a Pinecone URL: use pinecone://index?namespace=chats, with the API key in PINECONE_API_KEY"
            )
        options = options_in(parsed.query, "pinecone", _READERS)
        embedder = options.pop("embedder", _DEFAULT_MODEL)
        return cls(None, embedder, unquote(parsed.netloc), **options)

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities of this instance."""
        return Capabilities(vector=True, max_message_bytes=self.max_message_bytes)

    def to_dict(self) -> dict[str, Any]:
        """Describe the backend without its secrets and messages."""
        return super().to_dict() | {
            "index_type": "serverless" if self._is_serverless else "pod",
            "metric": str(self.metric),
        }

    def _plan_of(self, operation: operations.Operation[Any]) -> Plan[Any]:
        return self._plan(operation)  # a search by stop words needs no plan of its own

    def _plan(self, operation: operations.Operation[Any]) -> Plan[Any]:  # noqa: C901, PLR0911 - a table of the operations
        match operation:
            case operations.Write(messages):
                return self._writer.write(messages)
            case operations.Read(filter, limit, before, after):
                return _messages(self._reader.read(filter, limit, before, after))
            case operations.Search(filter, query, limit):
                return self._ranker.search(self._tokenizer_for(query), query, filter, limit)
            case operations.Around(filter, anchors, before_count, after_count):
                return self._reader.around(anchors, before_count, after_count, filter)
            case operations.Delete(filter):
                return self._writer.delete(filter)
            case operations.Replace(filter, messages):
                return self._writer.replace(filter, messages)
            case operations.Take(filter):
                return _messages(self._writer.take(filter))
            case operations.Count(filter):
                return self._reader.count(filter)
            case operations.Sessions(filter):
                return self._reader.sessions(filter)
            case operations.IsEmpty(filter):
                return self._reader.is_empty(filter)
        return super()._plan(operation)

    def _ask(self, request: IndexRequest[T] | ClientRequest[T]) -> T:
        if isinstance(request, ClientRequest):
            return request.send(self._clients.client.get())
        return request.send(self._clients.index.get(), self.namespace)

    async def _aask(self, request: IndexRequest[T]) -> T:
        if self._per_loop is None:
            return await super()._aask(request)  # type: ignore[no-any-return]
        response: Any = request.send(await self._per_loop.get(), self.namespace)
        result: T = await response
        return result

    def _wait_before_retry(self, error: Exception, attempt: int) -> float:
        wait = errors.wait_before_retry(error, attempt)
        if wait is None:
            raise errors.translated(error, self._location, self._clients.secret) from error
        return wait

    def _open(self, dimension: int | None, new: schema.NewIndex | None) -> Plan[schema.Index]:
        if self._clients.has_index:
            stats: Any = yield from IndexRequest(lambda index, _: index.describe_index_stats())
            is_serverless = self.index_type == PineconeIndexType.SERVERLESS
            index = schema.Index("", int(stats.dimension), is_serverless)
        else:
            dimension_of_new = partial(self._dimension_of_embedder, dimension)
            index = yield from schema.open_index(self.index_name, self._location, self.metric, new, dimension_of_new)
            self._per_loop = self._clients.use(index.host)
        if dimension is not None and dimension != index.dimension:
            raise ConfigurationError(
                f"{self._location} has vectors of {index.dimension} numbers, not of dimension={dimension}: use another "
                "index_name, and copy the messages, which embeds them again: `dynamiq-memory copy FROM TO`"
            )
        self._embedder.dimension = index.dimension
        return index

    def _dimension_of_embedder(self, dimension: int | None) -> int:
        embedders = self._embedder.measured_dimension()
        if dimension is not None and dimension != embedders:
            raise ConfigurationError(f"the embedder's vectors have {embedders} numbers, not dimension={dimension}")
        return embedders

    def _close(self) -> None:
        super()._close()
        self._clients.close()


def _messages(plan: Plan[list[Stored]]) -> Plan[list[Message]]:
    return messages_of((yield from plan))
