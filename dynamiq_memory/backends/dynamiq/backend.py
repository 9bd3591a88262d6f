"""Messages on the Dynamiq platform, or on the service of this package, which has the same API and more."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

from dynamiq_memory._checks import check_seconds, check_whole_number
from dynamiq_memory._json import is_clean
from dynamiq_memory.backends._embedding import MessageEmbedder
from dynamiq_memory.backends._planned import PlannedBackend
from dynamiq_memory.backends._urls import Readers, options_in
from dynamiq_memory.backends.base import Capabilities
from dynamiq_memory.backends.dynamiq.platform import Platform
from dynamiq_memory.backends.dynamiq.requests import Request
from dynamiq_memory.backends.dynamiq.search import HybridSearch
from dynamiq_memory.backends.dynamiq.service import Service
from dynamiq_memory.backends.operations import Operation, Search
from dynamiq_memory.backends.plans import Plan
from dynamiq_memory.connections import Dynamiq as DynamiqConnection
from dynamiq_memory.exceptions import BackendError, ConfigurationError, MissingDependencyError
from dynamiq_memory.filters import Filter, OneOf
from dynamiq_memory.messages import SESSION_KEY, USER_KEY, Message, check_identifier
from dynamiq_memory.ranking import BM25, Tokenize

try:
    from dynamiq_memory.backends.dynamiq import errors
    from dynamiq_memory.backends.dynamiq.client import Client
except ImportError as error:
    raise MissingDependencyError(
        "the Dynamiq backend needs httpx and httpx-retries: pip install 'dynamiq-memory[dynamiq]'"
    ) from error

_SERVICE = "dynamiq-memory"
# Statuses that the platform may answer with, since it cannot describe itself.
_UNKNOWN = (400, 404, 405, 422, 501)
_READERS: Readers = {
    "user_id": str,
    "session_id": str,
    "timeout": float,
    "limit": int,
    "retries": int,
    "embedder": str,
}


class Dynamiq(PlannedBackend):
    """Keeps messages where agents of the `dynamiq` package keep theirs: on the platform, or on a service.

    On creation it asks the server which of the two it is. A service (`dynamiq-memory serve`) does the whole contract:
    batches and replacements are as atomic as its store, and it also does the searching. Of the platform's API, only
    storing, listing and deleting are known. So order, filters and ranking are applied in this process, over whole
    sessions; reading needs both ids, and single messages cannot be deleted (docs/dynamiq-backend.md).

    Args:
        connection: A `dynamiq_memory.connections.Dynamiq`, or an object with its `url`, `api_key` and `headers`, such
            as the `dynamiq` package's own. Defaults to the environment's settings.
        memory_id: The memory.
        user_id: The user for messages and filters without one.
        session_id: The session for messages and filters without one.
        timeout: Seconds to wait for a connection, and for each part of a response.
        limit: Number of messages to ask the platform for at once.
        embedder: Anything that `dynamiq_memory.embedders.as_embedder` accepts. With one, messages of the platform are
            ranked by words and by meaning together, which needs numpy. Their vectors are kept in this process only: the
            first search in a conversation embeds it. A service has its own embedder.
        retries: Maximum number of times to send a request again after the server was busy (429, 502, 503, 504) or the
            connection broke off. That includes writes, since a message that is sent again replaces itself. Requests
            that might do harm twice are sent again only if they were not carried out.
        detect: Whether to ask the server if it is a service; otherwise it is taken for the platform.
        tokenizer: Splits a text into the terms of keyword ranking in this process. A service has its own.
        bm25: The parameters of keyword ranking in this process.

    Raises:
        ConfigurationError: An argument is wrong, or there is an embedder for a service.
        MissingDependencyError: There is an embedder, and numpy is not installed.
        BackendConnectionError: The server cannot be reached.
        BackendAuthenticationError: It rejects the key.
    """

    traces = "what the server's store keeps of deleted data, and its backups"
    request_errors = errors.CLIENT_ERRORS
    described = ("url", "memory_id")

    def __init__(
        self,
        connection: Any = None,
        memory_id: str | None = None,
        user_id: str | None = None,
        session_id: str | None = None,
        timeout: float = 10,
        limit: int = 100,
        *,
        embedder: Any = None,
        retries: int = 5,
        detect: bool = True,
        tokenizer: Tokenize | None = None,
        bm25: BM25 | None = None,
    ) -> None:
        """Ask the server whether it is a service."""
        if not isinstance(memory_id, str) or memory_id in ("", ".", "..") or not is_clean(memory_id):
            raise ConfigurationError(f"memory_id must be the id of a memory, not {memory_id!r}")
        self.memory_id = memory_id
        self.timeout = check_seconds("timeout", timeout)
        self.limit = check_whole_number("limit", limit)
        self.retries = check_whole_number("retries", retries, 0)
        ids = {USER_KEY: user_id, SESSION_KEY: session_id}
        self._default_ids = {key: check_identifier(value, key) for key, value in ids.items() if value is not None}
        self._client = Client(DynamiqConnection() if connection is None else connection, memory_id, timeout, retries)
        self._per_loop = self._client.per_loop
        self.url = self._client.url
        super().__init__(tokenizer=tokenizer, bm25=bm25)
        if embedder is not None:
            self._embedder = MessageEmbedder.compared_here(embedder, f"the memory {memory_id!r}")
        self._hybrid = HybridSearch()
        self._server: Platform | Service = Platform(limit)
        if detect:
            with self._opening():
                self._server = self._step(Request("GET", "", self._recognise, accept=_UNKNOWN))
                if self.is_service and embedder is not None:
                    raise ConfigurationError(
                        "a service ranks with its own embedder: leave embedder out, and name it in the URL of the "
                        "service's store (dynamiq-memory serve --backend 'sqlite:///memory.db?embedder=local')"
                    )
        if self._server.user_id is not None:
            self._default_ids.setdefault(USER_KEY, self._server.user_id)

    @classmethod
    def from_url(cls, url: str) -> Dynamiq:
        """Make a backend from `dynamiq+https://host/memory_id`; the key is the environment's.

        Args:
            url: The URL, with `dynamiq+http` or `dynamiq+https`; the last part of its path is the memory, the rest
                belongs to the server's address. Its query may set `user_id`, `session_id`, `timeout`, `limit`,
                `retries` and `embedder` ("local" or a model of OpenAI).

        Raises:
            ConfigurationError: The URL has another form, or an option is wrong.
        """
        parts = urlsplit(url.removeprefix("dynamiq+"))
        base, _, memory_id = parts.path.rpartition("/")
        if "@" in parts.netloc:
            raise ConfigurationError("the URL of a Dynamiq backend cannot contain a key: set DYNAMIQ_API_KEY")
        if not memory_id or not parts.netloc:
            raise ConfigurationError("the URL lacks a server or a memory: write dynamiq+https://host/memory_id")
        options = options_in(parts.query, f"dynamiq+{parts.scheme}", _READERS)
        connection = DynamiqConnection(url=f"{parts.scheme}://{parts.netloc}{base}")
        return cls(connection, unquote(memory_id), **options)

    def to_url(self) -> str | None:
        """The URL of the memory.

        None with a key or headers that the environment does not have, or if an embedder, a tokenizer or BM25 was passed
        as an object.
        """
        has_headers = not self._client.headers.keys() <= {"Authorization", "User-Agent"}
        has_own_key = self._client.secret != (os.environ.get("DYNAMIQ_API_KEY") or None)
        if has_headers or has_own_key or not self._fits_in_a_url:
            return None
        options: dict[str, Any] = {
            **self._default_ids,
            "timeout": self.timeout,
            "limit": self.limit,
            "retries": self.retries,
        }
        if self._embedder is not None:
            options["embedder"] = str(self._embedder.given_name)
        return f"dynamiq+{self.url}/{quote(self.memory_id, safe='')}?{urlencode(options)}"

    @property
    def is_service(self) -> bool:
        """Whether the server is a service, which does the whole contract."""
        return isinstance(self._server, Service)

    @property
    def default_session(self) -> str | None:
        """The session of filters that name none, if the backend has one."""
        return self._default_ids.get(SESSION_KEY)

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities of the service's store, or the few that the platform has."""
        capabilities = self._server.capabilities
        return capabilities if self._embedder is None else replace(capabilities, vector=True)

    def to_dict(self) -> dict[str, Any]:
        """Describe the backend without its key and messages."""
        return super().to_dict() | self._default_ids

    def _plan(self, operation: Operation[Any]) -> Plan[Any]:
        operation = operation.translate({Filter: self._with_default_ids})
        if isinstance(operation, Search) and self._embedder is not None:
            return self._hybrid.plan(operation, self)
        return self._server.plan(operation) or super()._plan(operation)

    def _translate(self, error: Exception) -> BackendError:
        return errors.from_client(error, self.url, self._client.secret, self.timeout)

    def _ask(self, request: Any) -> Any:
        return self._client.send(request)

    async def _aask(self, request: Any) -> Any:
        return await self._client.asend(request)

    def _prepare(
        self, messages: Sequence[Message], scope: Mapping[str, str] | None = None, time: float | None = None
    ) -> list[Message]:
        return super()._prepare(messages, {**self._default_ids, **(scope or {})}, time)

    def _with_default_ids(self, filter: Filter) -> Filter:
        defaults = [OneOf(key, (value,)) for key, value in self._default_ids.items() if filter.scope(key) is None]
        return Filter((*filter.conditions, *defaults))

    def _only_stop_words(self, query: str) -> bool:
        # A service has a tokenizer of its own, and ranks by stop words itself.
        return not self.is_service and super()._only_stop_words(query)

    def _recognise(self, answer: Any) -> Platform | Service:
        """Read the server's description of itself; the platform has none."""
        if not isinstance(answer, dict) or answer.get("service") != _SERVICE:
            return self._server
        try:
            return Service(answer)
        except (KeyError, TypeError) as error:
            raise BackendError(
                f"{self.url} does not describe itself as this version's service does (its version is "
                f"{answer.get('version')}): use the same version on both sides"
            ) from error

    def _close(self) -> None:
        super()._close()
        self._client.close()
