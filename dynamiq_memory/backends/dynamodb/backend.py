"""Messages in an Amazon DynamoDB table."""

from __future__ import annotations

import datetime as dt
import math
import re
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal
from urllib.parse import unquote, urlencode, urlsplit

from dynamiq_memory.backends._order import latest_first
from dynamiq_memory.backends._urls import Readers, options_in, yes_or_no
from dynamiq_memory.backends.base import Capabilities, MemoryBackend
from dynamiq_memory.backends.operations import Operation
from dynamiq_memory.exceptions import BackendError, ConfigurationError, DynamiqMemoryError, MissingDependencyError
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import SESSION_KEY, USER_KEY, Message, Session, check_identifier, views
from dynamiq_memory.ranking import BM25, Tokenize, Tokenizer
from dynamiq_memory.ranking.tokenizer import signature_of

try:
    from botocore.client import BaseClient
    from botocore.exceptions import BotoCoreError, ClientError
except ImportError as error:
    raise MissingDependencyError("the DynamoDB backend needs boto3: pip install 'dynamiq-memory[dynamodb]'") from error

from dynamiq_memory.backends.dynamodb.client import Settings, check_connection, make_client
from dynamiq_memory.backends.dynamodb.errors import translated, without_secrets
from dynamiq_memory.backends.dynamodb.legacy_table import pages_of_messages
from dynamiq_memory.backends.dynamodb.reader import Reader
from dynamiq_memory.backends.dynamodb.records import check_identifiers
from dynamiq_memory.backends.dynamodb.replacements import Replacements
from dynamiq_memory.backends.dynamodb.requests import Table
from dynamiq_memory.backends.dynamodb.schema import check_is_of_dynamiq, open_table
from dynamiq_memory.backends.dynamodb.writer import Writer

BillingMode = Literal["PAY_PER_REQUEST", "PROVISIONED"]

_MAX_MESSAGE_BYTES = 16 * 1024 * 1024
_MOST_RANKED = 100_000
_LONGEST_TTL = 100 * 366 * 24 * 3600
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.NamingRulesDataTypes.html
_TABLE_NAME = re.compile(r"[A-Za-z0-9_.-]{3,255}")

# What a forked child has of its parent's clients: collecting them would take connections apart that the parent uses.
_inherited: list[Any] = []


@dataclass(frozen=True, slots=True)
class CopyLegacyTable(Operation[int]):
    """Copy the messages of a table that the dynamiq package wrote; the result is their number."""

    table_name: str

    def perform(self, backend: MemoryBackend) -> int:
        """Perform the operation."""
        if not isinstance(backend, DynamoDB):
            raise TypeError(f"{backend.name} cannot copy from a table of DynamoDB")
        return backend._copy_from_dynamiq(self.table_name)  # noqa: SLF001 - of this module


class DynamoDB(MemoryBackend):
    """Keeps messages in a DynamoDB table, an item each, for any number of processes and machines.

    The newest messages of a session, or of a user over sessions, are one request whose cost does not depend on what
    else is stored. Up to 100 messages of a batch are stored all or none. Asynchronous methods run in a thread pool,
    because the SDK is synchronous.

    Args:
        connection: A `dynamiq_memory.connections.AWS` (or an object with its attributes, or the dynamiq package's own),
            a boto3 session, or a boto3 client, which stays the caller's. By default, what the environment says.
        table_name: The table.
        create_if_not_exist: Whether to create the table if there is none; else that is an error.
        billing_mode: How a table that is created is paid for: "PAY_PER_REQUEST", or "PROVISIONED" with
            `read_capacity` and `write_capacity`.
        ttl: Seconds, or a timedelta, after which a message expires, from when it was last written; None for never.
            From 1 second to 100 years. The service deletes expired items within some days; they are not shown
            meanwhile.
        consistent_reads: Whether a read sees every write that was acknowledged before it. Without, reading costs half.
        region: The region; by default the connection's.
        endpoint_url: Where the service is; by default what the region and `AWS_ENDPOINT_URL_DYNAMODB` say.
        read_capacity: Units for a table that is created as "PROVISIONED".
        write_capacity: Units for a table that is created as "PROVISIONED".
        max_attempts: How often the SDK tries a request, with growing waits.
        connect_timeout: Seconds to wait for a connection.
        read_timeout: Seconds to wait for an answer.
        max_connections: At most so many connections.
        max_message_bytes: The largest message taken, in bytes of its JSON; 16 MiB by default. More than 100 KB are
            split over several items.
        most_ranked: How many messages, the most recent that match, a search reads and ranks.
        tokenizer: Turns a text into the terms of keyword ranking; English words by default.
        bm25: The parameters of keyword ranking.

    Raises:
        ConfigurationError: An argument is wrong, no region is known, or the table is of another kind.
        BackendConnectionError: The service cannot be reached.
        BackendAuthenticationError: It refuses the credentials or lacks a permission, or there are none.
        BackendError: The table is not there, and is not to be created.
    """

    driver_errors: ClassVar[tuple[type[Exception], ...]] = (BotoCoreError, ClientError)

    def __init__(
        self,
        connection: Any = None,
        table_name: str = "conversations",
        create_if_not_exist: bool = True,
        *,
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
    ) -> None:
        """Connect, and create the table."""
        if not isinstance(table_name, str) or not _TABLE_NAME.fullmatch(table_name):
            raise ConfigurationError(
                f"table_name={table_name!r} cannot be used: give 3 to 255 letters, digits and the characters _ - ."
            )
        if billing_mode not in ("PAY_PER_REQUEST", "PROVISIONED"):
            raise ConfigurationError(f'billing_mode must be "PAY_PER_REQUEST" or "PROVISIONED", not {billing_mode!r}')
        for name, number in (
            ("read_capacity", read_capacity),
            ("write_capacity", write_capacity),
            ("max_attempts", max_attempts),
            ("max_connections", max_connections),
            ("max_message_bytes", max_message_bytes),
            ("most_ranked", most_ranked),
        ):
            if not isinstance(number, int) or isinstance(number, bool) or number < 1:
                raise ConfigurationError(f"{name} must be a whole number of 1 or more, not {number!r}")
        for name, seconds in (("connect_timeout", connect_timeout), ("read_timeout", read_timeout)):
            if not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
                raise ConfigurationError(f"{name} must be more than 0 seconds, not {seconds!r}")
        super().__init__(tokenizer=tokenizer, bm25=bm25)
        self.table_name = table_name
        self.billing_mode = billing_mode
        self.consistent_reads = bool(consistent_reads)
        self.ttl = _seconds(ttl)
        self.max_message_bytes = max_message_bytes
        self.most_ranked = most_ranked
        self._settings = Settings(region, endpoint_url, max_attempts, connect_timeout, read_timeout, max_connections)
        self._connection = check_connection(connection)
        self._own = not isinstance(self._connection, BaseClient)
        self._made: Any = None if self._own else self._connection
        self._making = threading.Lock()
        self._where = f"DynamoDB table {table_name!r}"
        self._set_up()
        billing: dict[str, Any] = {"BillingMode": billing_mode}
        if billing_mode == "PROVISIONED":
            units = {"ReadCapacityUnits": read_capacity, "WriteCapacityUnits": write_capacity}
            billing["ProvisionedThroughput"] = units
        try:
            meta = self._client().meta
            self.region, self.endpoint_url = meta.region_name, without_secrets(meta.endpoint_url)
            self._where += f" in {self.region} ({self.endpoint_url})"
            self._set_up()
            open_table(
                self._client(),
                table_name,
                self._where,
                create=create_if_not_exist,
                billing=billing,
                expiring=self.ttl is not None,
            )
        except self.driver_errors as error:
            self.close()
            raise self._translate(error) from error
        except BaseException:
            self.close()
            raise

    @classmethod
    def from_url(cls, url: str) -> DynamoDB:
        """Make a backend for `dynamodb://table?region=eu-west-1`.

        Args:
            url: The URL. Its query may set `region`, `endpoint_url`, `create_if_not_exist` and `consistent_reads`
                ("true" or "false"), `billing_mode`, and `ttl` (seconds). Credentials do not belong in it: the
                environment gives them.

        Raises:
            ConfigurationError: It is no such URL, or an option is wrong.
        """
        parsed = urlsplit(url)
        if parsed.scheme != "dynamodb" or not parsed.netloc or parsed.path.strip("/") or "@" in parsed.netloc:
            raise ConfigurationError(
                "the URL is none of DynamoDB: write dynamodb://table?region=eu-west-1, without credentials, which the "
                "environment gives"
            )
        return cls(None, unquote(parsed.netloc), **options_in(parsed.query, "dynamodb", _READERS))

    def to_url(self) -> str | None:
        """The URL of the table; None if the client or the ranking is the caller's."""
        standard = signature_of(self.tokenizer) == signature_of(Tokenizer()) and self.bm25 == BM25()
        if not self._own or not standard:
            return None
        options = {"region": self.region, "endpoint_url": self.endpoint_url, "create_if_not_exist": "false"}
        if self.ttl is not None:
            options["ttl"] = str(self.ttl)
        if not self.consistent_reads:
            options["consistent_reads"] = "false"
        return f"dynamodb://{self.table_name}?{urlencode(options)}"

    @property
    def capabilities(self) -> Capabilities:
        """What this instance can do.

        It does not claim transactions: a batch of more than 100 messages has none, and a read may fall into the
        moment in which one becomes visible.
        """
        return Capabilities(ttl=self.ttl is not None, max_message_bytes=self.max_message_bytes)

    def to_dict(self) -> dict[str, Any]:
        """Describe the backend without its secrets and messages."""
        return super().to_dict() | {
            "table_name": self.table_name,
            "region": self.region,
            "endpoint_url": self.endpoint_url,
            "ttl": self.ttl,
            "consistent_reads": self.consistent_reads,
        }

    def __repr__(self) -> str:
        """Name the table and the region."""
        return f"DynamoDB(table_name={self.table_name!r}, region={self.region!r})"

    def copy_from_dynamiq(self, table_name: str) -> int:
        """Copy the messages of a table that the dynamiq package wrote into this one; that one is only read.

        Doing so again doubles nothing. The whole table is read, at that cost.

        Args:
            table_name: The table, in the same region and account.

        Returns:
            How many messages were copied.

        Raises:
            ConfigurationError: It is no such table, or an item of it cannot be read.
        """
        return self.execute(CopyLegacyTable(table_name))

    async def acopy_from_dynamiq(self, table_name: str) -> int:
        """Copy the messages of a table that the dynamiq package wrote into this one; see `copy_from_dynamiq`."""
        return await self.aexecute(CopyLegacyTable(table_name))

    # --- what the base class asks for ------------------------------------------------------------------------

    def _write(self, messages: Sequence[Message]) -> None:
        self._writer.write(messages)

    def _prepare(
        self, messages: Sequence[Message], scope: Mapping[str, str] | None = None, time: float | None = None
    ) -> list[Message]:
        prepared = super()._prepare(messages, scope, time)
        for message in prepared:
            check_identifiers(message)
        return prepared

    def _read(self, where: Filter, limit: int | None, before: Message | None, after: Message | None) -> list[Message]:
        _check_anchors([anchor for anchor in (before, after) if anchor is not None])
        return views(self._reader.read(where, limit, before, after))

    def _around(self, anchors: Sequence[Message], before: int, after: int, where: Filter) -> list[list[Message]]:
        _check_anchors(anchors)
        windows = self._reader.around(anchors, before, after, where)
        # Windows may overlap; each has copies of its own, but for the anchor.
        return [
            [own if own is given else copy for own, copy in zip(window, views(window), strict=True)]
            for window, given in zip(windows, anchors, strict=True)
        ]

    def _delete(self, where: Filter) -> int:
        return self._writer.delete(where)

    def _replace(self, where: Filter, messages: Sequence[Message]) -> None:
        self._writer.replace(where, messages)

    def _update(self, where: Filter, messages: Sequence[Message]) -> list[Message]:
        return self._writer.update(where, messages)

    def _take(self, where: Filter) -> list[Message]:
        return views(self._writer.take(where))

    def _count(self, where: Filter) -> int:
        return self._reader.count(where)

    def _sessions(self, where: Filter) -> list[Session]:
        return latest_first(self._reader.sessions(where))

    def _copy_from_dynamiq(self, table_name: str) -> int:
        client = self._client()
        check_is_of_dynamiq(client, table_name)
        copied = 0
        for messages in pages_of_messages(client, table_name):
            prepared = self._prepare(messages)
            if prepared:
                self._write(prepared)
            copied += len(prepared)
        return copied

    def _is_empty(self, filter: Filter) -> bool:
        return self._reader.empty() if not filter.conditions else super()._is_empty(filter)

    def _close(self) -> None:
        if self._own and self._made is not None:
            self._made.close()

    def _translate(self, error: Exception) -> DynamiqMemoryError:
        return translated(error, self._where)

    def _after_fork(self) -> None:
        super()._after_fork()
        self._making = threading.Lock()
        if self._made is not None:
            _inherited.append(self._made)
            self._made = None
        self._set_up()

    # --- the client ------------------------------------------------------------------------------------------

    def _set_up(self) -> None:
        table = Table(self.table_name, self._where, self._client, consistent=self.consistent_reads)
        replacements = Replacements(table)
        self._reader = Reader(table, replacements)
        self._writer = Writer(table, self._reader, replacements, self.ttl)

    def _client(self) -> Any:
        if self._made is not None:
            return self._made
        if not self._own:
            raise BackendError(
                f"{self._where}: the client was made before this process was forked, and shares its connections with "
                "the parent. Make a new one in this process, or give AWS(…) instead of a client"
            )
        with self._making:
            if self._made is None:
                self._made = made = make_client(self._connection, self._settings)
                weakref.finalize(self, made.close)
        return self._made


_READERS: Readers = {
    "region": str,
    "endpoint_url": str,
    "billing_mode": str,
    "create_if_not_exist": yes_or_no,
    "consistent_reads": yes_or_no,
    "ttl": float,
}


def _seconds(ttl: float | dt.timedelta | None) -> int | None:
    if ttl is None:
        return None
    seconds = ttl.total_seconds() if isinstance(ttl, dt.timedelta) else ttl
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 1 <= seconds <= _LONGEST_TTL:
        raise ConfigurationError(f"ttl must be from 1 second to 100 years, or None for never; not {ttl!r}")
    return math.ceil(seconds)


def _check_anchors(anchors: Sequence[Message]) -> None:
    """Check that messages have what keys are made of.

    Raises:
        MessageError: One has an identifier that no stored message can have.
    """
    for anchor in anchors:
        for name, value in ((USER_KEY, anchor.user_id), (SESSION_KEY, anchor.session_id), ("id", anchor.id)):
            if value is not None:
                check_identifier(value, name)
