"""A LangChain chain that remembers across processes, and an agent that continues where the chain stopped.

Each step runs in its own process; they share only the SQLite file. The model is LangChain's fake one, so that the
recipe runs offline: replace it with yours.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import BaseMessage, HumanMessage, get_buffer_string
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import ConfigurableFieldSpec, Runnable, RunnableConfig

from dynamiq_memory import Memory
from dynamiq_memory.backends import SQLite
from langchain_dynamiq_memory import DynamiqChatMessageHistory, DynamiqMemoryMiddleware, with_message_history

CONFIG: RunnableConfig = {"configurable": {"user_id": "rita", "session_id": "monday"}}
STEPS = {
    "chain": ("I keep bees, three hives.", "Lovely! How are they?"),
    "chain again": ("How many hives do I have?", "Three."),
    "agent": ("Remind me: what do I keep?", "Bees, in three hives."),
}


class ShownModel(FakeListChatModel):
    """Answers from a list, and prints its input."""

    def _call(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> str:
        print(f"  the model is given: {get_buffer_string(messages)!r}")
        return super()._call(messages, *args, **kwargs)


def chain(memory: Memory, answer: str) -> Runnable[dict[str, str], Any]:
    def history(user_id: str, session_id: str) -> DynamiqChatMessageHistory:
        return DynamiqChatMessageHistory(memory=memory, session_id=session_id, user_id=user_id, limit=50)

    prompt = ChatPromptTemplate([("system", "Be brief."), MessagesPlaceholder("history"), ("human", "{question}")])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # LangChain deprecates histories of chains, and removes them in 2.0
        return with_message_history(
            prompt | ShownModel(responses=[answer]),
            history,
            input_messages_key="question",
            history_messages_key="history",
            history_factory_config=[
                ConfigurableFieldSpec(id="user_id", annotation=str),
                ConfigurableFieldSpec(id="session_id", annotation=str),
            ],
        )


def step(name: str, path: str) -> None:
    question, answer = STEPS[name]
    print(f"{name}: {question}")
    with Memory(backend=SQLite(path)) as memory:
        if name == "agent":
            middleware = DynamiqMemoryMiddleware(memory=memory, strategy="both", limit=10)
            agent = create_agent(ShownModel(responses=[answer]), middleware=[middleware])
            said = agent.invoke({"messages": [HumanMessage(question)]}, CONFIG)["messages"][-1]
        else:
            said = chain(memory, answer).invoke({"question": question}, CONFIG)
        print(f"  it answers: {said.text}")
        print(f"  stored: {memory.count({'user_id': 'rita', 'session_id': 'monday'})} messages")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in STEPS:
            subprocess.run([sys.executable, __file__, name, str(Path(folder) / "chat.db")], check=True)  # noqa: S603


if __name__ == "__main__":
    if len(sys.argv) > 1:
        step(*sys.argv[1:])
    else:
        main()
