"""Embeddings by OpenAI's API, or by any server that speaks it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from dynamiq_memory.connections import OpenAI as OpenAIConnection
from dynamiq_memory.connections import plain, without_secrets
from dynamiq_memory.embedders.base import ThreadedEmbedder
from dynamiq_memory.exceptions import (
    BackendAuthenticationError,
    BackendConnectionError,
    ConfigurationError,
    DynamiqMemoryError,
    EmbedderError,
    MissingDependencyError,
)

try:
    import openai
except ImportError as error:
    raise MissingDependencyError(
        "OpenAIDocumentEmbedder needs the openai package: pip install 'dynamiq-memory[openai]'"
    ) from error

# What the service takes in one request: https://platform.openai.com/docs/api-reference/embeddings/create
_MOST_TEXTS = 2048
_MOST_BYTES = 750_000
_MAX_INPUT_TOKENS = 8191
# English has some 4.5 bytes a token, code and other languages 2 or 3.
_BYTES_A_TOKEN = 3
# A text that is refused at this length is not refused for its length.
_SHORTEST_CUT = 256


class Tokens(Protocol):
    """What cuts by tokens exactly: an encoding of `tiktoken`, for one."""

    def encode_ordinary(self, text: str) -> list[int]:
        """Turn a text into tokens."""
        ...

    def decode(self, tokens: list[int]) -> str:
        """Turn tokens into a text."""
        ...


class OpenAIDocumentEmbedder(ThreadedEmbedder):
    """Embeds by the official `openai` client, which repeats what fails for a while. Asynchronous methods use a thread.

    A text that is longer than the model takes is cut at its end; what is stored is never cut. Without `tokens`, a text
    is first taken to have a token for each 3 bytes, and where the server finds it too long all the same, it is cut to
    half until it fits. Texts are sent in batches, which are split where the server finds one too large.

    Args:
        model: The model.
        connection: A `dynamiq_memory.connections.OpenAI` (or an object with `api_key` and `url`), or a client of the
            `openai` package, which stays the caller's. By default, what the environment says.
        dimensions: How many numbers a vector has, for models that let you choose; None for the model's own.
        batch_size: At most so many texts in a request, 1 to 2,048.
        max_input_tokens: What the model takes of one text.
        tokens: Counts and cuts tokens, such as `tiktoken.get_encoding("cl100k_base")`.
        max_retries: How often the client repeats a request that failed for a while.
        timeout: Seconds to wait for an answer.

    Raises:
        ConfigurationError: An argument is wrong, or there is no key for OpenAI's own servers.
    """

    def __init__(
        self,
        model: str = "text-embedding-3-small",
        connection: Any = None,
        *,
        dimensions: int | None = None,
        batch_size: int = 256,
        max_input_tokens: int = _MAX_INPUT_TOKENS,
        tokens: Tokens | None = None,
        max_retries: int = 5,
        timeout: float = 60.0,
    ) -> None:
        """Keep the settings; nothing is sent."""
        for name, number in (("batch_size", batch_size), ("max_input_tokens", max_input_tokens)):
            if not isinstance(number, int) or isinstance(number, bool) or number < 1:
                raise ConfigurationError(f"{name} must be a whole number of 1 or more, not {number!r}")
        if dimensions is not None and (not isinstance(dimensions, int) or dimensions < 1):
            raise ConfigurationError(f"dimensions must be a whole number of 1 or more, or None; not {dimensions!r}")
        self.model = model
        self.dimensions = dimensions
        self.batch_size = min(batch_size, _MOST_TEXTS)
        self.max_input_tokens = max_input_tokens
        self.max_retries = max_retries
        self.timeout = timeout
        self._tokens = tokens
        self._lock = threading.Lock()
        self._key: str | None
        self._given: openai.OpenAI | None = None
        self._made: tuple[int, openai.OpenAI] | None = None
        if isinstance(connection, openai.OpenAI):
            self._given = connection
            self.url, self._key = str(connection.base_url), connection.api_key
            return
        if isinstance(connection, openai.AsyncOpenAI):
            raise ConfigurationError("connection must be an openai.OpenAI, not an AsyncOpenAI: it serves both")
        settings = OpenAIConnection() if connection is None else connection
        if not hasattr(settings, "api_key") or not hasattr(settings, "url"):
            raise ConfigurationError(
                "connection must be a dynamiq_memory.connections.OpenAI or an openai.OpenAI, not a "
                f"{type(settings).__name__}"
            )
        self.url = settings.url
        self._key = plain(settings.api_key)
        if not self._key and "api.openai.com" in self.url:
            raise ConfigurationError("OpenAI needs a key: set OPENAI_API_KEY, or give OpenAI(api_key=…)")

    def __repr__(self) -> str:
        """Name the model and the server."""
        return f"OpenAIDocumentEmbedder(model={self.model!r}, url={without_secrets(self.url)!r})"

    def close(self) -> None:
        """Close the connections that were made here; a client that was given stays open."""
        with self._lock:
            made, self._made = self._made, None
        if made is not None and made[0] == os.getpid():
            made[1].close()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts, in as many requests as they need.

        Raises:
            EmbedderError: The server refused, or cannot be reached.
        """
        vectors: list[list[float]] = []
        for batch in self._batches([self._fitting(text) for text in texts]):
            vectors += self._embed(batch)
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """Embed what is searched for: these models make no difference."""
        return self.embed_documents([text])[0]

    def _client(self) -> openai.OpenAI:
        if self._given is not None:
            return self._given
        with self._lock:
            # A forked child must not share its parent's connections.
            if self._made is None or self._made[0] != os.getpid():
                client = openai.OpenAI(
                    # The client demands some key, where a server of one's own may ask for none.
                    api_key=self._key or "none",
                    base_url=self.url,
                    max_retries=self.max_retries,
                    timeout=self.timeout,
                )
                self._made = (os.getpid(), client)
            return self._made[1]

    def _fitting(self, text: str) -> str:
        size = len(text.encode())
        if size <= self.max_input_tokens:  # a token has one byte at least
            return text
        if self._tokens is not None:
            tokens = self._tokens.encode_ordinary(text)
            return (
                text if len(tokens) <= self.max_input_tokens else self._tokens.decode(tokens[: self.max_input_tokens])
            )
        return _first_bytes(text, self.max_input_tokens * _BYTES_A_TOKEN)

    def _batches(self, texts: Sequence[str]) -> Iterator[list[str]]:
        batch: list[str] = []
        size = 0
        for text in texts:
            own = len(text.encode())
            if batch and (len(batch) == self.batch_size or size + own > _MOST_BYTES):
                yield batch
                batch, size = [], 0
            batch.append(text)
            size += own
        if batch:
            yield batch

    def _embed(self, texts: list[str]) -> list[list[float]]:
        """Embed a batch; of what the server finds too long, the halves."""
        options: dict[str, Any] = {} if self.dimensions is None else {"dimensions": self.dimensions}
        try:
            # Floats, not base64: not every server knows that.
            answer = self._client().embeddings.create(input=texts, model=self.model, encoding_format="float", **options)
        except openai.BadRequestError as error:
            if not _is_about_length(error):
                raise self._translated(error) from error
            if len(texts) > 1:
                middle = len(texts) // 2
                return self._embed(texts[:middle]) + self._embed(texts[middle:])
            half = len(texts[0].encode()) // 2
            if half < _SHORTEST_CUT:
                raise self._translated(error) from error
            return self._embed([_first_bytes(texts[0], half)])
        except openai.OpenAIError as error:
            raise self._translated(error) from error
        items = list(answer.data)
        places = [getattr(item, "index", None) for item in items]
        if sorted(places, key=str) == sorted(range(len(items)), key=str):
            items.sort(key=lambda item: item.index)
        elif any(place is not None for place in places):  # some servers number nothing, and answer in order
            raise EmbedderError(f"{self!r}: the server numbered the vectors {places!r:.100}, not those of the texts")
        return [item.embedding for item in items]

    def _translated(self, error: openai.OpenAIError) -> DynamiqMemoryError:
        said = str(error)
        if self._key:
            said = said.replace(self._key, "…")
        where = f"the embedder {self.model} at {without_secrets(self.url)}"
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            return BackendAuthenticationError(f"{where} refuses the key ({said}): correct OPENAI_API_KEY")
        if isinstance(error, openai.APIConnectionError):
            return BackendConnectionError(f"{where} cannot be reached ({said}): check OPENAI_URL and the network")
        if isinstance(error, openai.NotFoundError):
            return EmbedderError(f"{where} is not there ({said}): correct the model or the URL")
        return EmbedderError(f"{where}: {said}")


def _first_bytes(text: str, count: int) -> str:
    return text.encode()[:count].decode(errors="ignore")


def _is_about_length(error: openai.BadRequestError) -> bool:
    said = str(error).lower()
    return error.code in ("context_length_exceeded", "max_tokens_per_request") or any(
        sign in said
        for sign in ("maximum context", "max_tokens_per_request", "too many tokens", "too long", "maximum input")
    )
