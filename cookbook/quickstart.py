"""The first steps: add messages, search them, build an agent's context, delete. Two users share one store."""

from __future__ import annotations

import tempfile
from pathlib import Path

from dynamiq_memory import Memory, MemoryRetrievalStrategy
from dynamiq_memory.backends import SQLite


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, Memory(backend=SQLite(Path(folder) / "chat.db")) as memory:
        ann = {"user_id": "ann", "session_id": "monday"}
        memory.add("user", "I am allergic to peanuts, please remember that.", metadata=ann)
        memory.add("assistant", "Noted: no peanuts.", metadata=ann)
        memory.add("user", "What is the weather like in Lisbon?", metadata=ann)
        memory.add("assistant", "Sunny, 24 degrees.", metadata=ann)
        memory.add("user", "Peanuts are my favourite snack.", metadata={"user_id": "ben", "session_id": "monday"})

        # A search ranks by relevance. The filter is applied before the ranking, so users stay separate.
        for user in ("ann", "ben"):
            best = memory.search("allergic to peanuts", filters={"user_id": user}, limit=1)[0]
            print(f"{user}: {best.content!r} (score {best.score:.2f})")

        # The conversation for the model: whole turns, oldest first, starting with a user message.
        print("\nFor Ann's agent, asked about snacks with peanuts:")
        conversation = memory.get_agent_conversation(
            "Which snacks with peanuts can I eat?",
            limit=2,
            filters={"user_id": "ann"},
            strategy=MemoryRetrievalStrategy.RELEVANT,
        )
        for message in conversation:
            print(f"  {message.role}: {message.content}")

        # Ben's session has the same name, but only Ann's is deleted.
        print(f"\ndeleted for Ann: {memory.delete(user_id='ann', session_id='monday')}")
        print(f"left for Ann: {memory.count({'user_id': 'ann'})}, for Ben: {memory.count({'user_id': 'ben'})}")


if __name__ == "__main__":
    main()
