"""A LangChain chain and an agent of the dynamiq package share one store through the service.

Only the service opens the file. The chain uses our `Dynamiq` backend, the agent uses its own package's backend for the
platform, unchanged. Each runs in a separate process, because the two cannot be installed in one environment. The
agent's environment is `.venv-dynamiq`, or the interpreter passed as `--agent-python`; without it, its step is skipped.

Requires `dynamiq-memory[server,dynamiq]` and the LangChain adapter; the agent's environment requires `dynamiq`. The
models are fakes, so this runs offline.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MEMORY, USER, SESSION = "beekeeping", "rita", "monday"
SERVER = [sys.executable, "-m", "dynamiq_memory.cli"]
AGENTS_PYTHON = Path(__file__).resolve().parents[1] / ".venv-dynamiq" / "bin" / "python"


def chain() -> None:
    """Run the LangChain chain. The service is given by `DYNAMIQ_URL` and `DYNAMIQ_API_KEY`."""
    from langchain_core.language_models import FakeListChatModel
    from langchain_core.output_parsers import StrOutputParser
    from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder

    from dynamiq_memory import Memory
    from dynamiq_memory.backends import Dynamiq
    from langchain_dynamiq_memory import DynamiqChatMessageHistory

    prompt = ChatPromptTemplate([MessagesPlaceholder("history"), ("human", "{question}")])
    model = prompt | FakeListChatModel(responses=["Lovely! How are they?"]) | StrOutputParser()
    with Memory(backend=Dynamiq(memory_id=MEMORY)) as memory:
        history = DynamiqChatMessageHistory(memory=memory, session_id=SESSION, user_id=USER)
        question = "I keep bees, three hives."
        answer = model.invoke({"history": history.messages, "question": question})
        history.add_user_message(question)
        history.add_ai_message(answer)
        print(f"chain: {question} {answer}")


def agent() -> None:
    """Run the dynamiq agent, without any code of this package."""
    from dynamiq import Workflow
    from dynamiq.connections import OpenAI as OpenAIConnection
    from dynamiq.flows import Flow
    from dynamiq.memory import Memory
    from dynamiq.memory.backends import Dynamiq
    from dynamiq.nodes.agents import Agent
    from dynamiq.nodes.llms import OpenAI

    with serve(Model) as port:
        connection = OpenAIConnection(api_key="none", url=f"http://127.0.0.1:{port}/v1")
        assistant = Agent(
            name="assistant",
            llm=OpenAI(connection=connection, model="gpt-4o"),
            role="Helpful assistant that remembers prior turns.",
            memory=Memory(backend=Dynamiq(memory_id=MEMORY)),
        )
        question = "What do I keep?"
        ids = {"user_id": USER, "session_id": SESSION}
        result = Workflow(flow=Flow(nodes=[assistant])).run(input_data={"input": question, **ids})
        print(f"agent: {question} {result.output[assistant.id]['output']['content']}")


class Model(BaseHTTPRequestHandler):
    """The part of OpenAI's API that the agent needs. It answers with the user's earlier messages."""

    def do_POST(self) -> None:
        """Answer a request."""
        messages = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"]
        *before, _ = [message["content"] for message in messages if message["role"] == "user"]
        message = {"role": "assistant", "content": f"Thought: I know.\nAnswer: You said before: {before}"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        data = json.dumps(
            {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Do not log requests."""


@contextmanager
def serve(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def service(folder: Path) -> Iterator[dict[str, str]]:
    """Run the service on a file, and return the environment variables for its clients."""
    keys = ["--keys", str(folder / "keys.db")]
    command = [*SERVER, "keys", "create", "--memory", MEMORY, *keys]
    created = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    options = ["--port", str(port), *keys, "--log-level", "warning"]
    command = [*SERVER, "serve", "--backend", f"sqlite:///{folder / 'served.db'}", *options]
    server = subprocess.Popen(command)  # noqa: S603
    try:
        wait_until_ready(url, server)
        yield {**os.environ, "DYNAMIQ_URL": url, "DYNAMIQ_API_KEY": created.stdout.strip(), "NO_PROXY": "127.0.0.1"}
    finally:
        server.terminate()
        server.wait()


def wait_until_ready(url: str, server: subprocess.Popen[bytes]) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while server.poll() is None:
        try:
            opener.open(f"{url}/healthz").close()
        except urllib.error.URLError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit("the service did not start")


def has(python: str, package: str) -> bool:
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    return subprocess.run([python, "-c", code], check=False).returncode == 0  # noqa: S603


def stored(environment: dict[str, str]) -> list[str]:
    """Read the messages over plain HTTP, as any client with the key can."""
    url = f"{environment['DYNAMIQ_URL']}/v1/memories/{MEMORY}/items?user_id={USER}&session_id={SESSION}&sort=created_at"
    headers = {"Authorization": f"Bearer {environment['DYNAMIQ_API_KEY']}"}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the service's
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request) as response:
        items = json.load(response)["data"]
    return [f"{item['data']['role']}: {item['data']['content'][0]['text']}" for item in items]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", nargs="?", choices=["chain", "agent"], help=argparse.SUPPRESS)
    parser.add_argument("--agent-python", default=str(AGENTS_PYTHON), help="a Python interpreter that has dynamiq")
    arguments = parser.parse_args()
    if arguments.step:
        {"chain": chain, "agent": agent}[arguments.step]()
        return
    with tempfile.TemporaryDirectory() as folder, service(Path(folder)) as environment:
        agent_python = next(
            (p for p in (arguments.agent_python, sys.executable) if Path(p).exists() and has(p, "dynamiq")), ""
        )
        langchain = importlib.util.find_spec("langchain_core")
        for step, python, installed in (("chain", sys.executable, langchain), ("agent", agent_python, agent_python)):
            if installed:
                subprocess.run([python, __file__, step], env=environment, check=True)  # noqa: S603
            else:
                print(f"{step}: skipped, its framework is not installed")
        print("stored:")
        for line in stored(environment):
            print(f"  {line}")


if __name__ == "__main__":
    main()
