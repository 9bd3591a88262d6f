"""The output of commands: text for people, JSON for programs, errors without a traceback."""

from __future__ import annotations

import datetime as dt
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from dynamiq_memory._json import dumps
from dynamiq_memory.exceptions import DynamiqMemoryError, InvalidArgumentError, MissingDependencyError
from dynamiq_memory.messages import Message
from dynamiq_memory.transfer.writing import Totals

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

# What errors say to a program, and what they say to a user of the command.
_IN_OPTIONS = (
    (
        re.compile(r"(?:open it (?:once |again )?with|pass) create_if_not_exist=True(?: to begin an empty one)?"),
        "write to it with `copy` or `import`, which create it",
    ),
    (re.compile(r"on_conflict='(\w+)'"), r"--on-conflict \1"),
    (re.compile(r"max_line_bytes"), "--max-line-bytes"),
    (re.compile(r"\b(\w+)=True\b"), r"\1=true in the URL"),
)
_COLOURS = {"user": "cyan", "assistant": "green", "tool": "yellow", "system": "magenta"}


@contextmanager
def errors_reported() -> Iterator[None]:
    """If the package raises one of its own errors, print its message without a traceback and exit."""
    try:
        yield
    except DynamiqMemoryError as error:
        if isinstance(error.__cause__, BrokenPipeError):
            raise error.__cause__ from None  # typer ends quietly: `head` has read enough
        typer.echo(f"error: {in_options(error)}", err=True)
        _print_notes(error)
        sys.exit(2 if isinstance(error, InvalidArgumentError | MissingDependencyError) else 1)


def _print_notes(error: BaseException) -> None:
    for note in getattr(error, "__notes__", ()):
        typer.echo(note, err=True)


def counted(count: int, what: str = "message") -> str:
    """Write a number of things: "1 message", "2 messages"."""
    return f"{count:,} {what}{'s' * (count != 1)}"


def in_options(error: DynamiqMemoryError) -> str:
    """Write an error for a user of the command: options instead of Python's arguments."""
    text = str(error)
    for pattern, option in _IN_OPTIONS:
        text = pattern.sub(option, text)
    return text


def printable(text: str) -> str:
    """Escape what would move the terminal's cursor, change its colours or reorder the text."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def print_json(value: Any) -> None:
    """Print a value as one line of JSON."""
    typer.echo(dumps(value))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table: aligned in a terminal, with tabs between the cells elsewhere."""
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in (columns, *cells):
            typer.echo("\t".join(row))
        return
    table = Table(*(Column(name, overflow="fold") for name in columns), box=None, pad_edge=False, header_style="")
    for row in cells:
        table.add_row(*map(Text, row))
    Console().print(table)


def print_text(text: Text) -> None:
    """Print text with colours, where these are wanted. Long lines are left to the terminal."""
    Console(highlight=False, soft_wrap=True).print(text)


def time_of(timestamp: float | None) -> str:
    """Write a time in UTC, to the second."""
    try:
        return dt.datetime.fromtimestamp(timestamp or 0.0, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return str(timestamp)


def shown(message: Message, note: str = "") -> Text:
    """Write a message as a part of a chat: who and when, then what, indented.

    Args:
        message: The message.
        note: A remark in its first line.
    """
    author = " ".join(filter(None, (message.role.value, message.name)))
    text = Text(printable(author), _COLOURS[message.role.value])
    marks = ("superseded" if message.superseded_at is not None else "", printable(note))
    text.append("".join(f" · {each}" for each in (time_of(message.timestamp), *marks) if each), "dim")
    for line in _lines(message):
        text.append(f"\n  {printable(line)}", "")
    return text


def _lines(message: Message) -> Iterator[str]:
    yield from message.text.expandtabs().splitlines()
    if not isinstance(message.content, str):
        yield from (f"[{part.get('type')}]" for part in message.content if "text" not in part)
    for call in message.tool_calls or ():
        function = call.get("function") or call
        yield f"→ {function.get('name')}({function.get('arguments', '')})"


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[Totals], None]]:
    """Show a bar on the standard error, if that is a terminal.

    Yields:
        The function to call with the numbers so far.
    """
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda totals: bar.update(task, completed=totals.read, total=totals.expected)


@contextmanager
def resumable() -> Iterator[None]:
    """If the user interrupts the command, say how it goes on."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        typer.echo("interrupted: give the same command again to go on", err=True)
        _print_notes(interrupt)
        sys.exit(130)
