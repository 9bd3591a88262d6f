"""Messages in a PostgreSQL database: constructor, URLs, opening and closing."""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from dynamiq_memory._checks import check_seconds, check_whole_number
from dynamiq_memory._json import is_clean
from dynamiq_memory.backends._embedding import MessageEmbedder
from dynamiq_memory.backends._sql.backend import MAX_MESSAGE_BYTES, SQLBackend, Transaction
from dynamiq_memory.backends._urls import Readers, read_options, yes_or_no
from dynamiq_memory.backends.operations import Operation
from dynamiq_memory.backends.postgresql.client import DRIVER_ERRORS, PostgreSQLClient, url_of
from dynamiq_memory.backends.postgresql.errors import AT_COMMIT, is_disconnect, must_run_again, translated
from dynamiq_memory.backends.postgresql.schema import LEGACY, PostgreSQLSchema
from dynamiq_memory.backends.postgresql.search import PostgreSQLHybridSearch, PostgreSQLWordSearch
from dynamiq_memory.backends.postgresql.tables import PostgreSQLTables
from dynamiq_memory.backends.postgresql.writer import PostgreSQLWriter
from dynamiq_memory.exceptions import BackendError, ConfigurationError, DynamiqMemoryError
from dynamiq_memory.ranking import BM25, Tokenize

# PostgreSQL cuts longer names, and the longest suffix of our names is "_by_session".
_LONGEST_NAME = 63 - len("_by_session")
_ATTEMPTS = 5
_READERS: Readers = {
    "table_name": str,
    "schema": str,
    "create_if_not_exist": yes_or_no,
    "pool_size": int,
    "pool_timeout": float,
    "statement_timeout": float,
    "prepared_statements": yes_or_no,
    "embedder": str,
    "reindex": yes_or_no,
}


class PostgreSQL(SQLBackend):
    """Keeps messages in a PostgreSQL database, for any number of processes and machines.

    An acknowledged message is committed. Reads of one session, appends and deletes touch only their own rows. Tables
    that the `dynamiq` package wrote are upgraded in place when they are opened, in one transaction.

    Args:
        connection: Where the database is: a `dynamiq_memory.connections.PostgreSQL` (or an object with its
            attributes), a URL `postgresql://user:password@host:port/database`, or a SQLAlchemy engine for psycopg,
            which is owned by the caller: asynchronous methods then use it in a thread pool. Defaults to what the
            environment says.
        table_name: Name of the table of messages. It comes with two tables that have the suffixes `_terms` and `_meta`.
        create_if_not_exist: Whether to create missing tables; otherwise they are an error.
        embedder: Anything that `dynamiq_memory.embedders.as_embedder` accepts. With one, messages are ranked by words
            and by meaning together, which needs the extension pgvector. The vectors are in a table with the suffix
            `_vectors`. Without one, messages are ranked by words.
        schema: Database schema of the tables. Defaults to the first of the search path.
        pool_size: Maximum number of connections, for synchronous methods and for each event loop.
        pool_timeout: Seconds to wait for a free connection.
        statement_timeout: Seconds that a statement may take. None for the server's setting.
        prepared_statements: Whether the server may keep statements that are run often. False behind a pooler that gives
            each transaction another connection, such as PgBouncer. Defaults to True.
        max_message_bytes: Maximum size of a message, in bytes of its JSON. Defaults to 256 MiB.
        tokenizer: Splits a text into the terms of keyword ranking. Defaults to English words. The tables remember the
            one that they were written with.
        bm25: The parameters of keyword ranking.
        reindex: Index the stored messages again if they were written with another tokenizer; with an embedder, embed
            the messages without a vector, or all if their vectors are of another embedder.

    Raises:
        ConfigurationError: An argument is wrong, the tables are of another kind, or pgvector is missing.
        BackendConnectionError: The server cannot be reached.
        BackendAuthenticationError: It refuses the user or the password.
    """

    traces = "dead rows until they are vacuumed, the write-ahead log, replicas that are behind, and backups"
    driver_errors: ClassVar[tuple[type[Exception], ...]] = DRIVER_ERRORS
    described = ("server", "table_name", "schema")

    def __init__(
        self,
        connection: Any = None,
        table_name: str = "conversations",
        create_if_not_exist: bool = True,
        embedder: Any = None,
        *,
        schema: str | None = None,
        pool_size: int = 10,
        pool_timeout: float = 30.0,
        statement_timeout: float | None = None,
        prepared_statements: bool = True,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        tokenizer: Tokenize | None = None,
        bm25: BM25 | None = None,
        reindex: bool = False,
    ) -> None:
        """Connect, and create or upgrade the tables."""
        self.table_name = _checked_name("table_name", table_name)
        self.schema = None if schema is None else _checked_name("schema", schema)
        self.pool_size = check_whole_number("pool_size", pool_size)
        self.max_message_bytes = check_whole_number("max_message_bytes", max_message_bytes)
        self.pool_timeout = check_seconds("pool_timeout", pool_timeout)
        self.statement_timeout = (
            None if statement_timeout is None else check_seconds("statement_timeout", statement_timeout)
        )
        self.prepared_statements = prepared_statements
        super().__init__(tokenizer=tokenizer, bm25=bm25)
        if embedder is not None:
            self._embedder = MessageEmbedder(embedder, location=f"the table {table_name!r}", reindexes=True)
        self._client = PostgreSQLClient(
            connection,
            self.pool_size,
            self.pool_timeout,
            self.statement_timeout,
            prepared_statements=prepared_statements,
        )
        self.server = self._client.server
        self._per_loop = self._client.per_loop if self._client.owns_engine else None
        tables = PostgreSQLTables(table_name, schema, self._client.engine.dialect, self.tokenizer, self._embedder)
        self._use(tables)
        self._words = PostgreSQLWordSearch(tables, self._reader, self.bm25)
        self._hybrid = PostgreSQLHybridSearch(tables, self._reader, self.bm25)
        self._writer = PostgreSQLWriter(tables)
        with self._opening():
            opening = PostgreSQLSchema(tables, self._writer, LEGACY)
            opening.open_on(self._client, create=create_if_not_exist, reindex=reindex)

    @classmethod
    def from_url(cls, url: str) -> PostgreSQL:
        """Make a backend for `postgresql://user:password@host:port/database`.

        Args:
            url: The URL. Its query may set `table_name`, `schema`, `create_if_not_exist` and `reindex` ("true" or
                "false"), `pool_size`, `pool_timeout`, `statement_timeout`, `prepared_statements`, and `embedder`
                ("local" or a model of OpenAI); the rest of it is for libpq
                (https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS).

        Raises:
            ConfigurationError: It is not such a URL, or an option is wrong.
        """
        parsed = url_of(url)
        texts = {}
        for name in _READERS.keys() & parsed.query.keys():
            text = parsed.query[name]
            if not isinstance(text, str):
                raise ConfigurationError(f"{name} appears in the URL more than once")
            texts[name] = text
        options = read_options(texts, _READERS)
        rest = parsed.difference_update_query(list(options))
        return cls(rest.render_as_string(hide_password=False), **options)

    def to_url(self) -> str | None:
        """The URL of the tables.

        None if it would contain a password, or if an engine, an embedder, a tokenizer or BM25 was passed as an object.
        """
        url = self._client.engine.url
        secret = url.password or any("password" in key for key in url.query)
        if secret or not self._client.owns_engine or not self._fits_in_a_url:
            return None
        options = {"table_name": self.table_name, "create_if_not_exist": "false"}
        if self.schema is not None:
            options["schema"] = self.schema
        if not self.prepared_statements:
            options["prepared_statements"] = "false"
        if self._embedder is not None:
            options["embedder"] = str(self._embedder.given_name)
        return url.set(drivername="postgresql", password=None).update_query_dict(options).render_as_string()

    def _ask(self, request: Transaction[Any]) -> Any:
        return self._client.run(request)

    async def _aask(self, request: Transaction[Any]) -> Any:
        if request.large:
            return await super()._aask(request)
        return await self._client.arun(request)

    def _may_repeat(self, operation: Operation[Any], error: Exception, attempt: int) -> bool:
        if must_run_again(error):  # the server has rolled it back
            return attempt < _ATTEMPTS
        if not is_disconnect(error) or attempt > 1:
            return False
        return operation.repeatable or not getattr(error, AT_COMMIT, False)

    def _translate(self, error: Exception) -> DynamiqMemoryError:
        if isinstance(error, PoolTimeoutError):
            return BackendError(
                f"all {self.pool_size} connections to {self.server} have been in use for "
                f"{self.pool_timeout:g} s: raise pool_size, or do less at once"
            )
        return translated(error, self.server)

    def _close(self) -> None:
        super()._close()
        self._client.close()


def _checked_name(option: str, name: str) -> str:
    if not isinstance(name, str) or not name or not is_clean(name) or len(name.encode()) > _LONGEST_NAME:
        raise ConfigurationError(f"{option}={name!r} cannot be used: give a string of 1 to {_LONGEST_NAME} bytes")
    return name
