"""A user asks for all that is stored of them, and then to be forgotten: in a store, and in LangGraph's checkpointer.

An agent of LangChain writes to both. The model is a fake one, so that the script runs offline.
"""

from __future__ import annotations

import json

from langchain.agents import create_agent
from langchain_core.language_models import FakeListChatModel
from langgraph.checkpoint.memory import InMemorySaver

from dynamiq_memory import Memory
from dynamiq_memory.backends import InMemory
from langchain_dynamiq_memory import DynamiqMemoryMiddleware


def main() -> None:
    """Talk, export, forget."""
    store, checkpointer = InMemory(), InMemorySaver()
    for user_id, session_id, text in (
        ("alex", "monday", "My dog is called Rex."),
        ("alex", "tuesday", "Rex is ill."),
        ("kim", "kitchen", "I am allergic to nuts."),
    ):
        memory = Memory(store, filters={"user_id": user_id})
        model = FakeListChatModel(responses=["I will remember that."])
        agent = create_agent(model, middleware=[DynamiqMemoryMiddleware(memory)], checkpointer=checkpointer)
        agent.invoke({"messages": [{"role": "user", "content": text}]}, {"configurable": {"thread_id": session_id}})

    print("all that is stored of alex:")
    for message in Memory(store, filters={"user_id": "alex"}).get_all():
        print(f"  {message.session_id}: {message.role.value}: {message.text}")

    receipt = Memory(store).forget_user("alex", also=[checkpointer])
    print("the receipt:")
    print(
        json.dumps([{k: v for k, v in each.items() if k != "traces"} for each in receipt.to_dict()["stores"]], indent=2)
    )

    left = [message.text for message in store.get_all()]
    threads = [
        session
        for session in ("monday", "tuesday", "kitchen")
        if checkpointer.get_tuple({"configurable": {"thread_id": session}})
    ]
    print(f"nothing of alex is left: {receipt.is_complete}; of others: {left[:1]} and the thread {threads}")
    store.close()


if __name__ == "__main__":
    main()
