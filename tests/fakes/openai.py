"""A server that speaks OpenAI's API of embeddings.

Checked against the API's reference (https://platform.openai.com/docs/api-reference/embeddings): it wants a key, refuses
more than 2,048 texts, empty ones, and those that are too long for the model, and answers in the shapes of the service.
The vectors are those of a local embedder.
"""

from __future__ import annotations

import base64
from array import array
from typing import Any

from tests.fakes.embedders import NGrams
from tests.fakes.http_server import Answer, HTTPServer, Request

KEY = "sk-very-secret"


class OpenAIServer(HTTPServer):
    """Embeds by hashed n-grams.

    Attributes:
        max_tokens: Maximum number of tokens of a text; here, a token is a word.
        max_request_tokens: Maximum number of tokens of all texts of a request.
    """

    def __init__(self, *, dimension: int = 64, max_tokens: int = 8192, max_request_tokens: int = 300_000) -> None:
        super().__init__()
        self.dimension = dimension
        self.max_tokens = max_tokens
        self.max_request_tokens = max_request_tokens

    @property
    def url(self) -> str:
        return f"{super().url}/v1"

    def answer(self, request: Request) -> Answer:
        if request.headers.get("authorization") != f"Bearer {KEY}":
            shown = request.headers.get("authorization", "").removeprefix("Bearer ")
            return _refused(f"Incorrect API key provided: {shown}.", "invalid_api_key", 401)
        if (request.method, request.path) != ("POST", "/v1/embeddings"):
            return _refused(f"Unknown request URL: {request.path}", "unknown_url", 404)
        body = request.body
        if body["model"] != "text-embedding-3-small":
            return _refused(f"The model `{body['model']}` does not exist", "model_not_found", 404)
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        if not texts or len(texts) > 2048 or not all(isinstance(text, str) and text for text in texts):
            return _refused("'$.input' is invalid. Please check the API reference.", None, 400)
        counts = [len(text.split()) for text in texts]
        if max(counts) > self.max_tokens:
            said = (
                f"This model's maximum context length is {self.max_tokens} tokens, however you requested {max(counts)}."
            )
            return _refused(said, None, 400)
        if sum(counts) > self.max_request_tokens:
            said = f"Requested {sum(counts)} tokens, max {self.max_request_tokens} tokens per request"
            return _refused(said, "max_tokens_per_request", 400)
        vectors = NGrams(body.get("dimensions", self.dimension)).embed_documents(texts)
        data = [
            {"object": "embedding", "index": index, "embedding": _encoded(vector, body.get("encoding_format"))}
            for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": sum(counts), "total_tokens": sum(counts)}
        return Answer({"object": "list", "model": body["model"], "data": data, "usage": usage})


def _encoded(vector: list[float], form: str | None) -> Any:
    return base64.b64encode(array("f", vector).tobytes()).decode() if form == "base64" else vector


def _refused(message: str, code: str | None, status: int) -> Answer:
    return Answer(
        {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}, status=status
    )
