"""A service with keys, and its clients."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx_retries")

import httpx

from dynamiq_memory.backends import InMemory
from dynamiq_memory.server.keys import KeyStore
from tests.service.serving import Service, serving

Client = httpx.Client


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("DYNAMIQ_API_KEY", "DYNAMIQ_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def module_keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyStore]:
    with KeyStore(tmp_path_factory.mktemp("keys") / "keys.db") as store:
        yield store


@pytest.fixture
def keys(module_keys: KeyStore) -> Iterator[KeyStore]:
    """No keys, at first."""
    yield module_keys
    module_keys._run("DELETE FROM keys")


@pytest.fixture(scope="module")
def module_service(module_keys: KeyStore) -> Iterator[Service]:
    with InMemory() as store, serving(store, module_keys) as service:
        yield service


@pytest.fixture
def service(module_service: Service, keys: KeyStore) -> Iterator[Service]:
    """Asks for keys; over an empty store in this process."""
    yield module_service
    module_service.store.clear()


@pytest.fixture(scope="module")
def module_open_service() -> Iterator[Service]:
    with InMemory() as store, serving(store, local_only=True) as service:
        yield service


@pytest.fixture
def open_service(module_open_service: Service) -> Iterator[Service]:
    """Asks for none; over an empty store in this process."""
    yield module_open_service
    module_open_service.store.clear()


@pytest.fixture
def client(service: Service, keys: KeyStore) -> Iterator[Callable[..., Client]]:
    """Makes clients with a key for memories, and maybe one user."""
    made: list[Client] = []

    def make(*memory_ids: str, user_id: str | None = None) -> Client:
        _, text = keys.create(memory_ids, user_id)
        made.append(service.client(text))
        return made[-1]

    yield make
    for one in made:
        one.close()


def item(text: str = "hello", user: str | None = "u", session: str | None = "s", **more: object) -> dict[str, object]:
    """What a client of the platform posts."""
    data = {"role": "user", "content": [{"type": "text", "text": text}]}
    return {"user_id": user, "session_id": session, "type": "message", "data": data, **more}
