"""An agent of the dynamiq package that forgets nothing, by one changed line of its program.

It runs offline: a small server in this script takes the model's place, and answers with the questions that it receives,
which shows what the memory has given. Needs `dynamiq-memory-agents`.
"""

from __future__ import annotations

import json
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from dynamiq import Workflow
from dynamiq.connections import OpenAI as OpenAIConnection
from dynamiq.flows import Flow
from dynamiq.memory import MemoryRetrievalStrategy
from dynamiq.nodes.agents import Agent
from dynamiq.nodes.llms import OpenAI

from dynamiq_memory import Memory
from dynamiq_memory.backends import SQLite
from dynamiq_memory_agents import AgentMemory

IDS = {"user_id": "alex", "session_id": "monday"}
FACTS = ["My dog is called Rex.", "I bake bread on Sundays.", "The roof leaks.", "My knee hurts.", "I keep bees."]
QUESTIONS = {
    MemoryRetrievalStrategy.ALL: "What is my dog called?",
    MemoryRetrievalStrategy.BOTH: "Is Rex a dog?",
}


class Model(BaseHTTPRequestHandler):
    """The part of the OpenAI API that the agent needs."""

    def do_POST(self) -> None:
        """Answer with the questions in the request."""
        messages = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"]
        *before, _ = [message["content"] for message in messages if message["role"] == "user"]
        message = {"role": "assistant", "content": f"Thought: I know.\nAnswer: You said before: {before}"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        completion = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        data = json.dumps(completion).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def ask(url: str, memory: AgentMemory, question: str, strategy: MemoryRetrievalStrategy) -> str:
    agent = Agent(
        name="assistant",
        llm=OpenAI(connection=OpenAIConnection(api_key="none", url=url), model="gpt-4o"),
        role="Helpful assistant that remembers prior turns.",
        memory=memory,
        memory_limit=4,
        memory_retrieval_strategy=strategy,
    )
    workflow = Workflow(flow=Flow(nodes=[agent]))
    result = workflow.run(input_data={"input": question, **IDS})
    return str(result.output[agent.id]["output"]["content"])


def talk(url: str, folder: Path) -> None:
    with Memory(backend=SQLite(folder / "chats.db")) as store:
        # The changed line, which was: memory = Memory(backend=InMemory())
        memory = AgentMemory(memory=store)
        for fact in FACTS:
            ask(url, memory, fact, MemoryRetrievalStrategy.ALL)
        print(f"an agent that loads 4 messages, after {len(FACTS)} turns: {store.count()} messages stored")
        for strategy, question in QUESTIONS.items():
            print(f"{strategy.value}: {question} {ask(url, memory, question, strategy)}")


def main() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Model) as server, tempfile.TemporaryDirectory() as folder:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            talk(f"http://127.0.0.1:{server.server_address[1]}/v1", Path(folder))
        finally:
            server.shutdown()
            thread.join()


if __name__ == "__main__":
    main()
