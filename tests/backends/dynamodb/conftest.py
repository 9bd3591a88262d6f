"""Stores for the tests, each in a table of its own."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator

import pytest

from dynamiq_memory.backends import DynamoDB
from tests.fakes.dynamodb.limits import Watched
from tests.fakes.dynamodb.server import ENDPOINT, running

NewStore = Callable[..., DynamoDB]

_watched: list[Watched] = []


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    """The server of this process."""
    with running() as url:
        yield url


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of our own, unless the tests run against another server."""
    if not os.environ.get(ENDPOINT):
        for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
        monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def watched(credentials: None) -> Watched:
    """A session that checks requests against the service's limits, and counts them."""
    if not _watched:  # reading the service's description takes longer than most tests
        _watched.append(Watched())
    _watched[0].reset()
    return _watched[0]


@pytest.fixture
def table_name(endpoint: str, watched: Watched) -> Iterator[str]:
    """The name of a table; on a server that is not ours it is dropped at the end."""
    name = f"test-{uuid.uuid4()}"
    yield name
    if not os.environ.get(ENDPOINT):
        return
    client = watched.session.client("dynamodb", endpoint_url=endpoint)
    try:
        client.delete_table(TableName=name)
    except client.exceptions.ResourceNotFoundException:
        assert name  # a test that made none
    finally:
        client.close()


@pytest.fixture
def new_store(endpoint: str, watched: Watched, table_name: str) -> Iterator[NewStore]:
    """Opens the test's table, and closes what it opened."""
    made: list[DynamoDB] = []

    def make(connection: object = None, **options: object) -> DynamoDB:
        connection = watched.session if connection is None else connection
        settings = {"table_name": table_name, "endpoint_url": endpoint} | options
        made.append(DynamoDB(connection, **settings))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def store(new_store: NewStore) -> DynamoDB:
    """An empty store."""
    return new_store()
