"""Messages on the Dynamiq platform, or on a service of ours that speaks its API."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlencode, urlsplit

from dynamiq_memory._json import is_clean
from dynamiq_memory.backends._defaults import rank
from dynamiq_memory.backends._urls import Readers, check_server, options_in
from dynamiq_memory.backends.base import Capabilities, MemoryBackend
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
from dynamiq_memory.connections import Dynamiq as DynamiqConnection
from dynamiq_memory.exceptions import BackendError, ConfigurationError, MissingDependencyError
from dynamiq_memory.messages import SESSION_KEY, USER_KEY, Message, check_identifier
from dynamiq_memory.ranking import BM25, Tokenize, Tokenizer
from dynamiq_memory.ranking.tokenizer import signature_of

try:
    from dynamiq_memory.backends.dynamiq.client import Transport
except ImportError as error:
    if isinstance(error, MissingDependencyError):
        raise
    raise MissingDependencyError(
        "the Dynamiq backend needs httpx and httpx-retries: pip install 'dynamiq-memory[dynamiq]'"
    ) from error

from dynamiq_memory.backends.dynamiq.plain import Plain, default_filter
from dynamiq_memory.backends.dynamiq.requests import Exchange, Request
from dynamiq_memory.backends.dynamiq.served import Served

T = TypeVar("T")

_SERVICE = "dynamiq-memory"
# What may answer a question for which the platform has no answer.
_UNKNOWN = (400, 404, 405, 422, 501)
_READERS: Readers = {"user_id": str, "session_id": str, "timeout": float, "limit": int, "retries": int}

# What a forked child has of its parent's connections: collecting it would end them for the parent, too.
_inherited: list[Transport] = []


class Dynamiq(MemoryBackend):
    """Keeps messages where agents of the `dynamiq` package keep theirs, on the platform or on a service of ours.

    When it is made it asks the server what it is. `dynamiq-memory serve` does the whole contract: batches and
    replacements are as atomic as its store, searching is done there. On the platform, of which only storing, listing
    and deleting are known, order, filters and ranking are done in this process, over whole sessions; both ids must be
    known to read; and single messages cannot be deleted (docs/dynamiq-platform.md).

    Args:
        connection: A `dynamiq_memory.connections.Dynamiq`, or an object with its `url`, `api_key` and `headers`, such
            as the `dynamiq` package's own. By default, what the environment says.
        memory_id: The memory.
        user_id: The user of messages and filters that name none.
        session_id: The session of messages and filters that name none.
        timeout: Seconds to wait for a connection, and for each part of an answer.
        limit: How many messages to ask the platform for at once.
        retries: How often a request is sent again that was refused for a while (429, 502, 503, 504) or broke off.
            Writes are, too: an id that is sent again replaces. What cannot be repeated without harm is not.
        detect: Whether to ask the server what it is; without, it is taken for the platform.
        tokenizer: Turns a text into the terms of keyword ranking in this process; our service has its own.
        bm25: The parameters of keyword ranking in this process.

    Raises:
        ConfigurationError: An argument is wrong.
        BackendConnectionError: The server cannot be reached.
        BackendAuthenticationError: It refuses the key.
    """

    def __init__(
        self,
        connection: Any = None,
        memory_id: str | None = None,
        user_id: str | None = None,
        session_id: str | None = None,
        timeout: float = 10,
        limit: int = 100,
        *,
        retries: int = 5,
        detect: bool = True,
        tokenizer: Tokenize | None = None,
        bm25: BM25 | None = None,
    ) -> None:
        """Ask the server what it is."""
        if not isinstance(memory_id, str) or memory_id in ("", ".", "..") or not is_clean(memory_id):
            raise ConfigurationError(f"memory_id must be the id of a memory, not {memory_id!r}")
        for name, number, least in (("limit", limit, 1), ("retries", retries, 0)):
            if not isinstance(number, int) or isinstance(number, bool) or number < least:
                raise ConfigurationError(f"{name} must be a whole number of {least} or more, not {number!r}")
        if not isinstance(timeout, int | float) or not 0 < timeout < math.inf:
            raise ConfigurationError(f"timeout must be more than 0 seconds, not {timeout!r}")
        ids = {USER_KEY: user_id, SESSION_KEY: session_id}
        self._defaults = {key: check_identifier(value, key) for key, value in ids.items() if value is not None}
        self.memory_id, self.timeout, self.limit, self.retries = memory_id, timeout, limit, retries
        connection = DynamiqConnection() if connection is None else connection
        self.url, self._headers, self._secret = _settings(connection)
        super().__init__(tokenizer=tokenizer, bm25=bm25)
        self._transport = self._new_transport()
        self._remote: Plain | Served = Plain(limit, self._rank)
        if detect:
            try:
                self._remote = self._transport.run(self._recognise())
            except BaseException:
                self.close()
                raise
        if self._remote.user_id is not None:
            self._defaults.setdefault(USER_KEY, self._remote.user_id)

    @classmethod
    def from_url(cls, url: str) -> Dynamiq:
        """Make a backend for `dynamiq+https://host/memory_id`; the key is that of the environment.

        Args:
            url: The URL, with `dynamiq+http` or `dynamiq+https`; what is before the last part of its path belongs to
                the server's address. Its query may set `user_id`, `session_id`, `timeout`, `limit` and `retries`.

        Raises:
            ConfigurationError: It is no such URL, or an option is wrong.
        """
        parts = urlsplit(url.removeprefix("dynamiq+"))
        base, _, memory_id = parts.path.rpartition("/")
        if "@" in parts.netloc:
            raise ConfigurationError("the URL of a Dynamiq backend has no place for a key: set DYNAMIQ_API_KEY")
        if not memory_id or not parts.netloc:
            raise ConfigurationError("the URL names no server or no memory: write dynamiq+https://host/memory_id")
        options = options_in(parts.query, f"dynamiq+{parts.scheme}", _READERS)
        connection = DynamiqConnection(url=f"{parts.scheme}://{parts.netloc}{base}")
        return cls(connection, unquote(memory_id), **options)

    def to_url(self) -> str | None:
        """The URL of the memory; None with a key or headers that the environment does not have, or another ranking."""
        standard = signature_of(self.tokenizer) == signature_of(Tokenizer()) and self.bm25 == BM25()
        plain = self._headers.keys() <= {"Authorization", "User-Agent"}
        if not standard or not plain or (self._secret or None) != (os.environ.get("DYNAMIQ_API_KEY") or None):
            return None
        options = {**self._defaults, "timeout": self.timeout, "limit": self.limit, "retries": self.retries}
        return f"dynamiq+{self.url}/{quote(self.memory_id, safe='')}?{urlencode(options)}"

    @property
    def is_service(self) -> bool:
        """Whether the server is a service of ours, which does the whole contract."""
        return isinstance(self._remote, Served)

    @property
    def capabilities(self) -> Capabilities:
        """What this instance can do: what the service's store can, or little."""
        return self._remote.capabilities

    def to_dict(self) -> dict[str, Any]:
        """Describe the backend without its key and messages."""
        return super().to_dict() | {"url": self.url, "memory_id": self.memory_id, **self._defaults}

    def __repr__(self) -> str:
        """Name the server and the memory."""
        return f"Dynamiq({self.url!r}, memory_id={self.memory_id!r})"

    async def aclose(self) -> None:
        """Release what the backend opened; see `close`."""
        await self._transport.aclose_here()
        await super().aclose()

    # --- every operation is an exchange with the server --------------------------------------------------------

    def _perform(self, operation: Operation[T]) -> T:
        result: T = self._transport.run(self._plan(operation))
        return result

    async def _aperform(self, operation: Operation[T]) -> T:
        result: T = await self._transport.arun(self._plan(operation), self._in_thread)
        return result

    def _plan(self, operation: Operation[Any]) -> Exchange[Any]:  # noqa: C901, PLR0911 - a table of the operations
        remote = self._remote
        match operation.map(_same, partial(default_filter, defaults=self._defaults)):
            case Write(messages):
                return remote.write(messages)
            case Read(filter, limit, before, after):
                return remote.read(filter, limit, before, after)
            case Search(filter, query, limit):
                return remote.search(query, filter, limit)
            case Around(filter, anchors, before_count, after_count):
                return remote.around(anchors, before_count, after_count, filter)
            case Delete(filter):
                return remote.delete(filter)
            case Replace(filter, messages):
                return remote.replace(filter, messages)
            case Update(filter, messages):
                return remote.update(filter, messages)
            case Take(filter):
                return remote.take(filter)
            case Count(filter):
                return remote.count(filter)
            case Sessions(filter):
                return remote.sessions(filter)
            case IsEmpty(filter):
                return _none_of(remote.read(filter, 1, None, None))
        raise TypeError(f"{self.name} cannot perform {type(operation).__name__}")

    def _rank(self, query: str, messages: list[Message], limit: int | None) -> list[Message]:
        return rank(messages, query, self.tokenizer_for(query), self.bm25, limit)

    def _prepare(
        self, messages: Sequence[Message], scope: Mapping[str, str] | None = None, time: float | None = None
    ) -> list[Message]:
        return super()._prepare(messages, {**self._defaults, **(scope or {})}, time)

    def _recognise(self) -> Exchange[Plain | Served]:
        """Ask the server what it is."""
        told = yield Request("GET", accept=_UNKNOWN)
        if not isinstance(told, dict) or told.get("service") != _SERVICE:
            return self._remote
        try:
            return Served(told)
        except (KeyError, TypeError) as error:
            raise BackendError(
                f"{self.url} does not describe itself as this version's service does (its version is "
                f"{told.get('version')}): use the same on both sides"
            ) from error

    def _close(self) -> None:
        self._transport.close()

    def _new_transport(self) -> Transport:
        return Transport(self.url, self._headers, self._secret, self.memory_id, self.timeout, self.retries)

    def _after_fork(self) -> None:
        super()._after_fork()
        _inherited.append(self._transport)
        self._transport = self._new_transport()


def _settings(connection: Any) -> tuple[str, dict[str, str], str | None]:
    """The base URL, the headers with the key, and the key of a connection."""
    if not all(hasattr(connection, name) for name in ("url", "api_key", "headers")):
        raise ConfigurationError(
            "connection must be a dynamiq_memory.connections.Dynamiq or have its url, api_key and headers; a "
            f"{type(connection).__name__} has not"
        )
    url = connection.url
    if isinstance(url, str) and ("@" in url or "?" in url or "#" in url):
        raise ConfigurationError("url has no place for a password or a token: give the api_key, or headers")
    check_server(url, f"url={url!r}")
    key = connection.api_key
    key = key.get_secret_value() if hasattr(key, "get_secret_value") else key
    headers = {str(name): str(value) for name, value in dict(connection.headers or {}).items()}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    for name, value in headers.items():
        if not value.isascii() or not value.isprintable() or value != value.strip():
            what = "api_key" if key and name == "Authorization" else f"the header {name!r}"
            raise ConfigurationError(f"{what} holds a character that no header can hold there")
    headers.setdefault("User-Agent", "dynamiq-memory")
    return url.rstrip("/"), headers, key or None


def _same(message: Message) -> Message:
    return message


def _none_of(exchange: Exchange[list[Message]]) -> Exchange[bool]:
    return not (yield from exchange)
