"""Backends from URLs, third parties' backends, the public names, and what an import costs."""

from __future__ import annotations

import contextlib
import importlib
import json
import sys

import pytest

import dynamiq_memory
from dynamiq_memory import ConfigurationError, DynamiqMemoryError, Memory, MemoryBackend
from dynamiq_memory.backends import InMemory, create_backend
from dynamiq_memory.exceptions import MissingDependencyError


def test_memory_urls():
    with create_backend("memory://") as store:
        assert type(store) is InMemory
    for url in ("memory://secret", "memory:///", "memory://?a=secret"):
        with pytest.raises(ConfigurationError, match="memory://") as caught:
            create_backend(url)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["conversations.db", "", "sqlite:conversations.db", "/x.db"])
def test_other_texts_are_refused_as_a_url(url):
    with pytest.raises(ConfigurationError, match=r"not a URL.*sqlite:///"):
        create_backend(url)


@pytest.mark.parametrize("url", ["mongodb://localhost", "://x", "sqlite+aio:///x.db"])
def test_an_unknown_scheme_is_named_with_those_that_are_known(url):
    with pytest.raises(ConfigurationError, match=r"no backend is known for .*use one of .*memory, .*sqlite, "):
        create_backend(url)


PLUGIN = """
from dynamiq_memory.backends.in_memory import InMemory

class Theirs(InMemory):
    pass

def make(url):
    store = Theirs()
    store.url = url
    return store

def wrong(url):
    return object()

def failing(url):
    raise RuntimeError("no such server: " + url)
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A distribution of a third party on sys.path, as pip would leave it there."""
    (tmp_path / "their_store.py").write_text(PLUGIN, encoding="utf-8")
    folder = tmp_path / "their_store-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: their-store\nVersion: 1.0\n", encoding="utf-8")
    (folder / "entry_points.txt").write_text(
        "[dynamiq_memory.backends]\ntheirs = their_store:make\nwrong = their_store:wrong\n"
        "failing = their_store:failing\nsqlite = their_store:make\nmissing = not_there:make\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("their_store", None)


@pytest.mark.usefixtures("plugin")
def test_a_third_partys_backend_is_found_by_its_entry_point():
    with create_backend("theirs://host/path?x=1") as store:
        assert type(store).__name__ == "Theirs"
        assert store.url == "theirs://host/path?x=1"
        memory = Memory(backend=store)
        memory.add("user", "hello")
        assert len(memory.search("hello")) == 1


@pytest.mark.usefixtures("plugin")
def test_a_third_party_that_makes_something_else():
    with pytest.raises(ConfigurationError, match=r"their_store:wrong.*object.*MemoryBackend"):
        create_backend("wrong://x")
    with pytest.raises(RuntimeError, match="no such server: failing://x"):
        create_backend("failing://x")
    with pytest.raises(ConfigurationError, match=r"use one of .*failing, .*memory, missing, .*sqlite, theirs, .*wrong"):
        create_backend("nobody://x")


@pytest.mark.usefixtures("plugin")
def test_a_third_party_does_not_take_our_schemes():
    with create_backend("sqlite:///:memory:") as store:
        assert type(store).__module__ == "dynamiq_memory.backends.sqlite"


@pytest.mark.usefixtures("plugin")
def test_a_third_partys_module_that_is_missing():
    with pytest.raises((DynamiqMemoryError, ImportError), match="not_there"):
        create_backend("missing://x")


# --- names -----------------------------------------------------------------------------------------------------------

PUBLIC = {
    "dynamiq_memory": [
        "Memory", "MemorySaveMode", "MemoryRetrievalStrategy", "Message", "MessageRole", "MemoryBackend",
        "DynamiqMemoryError", "BackendError", "BackendConnectionError", "BackendAuthenticationError",
        "FilterError", "MessageError", "MessageTooLargeError", "MissingDependencyError", "InvalidArgumentError",
        "ConfigurationError", "PartialWriteError", "Capabilities", "Session", "FormatType", "Pick", "Reason",
        "count_tokens_approximately", "select_to_save", "__version__",
    ],
    "dynamiq_memory.backends": ["InMemory", "SQLite", "MemoryBackend", "Capabilities", "Session", "create_backend"],
    "dynamiq_memory.backends.in_memory": ["InMemory"],
    "dynamiq_memory.backends.sqlite": ["SQLite"],
    "dynamiq_memory.memory": ["Memory", "MemorySaveMode", "MemoryRetrievalStrategy", "FormatType"],
    "dynamiq_memory.ranking": ["BM25", "Tokenizer", "InvertedIndex"],
}  # fmt: skip


@pytest.mark.parametrize(("module", "name"), [(m, n) for m, names in PUBLIC.items() for n in names])
def test_public_names(module, name):
    assert getattr(importlib.import_module(module), name) is not None


def test_all_names_what_is_there():
    for module in ("dynamiq_memory", "dynamiq_memory.backends"):
        loaded = importlib.import_module(module)
        assert len(set(loaded.__all__)) == len(loaded.__all__)
        for name in loaded.__all__:
            # A store's client may not be installed; the error then says what to install.
            with contextlib.suppress(MissingDependencyError):
                assert getattr(loaded, name) is not None
        assert set(loaded.__all__) <= set(dir(loaded))
    with pytest.raises(AttributeError, match="Nothing"):
        _ = dynamiq_memory.backends.Nothing
    with pytest.raises(ImportError):
        exec("from dynamiq_memory.backends import Nothing")


def test_one_class_by_all_its_names():
    base = importlib.import_module("dynamiq_memory.backends.base")
    sqlite = importlib.import_module("dynamiq_memory.backends.sqlite")
    assert base.MemoryBackend is MemoryBackend is dynamiq_memory.backends.MemoryBackend
    assert dynamiq_memory.backends.SQLite is sqlite.SQLite


def test_no_name_shadows_a_builtin():
    builtins = set(dir(__builtins__)) | {"MemoryError"}
    assert not builtins & set(dynamiq_memory.__all__)


def test_an_import_loads_no_store_and_no_optional_library(run_script):
    done = run_script(
        """
import json, sys
import dynamiq_memory
from dynamiq_memory import Memory
Memory().add("user", "hello")
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules} | {
    name for name in sys.modules if name.startswith("dynamiq_memory.")})))
"""
    )
    loaded = set(json.loads(done.stdout))
    assert "pydantic" in loaded
    heavy = {
        "sqlalchemy",
        "sqlite3",
        "numpy",
        "openai",
        "httpx",
        "boto3",
        "psycopg",
        "qdrant_client",
        "weaviate",
        "pytest",
    }
    assert not loaded & heavy
    assert not loaded & {"dynamiq_memory.backends.sqlite", "dynamiq_memory.backends.sql", "dynamiq_memory.testing"}


def test_a_library_that_is_missing_is_not_needed_for_the_others(run_script):
    """`None` in sys.modules makes an import of that name fail."""
    run_script(
        """
import sys
for name in ("sqlalchemy", "numpy", "openai", "httpx", "pytest", "hypothesis", "rich", "typer"):
    sys.modules[name] = None
from dynamiq_memory import Memory
memory = Memory()
memory.add("user", "hello")
assert len(memory.search("hello")) == 1
"""
    )
