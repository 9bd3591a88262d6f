"""A memory that outlives its process: one SQLite file, several processes, no server and no API key.

Without a sub-command, it runs everything: one process stores a conversation of seven weeks, then new processes show the
messages that an agent would get for a question with each strategy. The sub-commands run single steps.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from dynamiq_memory import (
    DynamiqMemoryError,
    Memory,
    MemoryRetrievalStrategy,
    Message,
    MessageRole,
    Pick,
    Reason,
)
from dynamiq_memory.backends import SQLite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from openai import OpenAI

DATA = Path(__file__).resolve().parent / "data"
PERSON = "hanne"
STRANGER = "someone-else"
# The questions are asked on the morning after the last session.
NOW = dt.datetime(2026, 10, 20, 8, tzinfo=dt.UTC)
LIMIT = 8
# Three of the twelve questions: about a detail mentioned once, a fact that changed, and a remark made in passing.
SHOWN = (5, 1, 6)
# A model can use more messages than fit on a screen.
CHAT_LIMIT = 32
LEAVE = frozenset({"/quit", "/exit", "/q"})
DEFAULT_MODEL = "gpt-5.4-mini"
GET_KEY = (
    "set OPENAI_API_KEY (create a key at https://platform.openai.com/api-keys; for another compatible server, "
    "also set OPENAI_BASE_URL)"
)
WIDEST = 120

STRATEGIES = {
    MemoryRetrievalStrategy.ALL: "newest turns",
    MemoryRetrievalStrategy.RELEVANT: "matching turns",
    MemoryRetrievalStrategy.BOTH: "a quarter newest, the rest matching",
}
ROLE_STYLES = {MessageRole.USER: "cyan", MessageRole.ASSISTANT: "magenta", MessageRole.TOOL: "yellow"}
REASON_STYLES = {Reason.RECENT: "blue", Reason.MATCH: "green", Reason.CONTEXT: "bright_black"}

console = Console(highlight=False, markup=False, emoji=False)
# Longer lines would be hard to read.
console.width = min(console.width, WIDEST)
app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    # Boxes and colours are for terminals; when piped, help and errors are plain text.
    rich_markup_mode="rich" if console.is_terminal else None,
)

Database = Annotated[
    Path | None,
    typer.Option("--db", help="The SQLite file. By default, a temporary file is used.", dir_okay=False),
]
Limit = Annotated[int, typer.Option("--limit", min=1, help="Maximum number of messages for the agent.")]
User = Annotated[str, typer.Option("--user", help="Use this user's memory.")]


# --- the data -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Question:
    """A question, and how to recognise the messages that answer it."""

    text: str
    expect: Sequence[str] = ()
    sessions: Sequence[str] = ()
    note: str = ""

    def found_in(self, message: Message) -> list[str]:
        """Return the parts of the answer that a message contains."""
        if message.session_id not in self.sessions:
            return []
        return [part for part in self.expect if part in message.text]

    def answered_by(self, picks: Sequence[Pick]) -> bool:
        """Return whether the picked messages contain all parts of the answer."""
        found = {part for picked in picks for part in self.found_in(picked.message)}
        return found == set(self.expect)


def load_conversation() -> list[Message]:
    rows = [json.loads(line) for line in (DATA / "conversation.jsonl").read_text(encoding="utf-8").splitlines()]
    return [
        Message(
            # With fixed ids, storing the conversation in the same file again replaces it instead of duplicating it.
            id=f"demo-{number:03}",
            role=MessageRole(row["role"]),
            content=row["content"],
            timestamp=dt.datetime.fromisoformat(row["timestamp"]).timestamp(),
            metadata={"user_id": PERSON, "session_id": row["session_id"]},
            tool_calls=row.get("tool_calls"),
            tool_call_id=row.get("tool_call_id"),
            name=row.get("name"),
        )
        for number, row in enumerate(rows, start=1)
    ]


def load_questions() -> list[Question]:
    rows = json.loads((DATA / "questions.json").read_text(encoding="utf-8"))
    return [Question(row["question"], row["expect"], row["session_ids"], row["note"]) for row in rows]


# --- what is printed ----------------------------------------------------------------------------------------


def age_of(timestamp: float) -> str:
    days = (NOW.date() - dt.datetime.fromtimestamp(timestamp, dt.UTC).date()).days
    if days < 2:
        return "yesterday" if days == 1 else "today"
    return f"{days} days ago" if days < 14 else f"{round(days / 7)} weeks ago"


def text_of(message: Message) -> str:
    """Return the message and its tool calls in one line."""
    calls = [call["function"] for call in message.tool_calls or []]
    parts = [message.text, *(f"calls {call['name']} {call['arguments']}" for call in calls)]
    return " ".join(" ".join(parts).split())


def shortened(text: str, answers: Sequence[str], width: int) -> Text:
    """Truncate a text to a width so that the answer is visible, and mark the answer."""
    wrap = "" if console.is_terminal else "**"
    start = min((text.find(answer) for answer in answers), default=0)
    end = max((text.find(answer) + len(answer) for answer in answers), default=0)
    if len(text) > width and end + 2 * len(wrap) * len(answers) >= width:
        # Start at a word a little before the answer.
        begin = text.rfind(" ", 0, max(start - width // 6, 1)) + 1
        text = f"…{text[begin:]}" if begin else text
    for answer in answers if wrap else ():
        text = text.replace(answer, f"{wrap}{answer}{wrap}", 1)
    line = Text(text)
    line.highlight_words(answers, "bold black on green")
    line.truncate(width, overflow="ellipsis")
    return line


def print_picks(picks: Sequence[Pick], question: Question) -> None:
    """Print picked messages: age and session, then the role, reason, score and text of each message."""
    for (age, session), group in groupby(picks, lambda p: (age_of(p.message.timestamp or 0), p.message.session_id)):
        console.print(Text(f"  {age} · {session}", style="bright_black"))
        for picked in group:
            message, found = picked.message, question.found_in(picked.message)
            score = "" if message.score is None else f"{message.score:.1f}"
            line = Text.assemble(
                ("  > " if found else "    ", "bold green"),
                (f"{message.role.value:<11}", ROLE_STYLES.get(message.role, "")),
                (f"{picked.reason.value:<8}", REASON_STYLES[picked.reason]),
                (f"{score:>4}  ", "green"),
            )
            body = shortened(text_of(message), found, console.width - line.cell_len)
            if picked.reason is Reason.CONTEXT and not found:
                body.stylize("bright_black")
            console.print(line.append_text(body), soft_wrap=True)


def print_verdict(strategy: MemoryRetrievalStrategy, picks: Sequence[Pick], question: Question) -> None:
    line = Text.assemble((f"{strategy.name:<10}", "bold"))
    if not picks:
        line.append("no messages: this user has none")
    elif not question.expect:
        line.append(f"{len(picks)} messages")
    elif question.answered_by(picks):
        line.append(f"the answer IS among these {len(picks)} messages", style="bold green")
    else:
        line.append(f"the answer is NOT among these {len(picks)} messages", style="bold red")
    line.append(f" ({STRATEGIES[strategy]})" if picks else "", style="bright_black")
    line.truncate(console.width, overflow="ellipsis")
    console.print(line)


def print_heading(title: str, explanation: str = "") -> None:
    console.print()
    console.rule(Text(title, style="bold"), align="left", characters=rule_character(), style="bright_black")
    if explanation:
        console.print(explanation, style="bright_black")


def rule_character() -> str:
    return "─" if console.is_terminal else "-"


# --- the steps ----------------------------------------------------------------------------------------------


def open_memory(path: Path) -> Memory:
    return Memory(backend=SQLite(path))


def store_conversation(path: Path, *, quiet: bool = False) -> None:
    """Store the conversation turn by turn, as an agent would."""
    messages = load_conversation()
    turns: list[list[Message]] = []
    for message in messages:
        if message.role is MessageRole.USER or not turns:
            turns.append([])
        turns[-1].append(message)
    columns = (TextColumn("storing"), BarColumn(bar_width=None), MofNCompleteColumn(), TextColumn("messages"))
    bar = Progress(*columns, console=console, disable=quiet or not console.is_terminal)
    started = time.perf_counter()
    with open_memory(path) as memory, bar:
        task = bar.add_task("", total=len(messages))
        for turn in turns:
            memory.add_turn(turn)
            bar.advance(task, len(turn))
        sessions = len(memory.sessions(user_id=PERSON))
    seconds = time.perf_counter() - started
    if not quiet:
        console.print(
            f"{len(messages)} messages of {sessions} sessions, committed turn by turn ({len(turns)} commits), "
            f"in {seconds:.1f} s"
        )


@contextlib.contextmanager
def filled(db: Path | None) -> Iterator[Path]:
    """Return the file to use: the given one, or a temporary one with the conversation."""
    if db is not None:
        if not db.exists():
            raise typer.BadParameter(f"{db} does not exist: create it with `store --db {db}`", param_hint="--db")
        yield db
        return
    with temporary_file() as path:
        store_conversation(path, quiet=True)
        yield path


@contextlib.contextmanager
def temporary_file() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="dynamiq-memory-demo-") as folder:
        yield Path(folder) / "memory.db"


def find_question(text: str) -> Question:
    """Return the demo's question with this number or text, or a new question."""
    questions = load_questions()
    if text.strip().isdecimal():
        number = int(text)
        if not 1 <= number <= len(questions):
            raise typer.BadParameter(f"use a number from 1 to {len(questions)}, not {number}", param_hint="QUESTION")
        return questions[number - 1]
    if not text.strip():
        raise typer.BadParameter("the question is empty", param_hint="QUESTION")
    return next((known for known in questions if known.text == text), Question(text))


def run_step(*arguments: str) -> None:
    """Run a sub-command in a separate process, which shares only the file with this one."""
    command = [sys.executable, __file__, *arguments]
    # In a separate session, so that Ctrl-C reaches only this process, which stops the other without a traceback.
    done = subprocess.run(command, check=False, start_new_session=True)  # noqa: S603 - this very script
    if done.returncode:
        raise typer.Exit(done.returncode)


# --- the sub-commands ---------------------------------------------------------------------------------------


@app.callback(invoke_without_command=True)
def run_all(context: typer.Context, db: Database = None, limit: Limit = LIMIT) -> None:
    """A memory that outlives its process. Without a sub-command, this runs the whole demo in a few seconds."""
    if context.invoked_subcommand is not None:
        if db is not None or limit != LIMIT:
            raise typer.BadParameter(f"put --db and --limit after {context.invoked_subcommand}")
        return
    with contextlib.nullcontext(db) if db else temporary_file() as path:
        options = ("--db", str(path), "--limit", str(limit))
        console.print(Text("dynamiq-memory: what would the agent see?", style="bold"))
        console.print("One SQLite file. Each step below is a separate process. No server, no API key.")
        print_heading("Store", f"{PERSON.title()} and her assistant, 31 August to 19 October 2026.")
        run_step("store", "--db", str(path))
        for number in SHOWN:
            print_heading(f"Ask on 20 October: question {number} of {len(load_questions())}")
            run_step("ask", str(number), *options, *(() if number == SHOWN[0] else ("--brief",)))
        print_heading("The first question, from another user")
        run_step("ask", str(SHOWN[0]), *options, "--user", STRANGER)
        print_heading(f"All questions: is the answer among the agent's {limit} messages?")
        run_step("summary", *options)
        if db:
            console.print(f"\nThe memory is kept in {db}. To ask it, run {command_line()} ask --db {db} '…'")
        offer_chat(path)


@app.command()
def store(
    db: Annotated[Path, typer.Option("--db", help="The SQLite file; created if necessary.", dir_okay=False)],
) -> None:
    """Store the conversation, with a progress bar. Storing it again changes nothing."""
    console.print(f"process {os.getpid()} stores", style="bright_black")
    store_conversation(db)


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="A question, or a number from 1 to 12 for the demo's own.")],
    *,
    db: Database = None,
    limit: Limit = LIMIT,
    user: User = PERSON,
    strategy: Annotated[
        list[MemoryRetrievalStrategy] | None, typer.Option(help="Use only this strategy; can be repeated.")
    ] = None,
    brief: Annotated[bool, typer.Option("--brief", help="Show the messages of the last strategy only.")] = False,
) -> None:
    """Show the messages that an agent would get for a question, and why."""
    selected = find_question(question)
    strategies = strategy or list(STRATEGIES)
    with filled(db) as path, open_memory(path) as memory:
        console.print(f"process {os.getpid()} asks as {user}", style="bright_black")
        console.print(Text(f"“{selected.text}”" if console.is_terminal else f'"{selected.text}"', style="bold"))
        if selected.note and user == PERSON:
            console.print(selected.note, style="italic bright_black")
        console.print()
        picks: list[Pick] = []
        for each in strategies:
            if picks and not brief:
                console.print()
            picks = memory.explain_agent_conversation(selected.text, limit, {"user_id": user}, each)
            print_verdict(each, picks, selected)
            if picks and (not brief or each is strategies[-1]):
                print_picks(picks, selected)


@app.command()
def summary(db: Database = None, limit: Limit = LIMIT, user: User = PERSON) -> None:
    """Ask all questions with each strategy and count the answers found."""
    questions = load_questions()
    strategies = list(STRATEGIES)
    width = console.width - 4 - 10 * len(strategies)
    found = dict.fromkeys(strategies, 0)
    with filled(db) as path, open_memory(path) as memory:
        console.print(f"process {os.getpid()} asks as {user}", style="bright_black")
        console.print(" " * (4 + width) + "".join(f"{each.name:>10}" for each in strategies), style="bold")
        started = time.perf_counter()
        for number, question in enumerate(questions, start=1):
            text = Text(question.text)
            text.truncate(width - 1, overflow="ellipsis", pad=True)
            line = Text.assemble((f"{number:>2}  ", "bright_black"), text, " ")
            for each in strategies:
                picks = memory.explain_agent_conversation(question.text, limit, {"user_id": user}, each)
                answered = question.answered_by(picks)
                found[each] += answered
                line.append(f"{'yes' if answered else '-':>10}", style="green" if answered else "red")
            console.print(line)
        milliseconds = (time.perf_counter() - started) * 1000
    total = Text(f"    {'answer among the messages':<{width}}", style="bold")
    for each in strategies:
        total.append(f"{f'{found[each]}/{len(questions)}':>10}")
    console.print(Text(rule_character() * console.width, style="bright_black"))
    console.print(total)
    console.print("-: at least a part of the answer is missing", style="bright_black")
    console.print(
        f"{len(questions) * len(strategies)} conversations in {milliseconds:.0f} ms, ranked by words only: "
        "no embeddings.",
        style="bright_black",
    )


# --- the chat ----------------------------------------------------------------------------------------------


class ChatError(Exception):
    """An error that is shown to the user in one line."""


@app.command()
def chat(db: Database = None, limit: Limit = CHAT_LIMIT, user: User = PERSON) -> None:
    """Chat with a model that has this memory.

    Set OPENAI_API_KEY and, optionally, OPENAI_BASE_URL (for a compatible server) and OPENAI_MODEL. The input can also
    be a pipe, with one question per line.
    """
    check_key()
    with filled(db) as path:
        talk(path, limit, user)


def offer_chat(path: Path) -> None:
    console.print()
    if not os.environ.get("OPENAI_API_KEY"):
        console.print(f"To chat with this memory, {GET_KEY} and run {command_line()} chat")
    elif not (sys.stdin.isatty() and sys.stdout.isatty()):
        console.print(f"To chat with this memory, run {command_line()} chat")
    else:
        try:
            confirmed = typer.confirm("OPENAI_API_KEY is set. Chat with this memory now?", default=True)
        except typer.Abort:  # Ctrl-C or Ctrl-D
            console.print()
            confirmed = False
        if confirmed:
            talk(path, CHAT_LIMIT, PERSON)


def check_key() -> None:
    if not os.environ.get("OPENAI_API_KEY"):
        raise ChatError(f"OPENAI_API_KEY is not set: {GET_KEY}")


def talk(path: Path, limit: int, user: str) -> None:
    """Answer line by line, each time with the messages that the memory returns for the line."""
    # Imported here because this takes longer than everything else in the demo.
    from openai import OpenAI, OpenAIError

    try:
        client = OpenAI(max_retries=1, timeout=60)
    except OpenAIError as error:
        raise ChatError(str(error)) from None
    # readline adds arrow keys and a history to `input`. Not every Python has it.
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401

    model = os.environ.get("OPENAI_MODEL") or DEFAULT_MODEL
    answered = True
    with open_memory(path) as memory:
        console.print(f"Chatting as {user} with {model} at {client.base_url}. To leave, type /quit or press Ctrl-D.")
        session = Chat(client, model, memory, limit, user)
        try:
            while (line := input("you: ").strip()) not in LEAVE:
                answered = not line or session.answer(line)
        except (EOFError, KeyboardInterrupt):
            console.print()
    console.print("Bye.")
    if not answered:
        raise typer.Exit(1)


@dataclass(slots=True)
class Chat:
    """A user's chat with a model that has the memory."""

    client: OpenAI
    model: str
    memory: Memory
    limit: int
    user: str
    clock: Callable[[], float] = field(init=False)

    def __post_init__(self) -> None:
        """Start the clock at the end of the conversation, so that new messages are the most recent ones."""
        latest = [message.timestamp or 0.0 for message in self.memory.get_all(1, {"user_id": self.user})]
        offset = max(NOW.timestamp(), *latest) - time.monotonic()
        self.clock = lambda: offset + time.monotonic()

    def answer(self, line: str) -> bool:
        """Answer one line and store the turn.

        Returns:
            Whether the model answered. If not, the error is shown and nothing is stored, so that the line can be sent
            again.
        """
        scope = {"user_id": self.user, "session_id": "live-chat"}
        question = Message(role=MessageRole.USER, content=line, timestamp=self.clock(), metadata=scope)
        picks = self.memory.explain_agent_conversation(
            line, self.limit, {"user_id": self.user}, MemoryRetrievalStrategy.BOTH
        )
        matches = sum(picked.reason is Reason.MATCH for picked in picks)
        console.print(f"{len(picks)} messages from memory, {matches} of them matches", style="bright_black")
        try:
            with console.status("thinking"):
                reply = self.ask_model([*(picked.message for picked in picks), question])
        except ChatError as error:
            error_console().print(f"error: {error}", soft_wrap=True)
            return False
        console.print(Text.assemble(("assistant: ", "magenta"), reply), soft_wrap=True)
        self.memory.add_turn(
            [
                question,
                Message(role=MessageRole.ASSISTANT, content=reply, timestamp=self.clock(), metadata=scope),
            ]
        )
        return True

    def ask_model(self, messages: Sequence[Message]) -> str:
        """Send messages to the model.

        Raises:
            ChatError: The model did not answer; the error says what to do.
        """
        import openai

        system = (
            f"You are {self.user.title()}'s assistant. Today is {NOW:%A %d %B %Y}. All messages except the last are "
            "what you remember of earlier conversations; the user's messages have dates. If they disagree, the latest "
            "is right. Answer briefly, in plain text."
        )
        history: list[Any] = [{"role": "system", "content": system}, *map(for_openai, messages)]
        try:
            completion = self.client.chat.completions.create(model=self.model, messages=history)
        except openai.AuthenticationError:
            raise ChatError("the server rejected the key (401): check OPENAI_API_KEY") from None
        except openai.NotFoundError:
            raise ChatError(f"{self.client.base_url} has no model {self.model!r} (404): set OPENAI_MODEL") from None
        except openai.RateLimitError:
            raise ChatError("too many requests, or no credit left (429): wait, or check your plan") from None
        except openai.APITimeoutError:
            raise ChatError(f"{self.client.base_url} did not answer in time: try again") from None
        except openai.APIConnectionError:
            raise ChatError(f"no connection to {self.client.base_url}: check the network and OPENAI_BASE_URL") from None
        except openai.OpenAIError as error:
            raise ChatError(str(error)) from None
        return completion.choices[0].message.content or "(no text)"


def for_openai(message: Message) -> dict[str, Any]:
    """Convert a stored message to the chat API's format."""
    content = message.content
    if message.role is MessageRole.USER and isinstance(content, str):
        # Only the user's messages get a date: the model would imitate it in its own answers.
        content = f"[{dt.datetime.fromtimestamp(message.timestamp or 0, dt.UTC):%d %B %Y}] {content}"
    converted: dict[str, Any] = {"role": message.role.value, "content": content}
    if message.tool_calls:
        converted["tool_calls"] = message.tool_calls
    if message.tool_call_id:
        converted["tool_call_id"] = message.tool_call_id
    return converted


# --- running it --------------------------------------------------------------------------------------------


def command_line() -> str:
    """Return the shortest command that runs this script from the current folder."""
    here = Path.cwd()
    paths = (Path(sys.executable), Path(__file__).resolve())
    return " ".join(str(path.relative_to(here) if path.is_relative_to(here) else path) for path in paths)


def error_console() -> Console:
    return Console(stderr=True, highlight=False, markup=False, emoji=False, style="red")


def main() -> None:
    """Run the command line. Expected errors are shown in one line, without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        # A pipe or an old terminal may not support Unicode; print a question mark instead of crashing.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app()
    except (DynamiqMemoryError, ChatError, OSError) as error:
        error_console().print(f"error: {error}", soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
