"""The DynamoDB backend."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Sequence
from typing import Any, ClassVar, Literal
from urllib.parse import unquote, urlencode, urlsplit

from dynamiq_memory._checks import check_name, check_seconds, check_whole_number
from dynamiq_memory.backends._embedding import MessageEmbedder
from dynamiq_memory.backends._urls import Readers, options_in, yes_or_no
from dynamiq_memory.backends.base import Capabilities, MemoryBackend
from dynamiq_memory.backends.operations import rank
from dynamiq_memory.exceptions import ConfigurationError, DynamiqMemoryError, MissingDependencyError
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import Message, Session, views
from dynamiq_memory.ranking import BM25, Tokenize

try:
    from botocore.config import Config
except ImportError as error:
    raise MissingDependencyError("the DynamoDB backend needs boto3: pip install 'dynamiq-memory[dynamodb]'") from error

from dynamiq_memory.backends.dynamodb.client import client_of
from dynamiq_memory.backends.dynamodb.errors import SDK_ERRORS, translated, without_secrets
from dynamiq_memory.backends.dynamodb.legacy_table import CopyLegacyTable
from dynamiq_memory.backends.dynamodb.reader import Reader
from dynamiq_memory.backends.dynamodb.replacements import LargeReplacements
from dynamiq_memory.backends.dynamodb.schema import open_table
from dynamiq_memory.backends.dynamodb.table import Table
from dynamiq_memory.backends.dynamodb.vectors import Vectors
from dynamiq_memory.backends.dynamodb.writer import Writer

BillingMode = Literal["PAY_PER_REQUEST", "PROVISIONED"]

_MAX_MESSAGE_BYTES = 16 * 1024 * 1024
_MOST_RANKED = 100_000
_LONGEST_TTL = 100 * 366 * 24 * 3600
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.NamingRulesDataTypes.html
_TABLE_NAME = re.compile(r"[A-Za-z0-9_.-]{3,255}")


class DynamoDB(MemoryBackend):
    """Keeps messages in a DynamoDB table, an item each, for any number of processes and machines.

    Reading the newest messages of a session, or of a user over sessions, is one request, and its cost does not
    depend on the rest of the table. Up to 100 messages of a batch are stored all or none. Asynchronous methods run in
    a thread pool, because the SDK is synchronous.

    Args:
        connection: A `dynamiq_memory.connections.AWS` (or an object with its attributes, or the dynamiq package's own),
            a boto3 session, or a boto3 client, which the caller closes. Defaults to the environment's settings.
        table_name: The table.
        create_if_not_exist: Whether to create a missing table; otherwise it is an error.
        embedder: Anything that `dynamiq_memory.embedders.as_embedder` accepts. With one, messages are ranked by words
            and by meaning together, which needs numpy. Without one, messages are ranked by words.
        billing_mode: How a new table is paid for: "PAY_PER_REQUEST", or "PROVISIONED" with `read_capacity` and
            `write_capacity`.
        ttl: Seconds, or a timedelta, after which a message expires, counted from its last write; from 1 second to 100
            years, or None for never. Reads leave expired messages out; the service deletes them within some days.
        consistent_reads: Whether a read sees every write that was acknowledged before it. False halves the price of
            reading.
        region: Defaults to the connection's region.
        endpoint_url: The address of the service. Defaults to the region's, or `AWS_ENDPOINT_URL_DYNAMODB`.
        read_capacity: Units of a new table that is "PROVISIONED".
        write_capacity: Units of a new table that is "PROVISIONED".
        max_attempts: Maximum number of attempts that the SDK makes for a request, with growing waits.
        connect_timeout: Seconds to wait for a connection.
        read_timeout: Seconds to wait for an answer.
        max_connections: Maximum number of connections.
        max_message_bytes: Maximum size of a message, in bytes of its JSON. Defaults to 16 MiB. More than 100 KB are
            split over several items.
        most_ranked: Maximum number of messages, the most recent that match, that a search reads and ranks.
        tokenizer: Turns a text into the terms of keyword ranking. Defaults to English words.
        bm25: The parameters of keyword ranking.
        reindex: With an embedder, embed the messages without a vector, or all if their vectors are of another embedder.
            This reads the whole table.

    Raises:
        ConfigurationError: An argument is wrong, no region is set, or the table is of another kind or embedder.
        MissingDependencyError: There is an embedder, and numpy is not installed.
        BackendConnectionError: The service cannot be reached.
        BackendAuthenticationError: Credentials are missing, refused or lack a permission.
        BackendError: The table is missing, and `create_if_not_exist` is False.
    """

    traces = "point-in-time recovery and backups, if the table has them"
    driver_errors: ClassVar[tuple[type[Exception], ...]] = SDK_ERRORS
    described = ("table_name", "region", "endpoint_url", "ttl", "consistent_reads")

    def __init__(
        self,
        connection: Any = None,
        table_name: str = "conversations",
        create_if_not_exist: bool = True,
        *,
        embedder: Any = None,
        billing_mode: BillingMode = "PAY_PER_REQUEST",
        ttl: float | dt.timedelta | None = None,
        consistent_reads: bool = True,
        region: str | None = None,
        endpoint_url: str | None = None,
        read_capacity: int = 5,
        write_capacity: int = 5,
        max_attempts: int = 5,
        connect_timeout: float = 5.0,
        read_timeout: float = 30.0,
        max_connections: int = 32,
        max_message_bytes: int = _MAX_MESSAGE_BYTES,
        most_ranked: int = _MOST_RANKED,
        tokenizer: Tokenize | None = None,
        bm25: BM25 | None = None,
        reindex: bool = False,
    ) -> None:
        """Connect, and create the table."""
        hint = "use 3 to 255 letters, digits and the characters _ - ."
        self.table_name = check_name("table_name", table_name, _TABLE_NAME, hint)
        if billing_mode not in ("PAY_PER_REQUEST", "PROVISIONED"):
            raise ConfigurationError(f'billing_mode must be "PAY_PER_REQUEST" or "PROVISIONED", not {billing_mode!r}')
        super().__init__(tokenizer=tokenizer, bm25=bm25)
        self.billing_mode = billing_mode
        self.consistent_reads = bool(consistent_reads)
        self.ttl = _seconds(ttl)
        self.max_message_bytes = check_whole_number("max_message_bytes", max_message_bytes)
        self.most_ranked = check_whole_number("most_ranked", most_ranked)
        self._location = f"DynamoDB table {table_name!r}"
        self._embedder = (
            None if embedder is None else MessageEmbedder.compared_here(embedder, self._location, reindexes=True)
        )
        config = Config(
            retries={"mode": "adaptive", "total_max_attempts": check_whole_number("max_attempts", max_attempts)},
            connect_timeout=check_seconds("connect_timeout", connect_timeout),
            read_timeout=check_seconds("read_timeout", read_timeout),
            max_pool_connections=check_whole_number("max_connections", max_connections),
            tcp_keepalive=True,
            user_agent_extra="dynamiq-memory",
        )
        units = {
            "ReadCapacityUnits": check_whole_number("read_capacity", read_capacity),
            "WriteCapacityUnits": check_whole_number("write_capacity", write_capacity),
        }
        provisioned = {"ProvisionedThroughput": units} if billing_mode == "PROVISIONED" else {}
        billing = {"BillingMode": billing_mode, **provisioned}
        self._client, self._owns_client = client_of(connection, region, endpoint_url, config)
        with self._opening():
            client = self._client.get()
            self.region, self.endpoint_url = client.meta.region_name, without_secrets(client.meta.endpoint_url)
            self._location += f" in {self.region} ({self.endpoint_url})"
            open_table(client, table_name, self._location, billing, create=create_if_not_exist, expiring=bool(self.ttl))
        table = Table(table_name, self._location, self._client.get, consistent=self.consistent_reads)
        replacements = LargeReplacements(table)
        self._reader = Reader(table, replacements)
        self._vectors = None if self._embedder is None else Vectors(table, self._embedder)
        self._writer = Writer(table, self._reader, replacements, self.ttl, self._vectors)
        if self._vectors is not None:
            with self._opening():
                self._vectors.open(self._reader, reindex=reindex)

    @classmethod
    def from_url(cls, url: str) -> DynamoDB:
        """Make a backend for `dynamodb://table?region=eu-west-1`.

        Args:
            url: The URL. Its query may set `region`, `endpoint_url`, `create_if_not_exist`, `consistent_reads` and
                `reindex` ("true" or "false"), `billing_mode`, `ttl` (seconds), and `embedder` ("local" or a model of
                OpenAI). It cannot contain credentials: they come from the environment.

        Raises:
            ConfigurationError: It is not such a URL, or an option is wrong.
        """
        parsed = urlsplit(url)
        if parsed.scheme != "dynamodb" or not parsed.netloc or parsed.path.strip("/") or "@" in parsed.netloc:
            raise ConfigurationError(
                "this is not a URL of a DynamoDB table; for example, use dynamodb://table?region=eu-west-1, without "
                "credentials, which come from the environment"
            )
        return cls(None, unquote(parsed.netloc), **options_in(parsed.query, "dynamodb", _READERS))

    def to_url(self) -> str | None:
        """The URL of the table; None if an object of the caller is its client, its embedder or its ranking."""
        name = None if self._embedder is None else self._embedder.given_name
        if not self._owns_client or not self._has_default_ranking or (self._embedder is not None and name is None):
            return None
        options = {"region": self.region, "endpoint_url": self.endpoint_url, "create_if_not_exist": "false"}
        if self.ttl is not None:
            options["ttl"] = str(self.ttl)
        if not self.consistent_reads:
            options["consistent_reads"] = "false"
        if name is not None:
            options["embedder"] = name
        return f"dynamodb://{self.table_name}?{urlencode(options)}"

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities of this instance.

        It does not claim transactions: a batch of more than 100 messages has none, and a read at the moment when one
        becomes visible may see a part of it.
        """
        has_ttl, has_vectors = self.ttl is not None, self._embedder is not None
        return Capabilities(vector=has_vectors, ttl=has_ttl, max_message_bytes=self.max_message_bytes)

    def copy_from_dynamiq(self, table_name: str) -> int:
        """Copy the messages of a table that the dynamiq package wrote; that table is only read.

        Copying again doubles nothing. The whole table is read, at that cost.

        Args:
            table_name: The table, in the same region and account.

        Returns:
            The number of copied messages.

        Raises:
            ConfigurationError: It is not such a table, or an item of it cannot be read.
        """
        return self.execute(CopyLegacyTable(self._client.get, table_name))

    async def acopy_from_dynamiq(self, table_name: str) -> int:
        """Copy the messages of a table that the dynamiq package wrote; see `copy_from_dynamiq`."""
        return await self.aexecute(CopyLegacyTable(self._client.get, table_name))

    # --- the methods of operations ---------------------------------------------------------------------------

    def _write(self, messages: Sequence[Message]) -> None:
        self._writer.write(messages)

    def _read(self, filter: Filter, limit: int | None, before: Message | None, after: Message | None) -> list[Message]:
        return self._reader.read(filter, limit, before, after)

    def _search(self, query: str, filter: Filter, limit: int | None) -> list[Message]:
        vector = None if self._embedder is None else self._embedder.embed_query(query)
        if vector is None or self._vectors is None:
            return super()._search(query, filter, limit)
        found = self._reader.newest(filter, self.most_ranked)
        by_meaning = self._vectors.similarities(vector, self._reader, filter, found)
        return rank(views(each.message for each in found), query, self.tokenizer, self.bm25, limit, by_meaning)

    def _around(self, anchors: Sequence[Message], before: int, after: int, filter: Filter) -> list[list[Message]]:
        return self._reader.around(anchors, before, after, filter)

    def _delete(self, filter: Filter) -> int:
        return self._writer.delete(filter)

    def _replace(self, filter: Filter, messages: Sequence[Message]) -> None:
        self._writer.replace(filter, messages)

    def _update(self, filter: Filter, messages: Sequence[Message]) -> list[Message]:
        return self._writer.update(filter, messages)

    def _take(self, filter: Filter) -> list[Message]:
        return views(self._writer.take(filter))

    def _count(self, filter: Filter) -> int:
        return self._reader.count(filter)

    def _sessions(self, filter: Filter) -> list[Session]:
        return self._reader.sessions(filter)

    def _is_empty(self, filter: Filter) -> bool:
        return self._reader.is_empty(filter)

    # --- the table -------------------------------------------------------------------------------------------

    def _translate(self, error: Exception) -> DynamiqMemoryError:
        return translated(error, self._location)

    def _close(self) -> None:
        self._client.close()
        if self._embedder is not None:
            self._embedder.close()


_READERS: Readers = {
    "region": str,
    "endpoint_url": str,
    "billing_mode": str,
    "create_if_not_exist": yes_or_no,
    "consistent_reads": yes_or_no,
    "ttl": float,
    "embedder": str,
    "reindex": yes_or_no,
}


def _seconds(ttl: float | dt.timedelta | None) -> int | None:
    if ttl is None:
        return None
    seconds = ttl.total_seconds() if isinstance(ttl, dt.timedelta) else ttl
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 1 <= seconds <= _LONGEST_TTL:
        raise ConfigurationError(f"ttl must be from 1 second to 100 years, or None for never; not {ttl!r}")
    return math.ceil(seconds)
