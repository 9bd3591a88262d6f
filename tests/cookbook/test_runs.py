"""The demo and the recipes, from another folder, as a reader runs them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import runpy
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self
from unittest.mock import patch

import pytest

import dynamiq_memory
from dynamiq_memory import Memory
from dynamiq_memory.backends import SQLite

pytest.importorskip("rich")
pytest.importorskip("typer")

COOKBOOK = Path(__file__).resolve().parents[2] / "cookbook"
RIGHT_KEY = "sk-right"
Env = Mapping[str, str]
NOTHING: Env = MappingProxyType({})
BOX_DRAWING = re.compile(r"[\u2500-\u259f]")
# Set on some machines and in CI; each would change what the demo prints.
LEFT_OUT = {
    *("COLUMNS", "FORCE_COLOR", "GITHUB_ACTIONS", "NO_COLOR", "PY_COLORS", "TERM", "TTY_COMPATIBLE", "TTY_INTERACTIVE"),
    *("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL"),
}


@dataclass
class Shell:
    """Runs scripts of the cookbook, each in a process of its own, and checks that they leave no files."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.temporary.mkdir(exist_ok=True)
        temporary = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(self.temporary))
        self.env = {key: value for key, value in os.environ.items() if key not in LEFT_OUT} | temporary
        self.env |= {
            "PYTHONPATH": str(Path(dynamiq_memory.__file__).parents[1]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONIOENCODING": "utf-8",
            "PYTHONWARNINGS": "error::ResourceWarning",
            "COLUMNS": "100",
            "NO_PROXY": "127.0.0.1",
        }

    @property
    def temporary(self) -> Path:
        return self.folder / "temporary"

    def run(self, script: str, *arguments: str, typed: str = "", code: int = 0, env: Env = NOTHING) -> str:
        """Run a script, check its exit code and that it left no file; return all that it printed."""
        left, printed = self._execute([str(COOKBOOK / script), *arguments], typed, {**self.env, **env})
        assert left == code, printed
        assert "Traceback" not in printed
        assert "\x1b" not in printed
        assert not list(self.temporary.iterdir())
        return printed

    def _execute(self, command: list[str], typed: str, env: dict[str, str]) -> tuple[Any, str]:
        """Return the exit code and all that was printed."""
        done = subprocess.run(
            [sys.executable, *command],
            cwd=self.folder,
            env=env,
            input=typed,
            capture_output=True,
            encoding="utf-8",
            timeout=300,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr


@dataclass
class SameProcess(Shell):
    """Runs scripts in this process, where their imports, which take most of their time, are there already."""

    capture: pytest.CaptureFixture[str] | None = None

    def _execute(self, command: list[str], typed: str, env: dict[str, str]) -> tuple[Any, str]:
        assert self.capture is not None
        left: Any = 0
        with (
            patch.dict(os.environ, env, clear=True),
            patch.object(sys, "argv", command),
            patch.object(sys, "stdin", io.StringIO(typed)),
            patch.object(tempfile, "tempdir", str(self.temporary)),
            contextlib.chdir(self.folder),
        ):
            try:
                runpy.run_path(command[0], run_name="__main__")
            except SystemExit as exit_:
                left = exit_.code
        return left, "".join(self.capture.readouterr())


@pytest.fixture
def steps_here() -> Iterator[None]:
    """Lets a recipe take its steps in this process, since a process of their own would import a framework for each."""

    def run(command: list[str], *, check: bool) -> None:
        assert check
        with patch.object(sys, "argv", command[1:]):
            runpy.run_path(command[1], run_name="__main__")

    with patch.object(subprocess, "run", run):
        yield


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture
def same_process(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> SameProcess:
    return SameProcess(tmp_path, capture=capfd)


@pytest.fixture(scope="module")
def conversation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shell = Shell(tmp_path_factory.mktemp("conversation"))
    shell.run("demo.py", "store", "--db", "memory.db")
    return shell.folder / "memory.db"


@pytest.fixture
def stored(tmp_path: Path, conversation: Path) -> str:
    """A file with the conversation in it, the test's own."""
    return str(shutil.copy(conversation, tmp_path))


# --- the recipes ---------------------------------------------------------------------------------------------


def test_quickstart(same_process: SameProcess) -> None:
    printed = same_process.run("quickstart.py")
    assert "ann: 'I am allergic to peanuts, please remember that.'" in printed
    assert "ben: 'Peanuts are my favourite snack.'" in printed
    assert "  user: I am allergic to peanuts, please remember that.\n  assistant: Noted: no peanuts.\n" in printed
    assert "deleted for Ann: 4\nleft for Ann: 0, for Ben: 1\n" in printed


def test_async_and_threads(same_process: SameProcess) -> None:
    printed = same_process.run("async_and_threads.py")
    assert "written: 300 by 100 tasks and 8 threads\nstored:  300\nlost: 0, duplicated: 0\n" in printed
    assert "thread 0 in order: True" in printed
    assert "search for 'task 42': task 42\n" in printed


def test_qdrant_hybrid(same_process: SameProcess) -> None:
    pytest.importorskip("qdrant_client")
    printed = same_process.run("qdrant_hybrid.py")
    assert "Who is Minka? My kitten is called Minka.\n" in printed
    assert "What pets are there? My kitten is called Minka.\n" in printed
    assert "Which car was it? I sold my old automobile last week.\n" in printed
    assert "stored for Ann: 4, newest: On Sundays I cook for my neighbours.\ndeleted: 4, left for Ann: 0\n" in printed


@pytest.mark.usefixtures("steps_here")
def test_langchain_chain(same_process: SameProcess) -> None:
    pytest.importorskip("langchain")
    printed = same_process.run("langchain_chain.py")
    chain = (
        "System: Be brief.\\nHuman: I keep bees, three hives.\\nAI: Lovely! How are they?\\nHuman: How many hives do"
    )
    assert chain in printed
    assert "'Human: I keep bees, three hives." in printed.partition("\nagent: ")[2]
    assert [line for line in printed.splitlines() if "stored" in line] == [f"  stored: {n} messages" for n in (2, 4, 6)]


def test_langchain_search(same_process: SameProcess) -> None:
    pytest.importorskip("langchain")
    printed = same_process.run("langchain_search.py")
    assert re.findall("^call: .*", printed, re.MULTILINE) == [
        "call: search_memory with query",
        "call: search_memory with message_id, offset",
    ]
    assert printed.count('speaker="user" session="spring"') == 2
    assert printed.endswith("ai: You paid 412.50 euros.\n")


def test_forget_user(same_process: SameProcess) -> None:
    pytest.importorskip("langchain")
    printed = same_process.run("forget_user.py")
    assert re.findall('"deleted": (.)', printed) == ["2", "4"]
    assert "nothing of alex is left: True; of others: ['I am allergic to nuts.'] and the thread ['kitchen']" in printed


@pytest.mark.usefixtures("steps_here")
def test_across_frameworks(same_process: SameProcess) -> None:
    pytest.importorskip("langchain")
    pytest.importorskip("llama_index.core")
    printed = same_process.run("across_frameworks.py")
    said = ["I keep bees, three hives.", "Lovely! How are they?", "Fine. How many hives did I say?", "Three."]
    assert f"the model is given: {said[:3]}" in printed
    assert f"the model is given: {[*said, 'And what lives in them?']}" in printed
    assert "stored: 6 messages" in printed


def test_served_store(same_process: SameProcess) -> None:
    pytest.importorskip("langchain")
    pytest.importorskip("fastapi")
    pytest.importorskip("httpx_retries")
    printed = same_process.run("served_store.py", "--agent-python", "nowhere")
    assert "chain: I keep bees, three hives. Lovely! How are they?" in printed
    assert "agent: skipped, its framework is not installed" in printed
    assert "stored:\n  user: I keep bees, three hives.\n  assistant: Lovely! How are they?\n" in printed


def test_import_from_dynamiq(same_process: SameProcess) -> None:
    printed = same_process.run("import_from_dynamiq.py")
    assert "in the old file: 5, found: 5" in printed
    assert "old-5 ben 1700090000 user: My dog is called Luna." in printed
    ranked = printed.partition("Ann's dog, ranked:")[2]
    assert "My dog is called Rex" in ranked
    assert "Luna" not in ranked


# --- the demo ------------------------------------------------------------------------------------------------


def test_the_whole_demo_piped(shell: Shell) -> None:
    printed = shell.run("demo.py")
    assert not BOX_DRAWING.search(printed)
    assert max(map(len, printed.splitlines())) <= 100
    assert "315 messages of 17 sessions" in printed

    asked = [part.partition("\n")[2] for part in printed.split("Ask on 20 October: ")[1:]]
    assert len(asked) == 3
    asked[2] = asked[2].partition("\nThe first question")[0]
    for part in asked:
        assert "ALL       the answer is NOT among these 8 messages" in part
        assert "RELEVANT  the answer IS among these 8 messages" in part
        assert "BOTH      the answer IS among these 8 messages" in part
    # Once under RELEVANT and once under BOTH: the answering message, why it is there, and its answer marked.
    assert len(re.findall(r"  > user +match +\d+\.\d  Picked! Pale green, \*\*RAL 6021\*\*", asked[0])) == 2
    assert asked[0].count("  7 weeks ago · 2026-08-31-kitchen\n") == 2
    assert "**Monday 23 November**" in asked[1]
    assert "**Not hazelnuts, Joris's throat swells up**" in asked[2]

    other = printed.partition("another user")[2].partition("All questions")[0]
    assert "asks as someone-else" in other
    assert other.count("no messages: this user has none") == 3
    assert "RAL 6021" not in other

    assert re.search(r"answer among the messages +0/12 +12/12 +1[12]/12\n", printed)
    # Every step was a process of its own.
    assert len(set(re.findall(r"^process (\d+) (?:asks|stores)", printed, re.MULTILINE))) == 6
    assert "set OPENAI_API_KEY" in printed


def test_a_file_that_is_named_stays_and_is_not_doubled(same_process: SameProcess, stored: str) -> None:
    assert "315 messages" in same_process.run("demo.py", "store", "--db", stored)
    with Memory(backend=SQLite(stored)) as memory:
        assert memory.count() == 315
        assert {message.user_id for message in memory.get_all()} == {"hanne"}
        assert sum(len(message.tool_calls or ()) for message in memory.get_all()) == 12
    printed = same_process.run(
        "demo.py", "ask", "Who teaches Portuguese?", "--db", stored, "--limit", "4", env={"COLUMNS": "80"}
    )
    assert "RELEVANT  4 messages (matching turns)" in printed
    assert max(map(len, printed.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--limit", "0"], 2, "greater than or equal to 1"),
        (["--limit", "4", "ask", "5"], 2, "put --db and --limit after ask"),
        (["ask", "13"], 2, "use a number from 1 to 12, not 13"),
        (["ask", "5", "--db", "missing.db"], 2, "missing.db does not exist: create it"),
        (["summary", "--db", __file__], 1, "is not a SQLite database"),
        (["chat"], 1, "OPENAI_API_KEY is not set"),
    ],
)
def test_a_wrong_command_line_is_explained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, told: str
) -> None:
    # In this process: a new one for each of them would take most of the time of these tests.
    monkeypatch.setattr(sys, "argv", ["demo.py", *arguments])
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(COOKBOOK / "demo.py"), run_name="__main__")
    assert left.value.code == code
    assert told in " ".join(capsys.readouterr().err.split())


def test_help_and_errors_are_plain_when_piped(same_process: SameProcess) -> None:
    printed = same_process.run("demo.py", "--help")
    assert all(f"\n  {name} " in printed for name in ("store", "ask", "summary", "chat"))
    assert not BOX_DRAWING.search(printed)
    assert not BOX_DRAWING.search(same_process.run("demo.py", "ask", "13", code=2))


# --- the chat ------------------------------------------------------------------------------------------------


class Model(ThreadingHTTPServer):
    """As much of the OpenAI API as the chat needs; knows one key."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[dict[str, Any]] = []

    @property
    def env(self) -> dict[str, str]:
        url = f"http://127.0.0.1:{self.server_address[1]}/v1"
        return {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": RIGHT_KEY, "OPENAI_MODEL": "test-model"}


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert isinstance(self.server, Model)
        if self.headers["Authorization"] != f"Bearer {RIGHT_KEY}":
            self._reply(401, {"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}})
            return
        self.server.requests.append(body)
        message = {"role": "assistant", "content": f"Answer {len(self.server.requests)}, [bold]as is[/bold]."}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        completion = {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        self._reply(200 if self.path == "/v1/chat/completions" else 404, completion)

    def _reply(self, status: int, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def model() -> Iterator[Model]:
    pytest.importorskip("openai")
    with Model() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def texts(request: dict[str, Any]) -> Sequence[str]:
    return [message["content"] for message in request["messages"]]


def test_chat_is_given_the_memory_and_keeps_each_turn(
    same_process: SameProcess, shell: Shell, stored: str, model: Model
) -> None:
    typed = "Which RAL green did I pick?\n\nAnd which oven suits it?\n/quit\nnever sent\n"
    printed = same_process.run("demo.py", "chat", "--db", stored, typed=typed, env=model.env)
    assert "Chatting as hanne with test-model" in printed
    assert "assistant: Answer 1, [bold]as is[/bold]." in printed
    assert "assistant: Answer 2" in printed
    assert printed.endswith("Bye.\n")

    first, second = model.requests
    assert first["model"] == "test-model"
    assert first["messages"][0]["role"] == "system"
    assert any("[31 August 2026] Picked! Pale green, RAL 6021" in text for text in texts(first))
    assert texts(first)[-1] == "[20 October 2026] Which RAL green did I pick?"
    # The first turn is the newest memory of the second, in its place.
    assert texts(second)[-3:] == [texts(first)[-1], "Answer 1, [bold]as is[/bold].", *texts(second)[-1:]]
    calls = {call["id"] for message in first["messages"] for call in message.get("tool_calls", ())}
    assert calls == {m["tool_call_id"] for m in first["messages"] if m["role"] == "tool"}

    with Memory(backend=SQLite(stored)) as memory:
        kept = memory.get_all(filters={"session_id": "live-chat"})
        assert [message.role for message in kept] == ["user", "assistant"] * 2
        assert memory.count() == 315 + 4

    # Another process, without a word of goodbye: it remembers the chat, and the end of input ends it.
    printed = shell.run("demo.py", "chat", "--db", stored, typed="What did I ask about the oven?\n", env=model.env)
    assert printed.endswith("Bye.\n")
    assert "[20 October 2026] And which oven suits it?" in texts(model.requests[2])


def test_chat_with_a_wrong_key_keeps_nothing(same_process: SameProcess, stored: str, model: Model) -> None:
    env = model.env | {"OPENAI_API_KEY": "sk-wrong"}
    printed = same_process.run("demo.py", "chat", "--db", stored, typed="Hello?\n", code=1, env=env)
    assert "error: the server rejected the key (401): check OPENAI_API_KEY" in printed
    assert "sk-wrong" not in printed
    with Memory(backend=SQLite(stored)) as memory:
        assert memory.count() == 315


def test_chat_without_a_server(same_process: SameProcess, stored: str) -> None:
    pytest.importorskip("openai")
    # Nobody listens on port 9 of this machine, the discard service of old.
    env = {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "OPENAI_API_KEY": RIGHT_KEY}
    printed = same_process.run("demo.py", "chat", "--db", stored, typed="Hello?\n", code=1, env=env)
    assert "error: no connection to http://127.0.0.1:9/v1/: check the network and OPENAI_BASE_URL" in printed


# --- in a terminal -------------------------------------------------------------------------------------------


# A parent that ignores interrupts, such as a background job, leaves them ignored in its children.
WITH_INTERRUPTS = """
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


# The demo's steps in its own process, since each of theirs would import a client of models again.
WITH_STEPS_HERE = """
import runpy, subprocess, sys

def run(command, **_):
    sys.argv = command[1:]
    try:
        runpy.run_path(command[1], run_name="__main__")
    except SystemExit as left:
        return subprocess.CompletedProcess(command, left.code or 0)

subprocess.run = run
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Terminal:
    """The demo in a terminal of its own."""

    def __init__(self, shell: Shell, code: str, *arguments: str, env: Env) -> None:
        pty = pytest.importorskip("pty")
        self._end, inside = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, str(COOKBOOK / "demo.py"), *arguments],
            cwd=shell.folder,
            env={**shell.env, "TERM": "xterm-256color", **env},
            stdin=inside,
            stdout=inside,
            stderr=inside,
            start_new_session=True,
        )
        os.close(inside)
        self.seen = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._end)

    def wait_for(self, text: str, seconds: float = 300) -> None:
        """Read until a text is there that was not yet waited for."""
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            chunk = self._read(deadline)
            assert chunk, f"no {text!r} in {self.seen!r}"
            self.seen += chunk
        self.seen = self.seen.partition(text)[2]

    def quiet(self, seconds: float = 0.3) -> bool:
        """Whether nothing is printed for so long."""
        chunk = self._read(time.monotonic() + seconds)
        self.seen += chunk
        return not chunk

    def type(self, text: str) -> None:
        os.write(self._end, text.encode())

    def interrupt(self) -> None:
        os.killpg(self._process.pid, signal.SIGINT)

    def leave(self) -> int:
        """Read to the end and return the exit code."""
        deadline = time.monotonic() + 300
        while chunk := self._read(deadline):
            self.seen += chunk
        assert "Traceback" not in self.seen
        return self._process.wait(300)

    def _read(self, deadline: float) -> str:
        ready, _, _ = select.select([self._end], [], [], max(0.0, deadline - time.monotonic()))
        try:
            return os.read(self._end, 65536).decode(errors="replace") if ready else ""
        except OSError:
            # Linux's way to say that nobody holds the other end any more.
            return ""


def test_the_demo_offers_a_chat_in_a_terminal(shell: Shell, model: Model) -> None:
    with Terminal(shell, WITH_STEPS_HERE, env=model.env) as terminal:
        terminal.wait_for("315/315")
        terminal.wait_for("\x1b[")
        terminal.wait_for("Chat with this memory now? [Y/n]: ")
        terminal.type("y\n")
        terminal.wait_for("you: ")
        terminal.type("Which RAL green did I pick?\n")
        terminal.wait_for("Answer 1")
        terminal.wait_for("you: ")
        terminal.type("\x04")
        terminal.wait_for("Bye.")
        assert terminal.leave() == 0
    assert not list(shell.temporary.iterdir())


def test_ctrl_c_leaves_the_chat_cleanly(shell: Shell, stored: str, model: Model) -> None:
    with Terminal(shell, WITH_INTERRUPTS, "chat", "--db", stored, env=model.env) as terminal:
        terminal.wait_for("you: ")
        # The prompt is there a moment before Python waits for keys, and an interrupt between the two is not seen
        # until the next: so wait a little, and interrupt again while that was not enough.
        while not terminal.quiet():
            pass
        for _ in range(5):
            terminal.interrupt()
            if not terminal.quiet(seconds=20):
                break
        terminal.wait_for("Bye.")
        assert terminal.leave() == 0
