"""Embeddings from OpenAI's API, or from any compatible server."""

from __future__ import annotations

from typing import Any, Protocol

from dynamiq_memory._batches import limited
from dynamiq_memory._checks import check_whole_number
from dynamiq_memory._clients import LazyClient, leave_open
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

# Limits per request: https://platform.openai.com/docs/api-reference/embeddings/create
_MAX_TEXTS = 2048
_MAX_BYTES = 750_000
_MAX_INPUT_TOKENS = 8191
# English text has about 4.5 bytes per token, code and other languages 2 or 3.
_BYTES_PER_TOKEN = 3
# If the server still rejects a text this short, its length is not the reason.
_MIN_BYTES = 256


class Tokens(Protocol):
    """An exact tokenizer of the model, such as an encoding of `tiktoken`."""

    def encode_ordinary(self, text: str) -> list[int]:
        """Convert a text to tokens."""
        ...

    def decode(self, tokens: list[int]) -> str:
        """Convert tokens to a text."""
        ...


class OpenAIDocumentEmbedder(ThreadedEmbedder):
    """Embeds with the official `openai` client, which retries transient errors. Asynchronous methods use a thread.

    Texts that are too long for the model are truncated for embedding; stored messages never are. Without `tokens`, the
    embedder assumes one token per 3 bytes, and halves a text that the server still rejects as too long until it fits.
    Texts are sent in batches, and a batch that the server rejects as too large is split.

    Args:
        model: Model name.
        connection: A `dynamiq_memory.connections.OpenAI` (or an object with `api_key` and `url`), or an
            `openai.OpenAI` client, which the caller closes. By default, the settings come from the environment.
        dimensions: Length of the vectors, for models that support a choice; None for the model's default.
        batch_size: Maximum number of texts per request, from 1 to 2,048.
        max_input_tokens: Maximum number of tokens per text.
        tokens: Exact tokenizer, such as `tiktoken.get_encoding("cl100k_base")`.
        max_retries: Maximum number of retries after transient errors.
        timeout: Seconds to wait for a response.

    Raises:
        ConfigurationError: An argument is invalid, or the key for OpenAI's own servers is missing.
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
        """Create the embedder; nothing is sent yet."""
        if dimensions is not None and (not isinstance(dimensions, int) or dimensions < 1):
            raise ConfigurationError(f"dimensions must be a whole number of 1 or more, or None; not {dimensions!r}")
        self.model = model
        self.dimensions = dimensions
        self.batch_size = min(check_whole_number("batch_size", batch_size), _MAX_TEXTS)
        self.max_input_tokens = check_whole_number("max_input_tokens", max_input_tokens)
        self.max_retries = max_retries
        self.timeout = timeout
        self._tokens = tokens
        self._key: str | None
        if isinstance(connection, openai.OpenAI):
            self._client = LazyClient(lambda: connection, leave_open)
            self.url, self._key = str(connection.base_url), connection.api_key
            return
        if isinstance(connection, openai.AsyncOpenAI):
            raise ConfigurationError(
                "connection must be an openai.OpenAI, not an AsyncOpenAI: it is used for sync and async calls"
            )
        settings = OpenAIConnection() if connection is None else connection
        if not hasattr(settings, "api_key") or not hasattr(settings, "url"):
            raise ConfigurationError(
                "connection must be a dynamiq_memory.connections.OpenAI or an openai.OpenAI, not a "
                f"{type(settings).__name__}"
            )
        self._client = LazyClient(self._make_client, openai.OpenAI.close)
        self.url = settings.url
        self._key = plain(settings.api_key)
        if not self._key and "api.openai.com" in self.url:
            raise ConfigurationError("OpenAI requires a key: set OPENAI_API_KEY or pass OpenAI(api_key=…)")

    def __repr__(self) -> str:
        """Return the class, the model and the server."""
        return f"OpenAIDocumentEmbedder(model={self.model!r}, url={without_secrets(self.url)!r})"

    def close(self) -> None:
        """Close the client, unless the caller passed it in."""
        self._client.close()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts, in as many requests as necessary.

        Raises:
            EmbedderError: The server rejected the request.
            BackendAuthenticationError: The server rejected the key.
            BackendConnectionError: The server cannot be reached.
        """
        sized = ((text, len(text.encode())) for text in map(self._truncate, texts))
        vectors: list[list[float]] = []
        for batch in limited(sized, self.batch_size, _MAX_BYTES):
            vectors += self._embed(batch)
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """Embed a search query. These models treat queries like documents."""
        return self.embed_documents([text])[0]

    def _make_client(self) -> openai.OpenAI:
        # The client requires a key even if the server does not.
        return openai.OpenAI(
            api_key=self._key or "none", base_url=self.url, max_retries=self.max_retries, timeout=self.timeout
        )

    def _truncate(self, text: str) -> str:
        if len(text.encode()) <= self.max_input_tokens:  # every token has at least one byte
            return text
        if self._tokens is None:
            return _first_bytes(text, self.max_input_tokens * _BYTES_PER_TOKEN)
        tokens = self._tokens.encode_ordinary(text)
        return text if len(tokens) <= self.max_input_tokens else self._tokens.decode(tokens[: self.max_input_tokens])

    def _embed(self, texts: list[str]) -> list[list[float]]:
        """Embed a batch. If the server rejects it as too long, embed its halves."""
        options: dict[str, Any] = {} if self.dimensions is None else {"dimensions": self.dimensions}
        try:
            # Not every server supports base64.
            response = self._client.get().embeddings.create(
                input=texts, model=self.model, encoding_format="float", **options
            )
        except openai.BadRequestError as error:
            if not _is_about_length(error):
                raise self._translated(error) from error
            if len(texts) > 1:
                middle = len(texts) // 2
                return self._embed(texts[:middle]) + self._embed(texts[middle:])
            half = len(texts[0].encode()) // 2
            if half < _MIN_BYTES:
                raise self._translated(error) from error
            return self._embed([_first_bytes(texts[0], half)])
        except openai.OpenAIError as error:
            raise self._translated(error) from error
        items = list(response.data)
        indexes = [getattr(item, "index", None) for item in items]
        if sorted(indexes, key=str) == sorted(range(len(items)), key=str):
            items.sort(key=lambda item: item.index)
        elif any(index is not None for index in indexes):  # some servers return no indexes, but keep the order
            raise EmbedderError(f"{self!r}: the indexes in the response do not match the texts: {indexes!r:.100}")
        return [item.embedding for item in items]

    def _translated(self, error: openai.OpenAIError) -> DynamiqMemoryError:
        text = str(error)
        if self._key:
            text = text.replace(self._key, "…")
        name = f"the embedder {self.model} at {without_secrets(self.url)}"
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            return BackendAuthenticationError(f"{name} rejected the key ({text}): correct OPENAI_API_KEY")
        if isinstance(error, openai.APIConnectionError):
            return BackendConnectionError(f"{name} cannot be reached ({text}): check OPENAI_URL and the network")
        if isinstance(error, openai.NotFoundError):
            return EmbedderError(f"{name} was not found ({text}): correct the model or the URL")
        return EmbedderError(f"{name} failed: {text}")


def _first_bytes(text: str, count: int) -> str:
    return text.encode()[:count].decode(errors="ignore")


def _is_about_length(error: openai.BadRequestError) -> bool:
    text = str(error).lower()
    return error.code in ("context_length_exceeded", "max_tokens_per_request") or any(
        phrase in text
        for phrase in ("maximum context", "max_tokens_per_request", "too many tokens", "too long", "maximum input")
    )
