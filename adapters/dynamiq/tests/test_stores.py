"""Our backends accept the connections of the dynamiq package, and the tables that its agents wrote."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from dynamiq.connections import OpenAI as OpenAIConnection
from dynamiq.connections import PostgreSQL as DynamiqConnection
from dynamiq.memory import Memory as DynamiqMemory
from dynamiq.memory.backends import PostgreSQL as DynamiqPostgreSQL
from dynamiq.nodes.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from dynamiq.nodes.types import InferenceMode
from sqlalchemy import make_url

from dynamiq_memory import Memory, Message
from dynamiq_memory.backends import PostgreSQL
from dynamiq_memory_agents import AgentMemory
from tests.fakes.dynamiq.agents import IDS, Talk, final
from tests.fakes.dynamiq.model_server import ModelServer
from tests.fakes.openai import KEY, OpenAIServer
from tests.fakes.postgresql.server import PostgreSQLServer, postgresql

DEFAULT = InferenceMode.DEFAULT


@pytest.fixture(scope="session")
def server() -> Iterator[PostgreSQLServer]:
    with postgresql() as server:
        yield server


@pytest.fixture
def table(server: PostgreSQLServer) -> Iterator[str]:
    name = f"t_{uuid.uuid4().hex}"
    yield name
    with psycopg.connect(server.url, autocommit=True) as sql:
        sql.execute(f"DROP TABLE IF EXISTS {name}_vectors, {name}, {name}_terms, {name}_meta".encode())


@pytest.fixture
def connection(server: PostgreSQLServer) -> DynamiqConnection:
    url = make_url(server.url)
    return DynamiqConnection(
        host=url.host or url.query["host"],
        port=url.port or 5432,
        database=url.database,
        user=url.username,
        password=url.password or "unused",
    )


def test_a_connection_of_dynamiq(connection: DynamiqConnection, table: str) -> None:
    with PostgreSQL(connection=connection, table_name=table) as store:
        store.add(Message(role="user", content="hello", metadata=IDS))
        assert store.count() == 1
        assert "unused" not in repr(store)


def test_a_table_that_an_agent_wrote_is_used_as_it_is(
    connection: DynamiqConnection, table: str, agent: Callable[..., Any], model: ModelServer, talk: Talk
) -> None:
    with DynamiqPostgreSQL(connection=connection, table_name=table) as old:
        before = agent(DynamiqMemory(backend=old), inference_mode=DEFAULT)
        model.play([final(DEFAULT, "It rains.")])
        talk.ask(before, "How is the weather in Oslo?")
        stored = [(message.role.value, message.content) for message in old.get_all()]
    assert len(stored) == 2
    with Memory(backend=PostgreSQL(connection=connection, table_name=table)) as core:
        after = agent(AgentMemory(memory=core), inference_mode=DEFAULT)
        model.play([final(DEFAULT, "Oslo.")])
        talk.ask(after, "Which city was it?")
        found = [(message.role.value, message.text) for message in core.get_all(filters=IDS)]
    assert found[:3] == [*stored, ("user", "Which city was it?")]
    assert [role for role, _ in found[3:]] == ["assistant"]
    assert "How is the weather in Oslo?" in str(model.requests[-1])


@pytest.mark.parametrize("kind", [OpenAIDocumentEmbedder, OpenAITextEmbedder])
def test_an_embedder_node_of_dynamiq(kind: type, server: PostgreSQLServer, table: str) -> None:
    if not server.has_pgvector:
        pytest.skip("the server has no pgvector")
    with OpenAIServer() as service:
        node = kind(connection=OpenAIConnection(api_key=KEY, url=service.url))
        with PostgreSQL(server.url, table_name=table, embedder=node) as store:
            store.add_many([Message(role="user", content=text, metadata=IDS) for text in ("gardening", "invoices")])
            assert [message.text for message in store.search("gardenia", IDS, 1)] == ["gardening"]
            assert service.requests
