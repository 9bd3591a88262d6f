"""Fixtures of the tests of the adapter for dynamiq's agents."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

from dynamiq_memory import Memory, MemoryBackend
from tests.fakes.dynamiq.model_server import ModelServer, serving

if TYPE_CHECKING:
    from dynamiq.nodes.agents import Agent

    from tests.fakes.dynamiq.agents import Talk

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
    if hasattr(config, "workerinput") or not getattr(config.option, "numprocesses", None):
        _import_dynamiq()


def _import_dynamiq() -> None:
    """Import dynamiq where tests run: it takes many seconds, so not where they are only handed out."""
    with warnings.catch_warnings():
        # Dynamiq and its libraries warn about each other when they are imported.
        warnings.simplefilter("ignore")
        import_module("dynamiq.nodes.agents")
        import_module("dynamiq.nodes.tools.function_tool")


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked of a network, and no proxy stands before the model of the tests."""
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def model() -> Iterator[ModelServer]:
    with serving() as server:
        yield server


@pytest.fixture
def core(store: MemoryBackend) -> Memory:
    """A memory without a message."""
    return Memory(backend=store)


@pytest.fixture
def agent(model: ModelServer) -> Callable[..., Agent]:
    """Makes agents of the scripted model."""

    from tests.fakes.dynamiq.agents import new_agent  # noqa: PLC0415 - imports dynamiq

    def make(memory: Any, **options: Any) -> Agent:
        return new_agent(model.url, memory, **options)

    return make


@pytest.fixture
def talk() -> Talk:
    from tests.fakes.dynamiq.agents import Talk  # noqa: PLC0415 - imports dynamiq

    return Talk()
