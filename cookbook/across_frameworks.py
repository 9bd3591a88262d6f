"""One conversation that LangChain begins, LlamaIndex continues, and LangChain takes up again.

Each step runs in its own process; they share only the SQLite file. The models are the frameworks' fake ones, so that
the recipe runs offline: replace them with yours.

Needs `pip install 'langchain-dynamiq-memory[agents]' llama-index-memory-dynamiq`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dynamiq_memory import Memory
from dynamiq_memory.backends import SQLite

USER, SESSION = "rita", "monday"


def ask_langchain(memory: Memory, question: str, answer: str) -> None:
    from langchain.agents import create_agent
    from langchain_core.language_models import FakeListChatModel
    from langchain_core.messages import BaseMessage, HumanMessage
    from langchain_core.runnables import RunnableConfig

    from langchain_dynamiq_memory import DynamiqMemoryMiddleware

    class ShownModel(FakeListChatModel):
        def _call(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> str:
            show([message.text for message in messages])
            return super()._call(messages, *args, **kwargs)

    agent = create_agent(ShownModel(responses=[answer]), middleware=[DynamiqMemoryMiddleware(memory)])
    config: RunnableConfig = {"configurable": {"user_id": USER, "session_id": SESSION}}
    agent.invoke({"messages": [HumanMessage(question)]}, config)


def ask_llama_index(memory: Memory, question: str, answer: str) -> None:
    from llama_index.core.chat_engine import SimpleChatEngine
    from llama_index.core.llms import ChatMessage, ChatResponse, MockLLM

    from llama_index.memory.dynamiq import DynamiqMemory

    class ShownModel(MockLLM):
        def chat(self, messages: Sequence[ChatMessage], **_: Any) -> ChatResponse:
            show([message.content for message in messages])
            return ChatResponse(message=ChatMessage(role="assistant", content=answer))

    session = DynamiqMemory(memory, session_id=SESSION, user_id=USER)
    SimpleChatEngine.from_defaults(llm=ShownModel(max_tokens=None), memory=session).chat(question)


def show(prompt: object) -> None:
    print(f"  the model is given: {prompt}")


STEPS = [
    (ask_langchain, "I keep bees, three hives.", "Lovely! How are they?"),
    (ask_llama_index, "Fine. How many hives did I say?", "Three."),
    (ask_langchain, "And what lives in them?", "Bees."),
]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number in range(len(STEPS)):
            subprocess.run([sys.executable, __file__, str(number), str(Path(folder) / "chat.db")], check=True)  # noqa: S603


if __name__ == "__main__":
    if len(sys.argv) > 1:
        ask, question, answer = STEPS[int(sys.argv[1])]
        print(f"{ask.__name__}: {question}", flush=True)
        with Memory(backend=SQLite(sys.argv[2])) as memory:
            ask(memory, question, answer)
            print(f"  it answers: {answer}\n  stored: {memory.scoped(SESSION, USER).count()} messages")
    else:
        main()
