"""OpenAIDocumentEmbedder with the official client, against a server with OpenAI's API."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import openai
import pytest
import tiktoken

from dynamiq_memory.connections import OpenAI as OpenAIConnection
from dynamiq_memory.embedders import Embedder, OpenAIDocumentEmbedder, as_embedder
from dynamiq_memory.exceptions import (
    BackendAuthenticationError,
    BackendConnectionError,
    ConfigurationError,
    EmbedderError,
)
from tests.fakes.embedders import NGrams
from tests.fakes.http_server import Answer, Broken
from tests.fakes.openai import KEY, OpenAIServer

BY_NGRAMS = NGrams(64)
# A real encoding, small: each byte is a token.
BYTES = tiktoken.Encoding(
    "bytes", pat_str=r"[\s\S]", mergeable_ranks={bytes([n]): n for n in range(256)}, special_tokens={}
)


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


def embedder_for(server: OpenAIServer, **settings: Any) -> OpenAIDocumentEmbedder:
    return OpenAIDocumentEmbedder(connection=OpenAIConnection(api_key=KEY, url=server.url), **settings)


def sent(server: OpenAIServer) -> list[list[str]]:
    return [request.body["input"] for request in server.requests]


def test_it_embeds(server: OpenAIServer) -> None:
    embedder = embedder_for(server)
    assert isinstance(embedder, Embedder)
    assert as_embedder(embedder) is embedder
    texts = ["a red apple", "a green pear"]
    assert embedder.embed_documents(texts) == BY_NGRAMS.embed_documents(texts)
    assert asyncio.run(embedder.aembed_documents(texts)) == BY_NGRAMS.embed_documents(texts)
    assert (
        embedder.embed_query("apple") == asyncio.run(embedder.aembed_query("apple")) == BY_NGRAMS.embed_query("apple")
    )
    assert embedder.embed_documents([]) == []


def test_the_environment_says_where(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert OpenAIDocumentEmbedder().embed_query("apple") == BY_NGRAMS.embed_query("apple")


def test_clients_and_other_connections_are_taken(server: OpenAIServer) -> None:
    with openai.OpenAI(api_key=KEY, base_url=server.url) as client:
        assert OpenAIDocumentEmbedder(connection=client).embed_query("pear") == BY_NGRAMS.embed_query("pear")
    other = SimpleNamespace(api_key=KEY, url=server.url)  # dynamiq's keeps a plain string
    assert OpenAIDocumentEmbedder(connection=other).embed_query("pear") == BY_NGRAMS.embed_query("pear")
    for wrong in ("sk-1", openai.AsyncOpenAI(api_key=KEY)):
        with pytest.raises(ConfigurationError, match="connection"):
            OpenAIDocumentEmbedder(connection=wrong)


def test_vectors_come_in_the_order_of_the_texts(server: OpenAIServer) -> None:
    def reversed_answer(request: Any) -> Answer:
        answer = OpenAIServer.answer(server, request)
        answer.body["data"].reverse()
        return answer

    server.faults = reversed_answer
    assert embedder_for(server).embed_documents(["apple", "pear"]) == BY_NGRAMS.embed_documents(["apple", "pear"])


def test_many_texts_are_sent_in_batches(server: OpenAIServer) -> None:
    texts = [f"apple {number}" for number in range(25)]
    assert embedder_for(server, batch_size=10).embed_documents(texts) == BY_NGRAMS.embed_documents(texts)
    assert [len(batch) for batch in sent(server)] == [10, 10, 5]


def test_a_batch_is_not_larger_than_a_request_may_be(server: OpenAIServer) -> None:
    embedder_for(server).embed_documents(["apple" * 4000] * 40)  # 20 KB each
    assert [len(batch) for batch in sent(server)] == [37, 3]


def test_dimensions_are_asked_for(server: OpenAIServer) -> None:
    assert len(embedder_for(server, dimensions=16).embed_query("apple")) == 16
    assert server.requests[0].body["dimensions"] == 16
    embedder_for(server).embed_query("apple")
    assert "dimensions" not in server.requests[1].body


def test_a_long_text_is_cut_for_the_embedder(server: OpenAIServer) -> None:
    text = "pear " * 10_000
    embedder_for(server).embed_documents([text])
    assert [batch[0] for batch in sent(server)] == [text[: 8191 * 3]]


def test_a_long_text_is_cut_by_tokens_exactly(server: OpenAIServer) -> None:
    embedder = embedder_for(server, max_input_tokens=10, tokens=BYTES)
    embedder.embed_documents(["ä" * 5, "0123456789abc", "short"])
    assert sent(server) == [["ä" * 5, "0123456789", "short"]]


def test_what_the_server_finds_too_long_is_halved(server: OpenAIServer) -> None:
    server.max_tokens = 100
    vectors = embedder_for(server).embed_documents(["pear", "apple " * 300, "plum"])
    for vector, expected in zip(vectors, BY_NGRAMS.embed_documents(["pear", "apple", "plum"]), strict=True):
        assert vector == pytest.approx(expected)
    assert sent(server)[-1] == ["plum"]
    assert [len(batch[0].split()) for batch in sent(server) if batch[0].startswith("apple")] == [300, 300, 150, 75]


def test_a_batch_that_the_server_finds_too_large_is_split(server: OpenAIServer) -> None:
    server.max_request_tokens = 50
    texts = [f"{'apple ' * 20}{number}" for number in range(4)]
    assert embedder_for(server).embed_documents(texts) == BY_NGRAMS.embed_documents(texts)
    assert [len(batch) for batch in sent(server)] == [4, 2, 2]


@pytest.mark.parametrize(
    "fault",
    [
        Answer({"error": {"message": "slow down"}}, 429, {"retry-after-ms": "1"}),
        Answer({"error": {"message": "down"}}, 503, {"retry-after-ms": "1"}),
        Broken(),
    ],
    ids=["throttled", "unavailable", "broken"],
)
def test_what_fails_for_a_while_is_repeated(server: OpenAIServer, fault: Answer | Broken) -> None:
    server.faults = lambda _: fault if len(server.requests) == 1 else None
    assert embedder_for(server).embed_query("apple") == BY_NGRAMS.embed_query("apple")
    assert len(server.requests) == 2


def test_errors_are_translated_and_name_the_fix(server: OpenAIServer) -> None:
    wrong = OpenAIDocumentEmbedder(connection=OpenAIConnection(api_key="sk-wrong-key", url=server.url))
    with pytest.raises(BackendAuthenticationError, match="OPENAI_API_KEY") as caught:
        wrong.embed_query("apple")
    assert "sk-wrong-key" not in str(caught.value)
    assert isinstance(caught.value.__cause__, openai.AuthenticationError)
    with pytest.raises(EmbedderError, match="correct the model"):
        embedder_for(server, model="text-embedding-9").embed_query("apple")
    server.faults = lambda _: Answer({"error": {"message": "no"}}, 400)
    with pytest.raises(EmbedderError, match="no"):
        embedder_for(server).embed_documents(["apple", "pear"])
    unreachable = OpenAIDocumentEmbedder(
        connection=OpenAIConnection(api_key=KEY, url="http://127.0.0.1:9/v1"), max_retries=0
    )
    with pytest.raises(BackendConnectionError, match="OPENAI_URL"):
        unreachable.embed_query("apple")


def test_secrets_do_not_show(server: OpenAIServer) -> None:
    connection = OpenAIConnection(api_key=KEY, url=server.url)
    assert KEY not in repr(connection) + str(connection) + repr(OpenAIDocumentEmbedder(connection=connection))


def test_wrong_settings_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_URL", raising=False)
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        OpenAIDocumentEmbedder()
    for settings in ({"batch_size": 0}, {"max_input_tokens": True}, {"dimensions": 0}):
        with pytest.raises(ConfigurationError, match=next(iter(settings))):
            OpenAIDocumentEmbedder(connection=OpenAIConnection(api_key=KEY), **settings)
