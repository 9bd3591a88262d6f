"""The conformance suite for DynamoDB: moto's server, with the service's limits checked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dynamiq_memory.backends import Capabilities, DynamoDB, MemoryBackend
from dynamiq_memory.testing import MemoryBackendConformance
from dynamiq_memory.testing.changing import ChangingConformance
from dynamiq_memory.testing.concurrency import ConcurrencyConformance
from tests.backends.dynamodb.conftest import NewStore
from tests.conformance.calls import Ranking, Sync
from tests.fakes.embedders import NGrams


class TestDynamoDB(Sync, MemoryBackendConformance):
    """Its asynchronous methods are the synchronous ones in threads."""

    messages_per_writer = 6
    stateful_examples = 4
    stateful_steps = 20

    @pytest.fixture
    def backend(self, new_store: NewStore) -> Iterator[MemoryBackend]:
        with new_store() as backend:
            yield backend


class TestDynamoDBWithVectors(Sync, Ranking):
    stateful_examples = 2
    stateful_steps = 20

    @pytest.fixture
    def backend(self, new_store: NewStore) -> Iterator[MemoryBackend]:
        with new_store(embedder=NGrams()) as backend:
            yield backend


class WithinATransaction(DynamoDB):
    """What it promises for up to 100 messages, though it cannot for more."""

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(transactions=True, max_message_bytes=self.max_message_bytes)


class TestWithinATransaction:
    """The tests of the suite that are for stores with transactions."""

    @pytest.fixture
    def backend(self, watched: object, endpoint: str, table_name: str) -> Iterator[MemoryBackend]:
        with WithinATransaction(watched.session, table_name, endpoint_url=endpoint) as backend:  # type: ignore[attr-defined]
            yield backend

    test_claims = ChangingConformance.test_of_many_who_claim_one_gets_each_message
    test_replacements = ConcurrencyConformance.test_readers_see_whole_replacements
