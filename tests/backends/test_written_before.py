"""A database, tables and items that the version before wrote are read unchanged.

The files in data/ hold the same nine messages as commit 7ff0c05 stored them: a SQLite file, the items of a DynamoDB
table, the rows of PostgreSQL tables, the records of vector stores, and items of the wire; messages.json has what it
read back.
"""

from __future__ import annotations

import base64
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dynamiq_memory import Memory, Message
from dynamiq_memory._wire import from_item, to_item
from dynamiq_memory.backends import MemoryBackend, SQLite
from dynamiq_memory.backends._sql.backend import SQLBackend, Transaction
from dynamiq_memory.ranking import Tokenizer, packed_terms
from tests.fakes.embedders import NGrams

DATA = Path(__file__).parent / "data"
EXPECTED = json.loads((DATA / "messages.json").read_text())
MESSAGES = [Message.from_json(text) for text in EXPECTED["messages"]]


def check(backend: MemoryBackend) -> None:
    assert backend.get_all() == MESSAGES
    assert [message.id for message in backend.search("rain Ghent", limit=2)] == EXPECTED["found"]
    ann = Memory(backend, filters={"user_id": "ann", "session_id": "s-1"})
    assert [message.id for message in ann.get_all(filters={"n": 1, "b": True, "t": ["x", "y"]})] == ["m-02"]
    assert [message.id for message in ann.get_agent_conversation()] == [f"m-0{n}" for n in range(1, 8)]
    # It goes on where the version before stopped.
    ann.add_many([MESSAGES[-1].model_copy(update={"content": "changed", "metadata": {}})])
    ann.add("user", "new")
    assert [message.text for message in ann.get_all()][-2:] == ["changed", "new"]
    assert ann.count() == 8
    assert backend.count({"user_id": "ben"}) == backend.count({"user_id": None}) == 1


def test_a_sqlite_file(tmp_path: Path) -> None:
    file = tmp_path / "conversations.db"
    shutil.copy(DATA / "conversations.db", file)
    with SQLite(file) as backend:
        assert _signature(backend) == Tokenizer().signature
        _check_terms(backend)
        check(backend)
    with closing(sqlite3.connect(file)) as connection:
        index = "SELECT count(*) FROM sqlite_master WHERE name = 'conversations_by_owner'"
        assert connection.execute(index).fetchone() == (1,)


def test_a_sqlite_file_gets_vectors(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "conversations.db"
    shutil.copy(DATA / "conversations.db", file)
    text = MESSAGES[0].text
    with SQLite(file, embedder=NGrams()) as backend:
        assert "reindex=True" in caplog.text
        assert backend.get_all() == MESSAGES
        assert MESSAGES[0].id in [message.id for message in backend.search(text)]
    with SQLite(file, embedder=NGrams(), reindex=True) as backend:
        assert backend.get_all() == MESSAGES
        assert backend.search(text, limit=1)[0].id == MESSAGES[0].id
    with SQLite(file) as backend:
        check(backend)


def test_items_of_the_wire() -> None:
    items = json.loads((DATA / "items.json").read_text())
    messages = [from_item(item) for item in items]
    by_key = {(message.user_id, message.id): message for message in MESSAGES}
    for message in messages:
        expected = by_key[message.user_id, message.id]
        for name in Message.model_fields.keys() - {"metadata"}:
            assert getattr(message, name) == getattr(expected, name), name
        shown = {"timestamp", "message_id"}
        assert message.metadata == {key: value for key, value in expected.metadata.items() if key not in shown}
    assert [to_item(message) for message in messages] == items


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"$bytes"}:
            return base64.b64decode(value["$bytes"])
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def test_items_of_a_dynamodb_table(monkeypatch: pytest.MonkeyPatch) -> None:
    boto3 = pytest.importorskip("boto3")
    moto = pytest.importorskip("moto")
    from dynamiq_memory.backends import DynamoDB  # noqa: PLC0415 - not where its client is missing

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with moto.mock_aws():
        session = boto3.Session(region_name="eu-west-1")
        with DynamoDB(session, "conversations") as backend:
            for item in _plain(json.loads((DATA / "dynamodb.json").read_text())):
                session.client("dynamodb").put_item(TableName="conversations", Item=item)
            check(backend)


def test_rows_of_postgresql_tables(postgresql_url: str, postgresql_table: str) -> None:
    psycopg = pytest.importorskip("psycopg")
    from dynamiq_memory.backends import PostgreSQL  # noqa: PLC0415 - not where its driver is missing

    with PostgreSQL(postgresql_url, postgresql_table) as backend:
        tables = json.loads((DATA / "postgresql.json").read_text())
        with psycopg.connect(postgresql_url) as connection:
            for name, table in tables.items():
                ours = name.replace("conversations", postgresql_table)
                columns = connection.execute(
                    "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = %s "
                    "ORDER BY ordinal_position",
                    (ours,),
                ).fetchall()
                assert [list(column) for column in columns] == table["columns"]
                connection.execute(f'DELETE FROM "{ours}"')
                values = ", ".join(["%s"] * len(columns))
                for row in table["rows"]:
                    connection.execute(f'INSERT INTO "{ours}" VALUES ({values})', _plain(row))
            sequence = f"pg_get_serial_sequence('\"{postgresql_table}\"', 'seq')"
            connection.execute(f'SELECT setval({sequence}, (SELECT max(seq) FROM "{postgresql_table}"))')
        assert _signature(backend) == "words-1/english/7a2a7537"
    with PostgreSQL(postgresql_url, postgresql_table, create_if_not_exist=False) as backend:
        assert _signature(backend) == Tokenizer().signature
        _check_terms(backend)
        check(backend)


def _signature(backend: SQLBackend) -> str:
    meta: dict[str, str] = backend._ask(Transaction(backend._words._tables.read_meta))
    assert meta.keys() - {"by_owner"} == {"schema_version", "tokenizer"}
    return meta["tokenizer"]


def _check_terms(backend: SQLBackend) -> None:
    table = backend._words._tables.terms
    statement = sa.select(table.c.length, table.c.terms)
    rows = backend._ask(Transaction(lambda connection: connection.execute(statement).fetchall()))
    terms = [Tokenizer()(message.text) for message in MESSAGES]
    assert sorted((length, bytes(packed)) for length, packed in rows) == sorted(
        (len(each), packed_terms.encode(each)) for each in terms
    )


def _records(store: str) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = json.loads((DATA / f"{store}.json").read_text())
    return records


def test_points_of_a_qdrant_collection() -> None:
    qdrant = pytest.importorskip("qdrant_client")
    from dynamiq_memory.backends import Qdrant  # noqa: PLC0415 - not where its client is missing

    client = qdrant.QdrantClient(":memory:")
    with Qdrant(client, NGrams(64)) as backend:
        client.upsert(backend.index_name, [qdrant.models.PointStruct(**record) for record in _records("qdrant")])
        check(backend)


def test_records_of_a_pinecone_index() -> None:
    pinecone = pytest.importorskip("pinecone")
    from dynamiq_memory.backends import Pinecone  # noqa: PLC0415 - not where its client is missing
    from tests.fakes.pinecone.server import API_KEY, running  # noqa: PLC0415

    with (
        running() as server,
        pinecone.Pinecone(api_key=API_KEY, host=server.url) as client,
        Pinecone(client, NGrams(64)) as backend,
        client.Index(name=backend.index_name) as index,
    ):
        index.upsert(vectors=_records("pinecone"), namespace=backend.namespace)
        check(backend)


def test_objects_of_a_weaviate_collection() -> None:
    weaviate = pytest.importorskip("weaviate")
    from dynamiq_memory.backends import Weaviate  # noqa: PLC0415 - not where its client is missing
    from tests.fakes.weaviate.server import weaviate as running  # noqa: PLC0415

    with running() as server:
        if server.own is None:
            pytest.skip("the collection of the server of WEAVIATE_URL may be in use")
        ports = {"http_port": server.http_port, "grpc_port": server.grpc_port}
        secure = {"http_secure": False, "grpc_secure": False}
        with (
            weaviate.connect_to_custom(http_host=server.host, grpc_host=server.host, **ports, **secure) as client,
            Weaviate(client, NGrams(64)) as backend,
        ):
            with client.collections.use(backend.collection_name).batch.fixed_size() as batch:
                for record in _records("weaviate"):
                    batch.add_object(**record)
            assert not batch.number_errors
            check(backend)
