"""Copies and pickles of histories and middleware: they refer to the memory."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.tools import StructuredTool

from dynamiq_memory import ConfigurationError, Memory, register_memory
from dynamiq_memory.backends import SQLite
from langchain_dynamiq_memory import DynamiqChatMessageHistory, DynamiqMemoryMiddleware


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


COPIES = pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled], ids=["copy", "deepcopy", "pickle"])


class Labelled(DynamiqChatMessageHistory):
    label = "none"


@COPIES
def test_a_copy_of_a_history_shares_the_store(memory: Memory, copied: Any) -> None:
    history = Labelled(memory, "s", "ann", limit=3, default=repr)
    history.label = "mine"
    other = copied(history)
    other.add_messages([HumanMessage("q", additional_kwargs={"odd": object})])
    assert (type(other), other.label, other.limit) == (Labelled, "mine", 3)
    assert (other.session_id, other.user_id) == ("s", "ann")
    assert [message.text for message in history.messages] == ["q"]
    history.clear()
    assert other.messages == []


@COPIES
@pytest.mark.parametrize("search", [None, "session"])
def test_a_copy_of_a_middleware_shares_the_memory(memory: Memory, copied: Any, search: Any) -> None:
    middleware = DynamiqMemoryMiddleware(memory, strategy="both", limit=3, max_tokens=100, search=search)
    other = copied(middleware)
    assert other.memory is memory
    assert (other.strategy, other.limit, other.max_tokens) == ("both", 3, 100)
    assert [tool.name for tool in other.tools] == [tool.name for tool in middleware.tools]


def weather(city: str) -> str:
    """Say how the weather is."""
    return city


def test_a_copy_keeps_the_tools_that_a_subclass_adds(memory: Memory) -> None:
    middleware = DynamiqMemoryMiddleware(memory, search="user")
    middleware.tools = [*middleware.tools, StructuredTool.from_function(weather)]
    assert [tool.name for tool in copy.deepcopy(middleware).tools] == ["search_memory", "weather"]


SCRIPT = """
import pickle, sys, warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import langchain.agents
from dynamiq_memory import ConfigurationError, Memory, register_memory
register_memory("langchain-copies", Memory())
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        try:
            history, middleware = pickle.load(file)
        except ConfigurationError as error:
            print(error)
        else:
            print([message.text for message in history.messages], middleware.memory.count())
"""


def test_a_pickle_finds_its_memory_in_another_process(run_script, tmp_path: Path):
    def dump(file: str, memory: Memory) -> Path:
        history = DynamiqChatMessageHistory(memory, "s")
        history.add_messages([HumanMessage("q")])
        (tmp_path / file).write_bytes(pickle.dumps((history, DynamiqMemoryMiddleware(memory, search="user"))))
        return tmp_path / file

    named = Memory()
    register_memory("langchain-copies", named)
    with Memory(backend=SQLite(tmp_path / "a.db")) as stored:
        files = [dump("stored", stored), dump("named", named), dump("neither", Memory())]
    by_url, by_name, refusal = run_script(SCRIPT, *files).stdout.splitlines()
    assert (by_url, by_name) == ("['q'] 1", "[] 0")
    assert "register_memory" in refusal


def test_a_reference_that_leads_nowhere_is_refused_by_our_error() -> None:
    dumped = pickle.dumps(DynamiqChatMessageHistory(Memory(), "s"))
    with pytest.raises(ConfigurationError, match="register_memory"):
        pickle.loads(dumped)
