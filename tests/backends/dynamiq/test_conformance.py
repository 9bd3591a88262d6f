"""The conformance suite for the Dynamiq backend: all of it on our service, and what the platform's API allows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx_retries")

from dynamiq_memory.backends import Dynamiq, MemoryBackend, SQLite
from dynamiq_memory.connections import Dynamiq as DynamiqConnection
from dynamiq_memory.testing import MemoryBackendConformance
from dynamiq_memory.testing.base import SESSION, USER
from dynamiq_memory.testing.concurrency import ConcurrencyConformance
from dynamiq_memory.testing.reading import ReadingConformance
from dynamiq_memory.testing.stateful import StatefulConformance
from tests.conformance.calls import Async, Sync
from tests.fakes.dynamiq.platform import KEY, Platform, platform
from tests.fakes.postgresql.server import PostgreSQLServer
from tests.service.serving import Service, serving


def _backend(service: Service) -> Iterator[MemoryBackend]:
    with Dynamiq(DynamiqConnection(url=service.url, api_key=None), service.new_memory()) as backend:
        yield backend
    service.store.clear()


@pytest.fixture(scope="module")
def sqlite_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    file = tmp_path_factory.mktemp("served") / "memory.db"
    with SQLite(file, synchronous="NORMAL") as store, serving(store) as service:
        yield service


class ServedSQLite:
    @pytest.fixture
    def backend(self, sqlite_service: Service) -> Iterator[MemoryBackend]:
        yield from _backend(sqlite_service)


class TestServedSQLite(ServedSQLite, Sync, MemoryBackendConformance):
    stateful_examples = 4
    messages_per_writer = 10


class TestServedSQLiteAsync(ServedSQLite, Async):
    pass


@pytest.fixture(scope="module")
def known_platform() -> Iterator[Platform]:
    with platform() as server:
        yield server


# Tests of what the platform's API does not allow. It lists the messages of one user, and a message needs a session.
SEVERAL_USERS = [
    "test_a_forgotten_user_is_gone_from_all_sessions",
    "test_an_update_stays_in_its_session",
    "test_a_deleted_session_can_be_filled_again",
    "test_equal_scores_come_latest_first",
    "test_delete_touches_its_scope_alone",
    "test_injected_filters_reach_nobody_else",
    "test_it_is_copied_to_another_store_and_back",
    "test_neighbours_within_the_session",
    "test_replace_puts_the_new_in_the_place_of_the_old",
    "test_scope_applies_before_ranking_and_limit",
    "test_scope_holds_for_every_strategy",
    "test_scope_may_be_absent",
    "test_sessions_with_their_counts",
    "test_the_same_id_elsewhere_is_another_message",
    "test_user_and_session_are_exact",
    "test_writers_and_searchers_do_not_disturb_each_other",
    "test_it_behaves_like_a_list",
]
# It deletes only whole sessions, so nothing can be taken out of one.
SINGLE_MESSAGES = [
    "test_an_update_brings_nothing_back",
    "test_clear",
    "test_delete_can_be_narrowed",
    "test_deleted_and_replaced_messages_are_found_no_more",
    "test_of_many_who_take_one_gets_each_message",
    "test_replace_by_nothing_deletes",
    "test_replace_keeps_ids_and_times_of_what_stays",
    "test_take_deletes_and_returns",
    "test_what_replaces_a_part_stands_in_its_place",
]


class TestPlatform(Sync, MemoryBackendConformance):
    messages_per_writer = 6

    @pytest.fixture
    def backend(self, known_platform: Platform) -> Iterator[MemoryBackend]:
        connection = DynamiqConnection(url=known_platform.url, api_key=KEY)
        with Dynamiq(connection, known_platform.new_memory(), USER, SESSION) as backend:
            yield backend
        known_platform.items.clear()
        known_platform.requests.clear()

    locals().update(dict.fromkeys((*SEVERAL_USERS, *SINGLE_MESSAGES)))


@pytest.fixture(scope="module")
def postgresql_service(postgresql_server: PostgreSQLServer) -> Iterator[Service]:
    pytest.importorskip("psycopg")
    from dynamiq_memory.backends import PostgreSQL  # noqa: PLC0415 - not where its driver is missing

    with PostgreSQL(postgresql_server.url, "served") as store, serving(store) as service:
        yield service
        store.clear()


class TestServedPostgreSQL(Sync, ReadingConformance, ConcurrencyConformance, StatefulConformance):
    """What a store with asynchronous methods of its own changes for the service, which calls these."""

    stateful_examples = 2
    messages_per_writer = 5

    @pytest.fixture
    def backend(self, postgresql_service: Service) -> Iterator[MemoryBackend]:
        yield from _backend(postgresql_service)
