"""Memories by reference."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dynamiq_memory import BackendConnectionError, ConfigurationError, Memory, register_memory
from dynamiq_memory.backends import InMemory, SQLite, create_backend
from dynamiq_memory.integrations.references import memory_at, reference_to, resolve
from dynamiq_memory.ranking import Tokenizer
from tests.conftest import RunScript


@pytest.fixture(autouse=True)
def _registries_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynamiq_memory.integrations.references._by_url", {})
    monkeypatch.setattr("dynamiq_memory.integrations.references._by_name", {})


def test_a_memory_is_opened_once_for_each_url(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    with memory_at(url) as memory:
        assert memory_at(url) is memory
        memory.add("user", "hello")
    with memory_at(url) as again:
        assert again is not memory
        assert again.count() == 1


@pytest.mark.parametrize("wrong", ["nothing", "ftp://x", None, ["x"]])
def test_a_wrong_url_is_refused(wrong: object) -> None:
    with pytest.raises(ConfigurationError):
        memory_at(wrong)  # type: ignore[arg-type]


def test_a_live_memory_is_found_again() -> None:
    memory = Memory(filters={"user_id": "u"})
    assert resolve(json.loads(json.dumps(reference_to(memory)))) is memory
    assert reference_to(memory) == reference_to(memory)


def test_a_memory_without_url_and_name_is_not_found_elsewhere() -> None:
    reference = reference_to(Memory()) | {"id": "of another process"}
    with pytest.raises(ConfigurationError, match="register_memory"):
        resolve(reference)


def test_a_name_stands_for_whatever_is_registered() -> None:
    first, second = Memory(), Memory()
    register_memory("main", first)
    reference = reference_to(first) | {"id": "of another process"}
    assert resolve(reference) is first
    register_memory("main", second)
    assert resolve(reference) is second
    with pytest.raises(ConfigurationError, match="Memory"):
        register_memory("main", "sqlite:///x.db")  # type: ignore[arg-type]


def test_a_file_is_opened_in_another_process(tmp_path: Path, run_script: RunScript) -> None:
    backend = SQLite(tmp_path / "a b%#.db", index_name="mine")
    with Memory(backend=backend, filters={"user_id": "u"}, message_limit=7, save_mode="input_output") as memory:
        memory.add("user", "hello")
        reference = json.dumps(reference_to(memory))
    run_script(
        """
import json, sys
from dynamiq_memory import MemorySaveMode
from dynamiq_memory.integrations.references import resolve
with resolve(json.loads(sys.argv[1])) as memory:
    assert memory.get_all()[0].content == "hello"
    assert memory.filters == {"user_id": "u"}
    assert (memory.message_limit, memory.save_mode) == (7, MemorySaveMode.INPUT_OUTPUT)
""",
        reference,
    )


def test_only_a_store_that_a_url_describes_has_one(tmp_path: Path) -> None:
    assert InMemory().to_url() is None
    with SQLite(":memory:") as store:
        assert store.to_url() is None
    with SQLite(tmp_path / "a.db", tokenizer=Tokenizer(language=None)) as store:
        assert store.to_url() is None
    with SQLite(tmp_path / "b.db", timeout=2.5, synchronous="NORMAL") as store:
        url = store.to_url()
        assert url is not None
        with create_backend(url) as same:
            assert same.to_dict() == store.to_dict()


def test_a_file_that_is_gone_is_not_replaced_by_an_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with Memory(backend=SQLite(path)) as memory:
        reference = reference_to(memory) | {"id": None}
    path.unlink()
    with pytest.raises(BackendConnectionError, match=r"a\.db.*put it back"):
        resolve(reference)
    assert not path.exists()


def test_a_closed_memory_is_opened_again(tmp_path: Path) -> None:
    with Memory(backend=SQLite(tmp_path / "a.db")) as memory:
        memory.add("user", "hello")
        reference = reference_to(memory)
    with resolve(reference) as again:
        assert again.count() == 1


@pytest.mark.parametrize("forged", [{}, {"id": [], "name": {}}, {"url": "ftp://x"}, {"url": 5}])
def test_a_forged_reference_is_refused(forged: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        resolve(forged)


@pytest.mark.parametrize("name", ["", None, 5])
def test_a_name_is_a_text(name):
    with pytest.raises(ConfigurationError, match="non-empty string"):
        register_memory(name, Memory())


def test_a_store_that_is_slow_to_open_delays_no_other_and_no_forked_child(run_script: RunScript) -> None:
    run_script(
        """
import os, threading, warnings
from dynamiq_memory.backends import InMemory
from dynamiq_memory.integrations import references

warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")
begun, go = threading.Event(), threading.Event()

def create(url):
    if url == "slow://" and os.getpid() == parent:
        begun.set()
        assert go.wait(60)
    return InMemory()

parent, references.create_backend = os.getpid(), create
opened = []
threads = [threading.Thread(target=lambda: opened.append(references.memory_at("slow://"))) for _ in range(2)]
for thread in threads:
    thread.start()
assert begun.wait(60)
assert references.memory_at("quick://") is references.memory_at("quick://")
assert references.resolve(references.reference_to(references.memory_at("quick://"))).is_empty()
pid = os.fork()
if not pid:
    references.memory_at("slow://")
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
go.set()
for thread in threads:
    thread.join()
assert opened[0] is opened[1] is references.memory_at("slow://")
""",
        timeout=120,
    )
