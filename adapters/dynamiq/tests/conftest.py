"""What the tests of the adapter for dynamiq's agents share."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

with warnings.catch_warnings():
    # Dynamiq and its libraries warn about each other when they are imported.
    warnings.simplefilter("ignore")
    import dynamiq  # noqa: F401
    from dynamiq.nodes.agents import Agent
    from dynamiq.nodes.tools.function_tool import function_tool  # noqa: F401

from adapters.dynamiq.tests.agents import Talk, new_agent
from adapters.dynamiq.tests.model_server import ModelServer, serving
from dynamiq_memory import Memory
from dynamiq_memory.backends import InMemory, SQLite

# Of dynamiq's libraries, when they are used.
_OTHERS_WARNINGS = (
    "ignore:Item '.*' on TypedDict class .* is using the `ReadOnly` qualifier:UserWarning",
    "ignore:Pydantic serializer warnings:UserWarning",
    "ignore:Please use `tools` and `response_format` parameters:DeprecationWarning",
    "ignore:Accessing the 'model_fields' attribute on the instance:pydantic.PydanticDeprecatedSince211",
    "ignore:The `copy` method is deprecated:pydantic.PydanticDeprecatedSince20",
    # Loops and their sockets, which are collected during any later test.
    "ignore:Exception ignored in. <(function BaseEventLoop.__del__|socket.socket):pytest.PytestUnraisableExceptionWarning",
)


def pytest_configure(config: pytest.Config) -> None:
    for warning in _OTHERS_WARNINGS:
        config.addinivalue_line("filterwarnings", warning)


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked of a network, and no proxy stands before the model of the tests."""
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def model() -> Iterator[ModelServer]:
    with serving() as server:
        yield server


@pytest.fixture(params=["InMemory", "SQLite"])
def core(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Memory]:
    """A memory without a message: in the process, then in a file."""
    backend = InMemory() if request.param == "InMemory" else SQLite(tmp_path / "memory.db", synchronous="NORMAL")
    with Memory(backend=backend) as memory:
        yield memory


@pytest.fixture
def agent(model: ModelServer) -> Callable[..., Agent]:
    """Makes agents of the scripted model."""

    def make(memory: Any, **options: Any) -> Agent:
        return new_agent(model.url, memory, **options)

    return make


@pytest.fixture
def talk() -> Talk:
    return Talk()
