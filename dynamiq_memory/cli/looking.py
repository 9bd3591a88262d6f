"""Commands that look into a store: sessions, show, search, recall, stats, doctor. They change nothing."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from statistics import median
from typing import Annotated, Any

import typer
from rich.text import Text

from dynamiq_memory.backends.base import MemoryBackend
from dynamiq_memory.cli.checks import checks_of
from dynamiq_memory.cli.choosing import Session, Store, User, chosen, chosen_session
from dynamiq_memory.cli.output import AsJson, errors_reported, print_json, print_table, print_text, shown, time_of
from dynamiq_memory.cli.stores import opened
from dynamiq_memory.conversation.strategies import Explanation, MemoryRetrievalStrategy
from dynamiq_memory.memory import Memory
from dynamiq_memory.messages import Message
from dynamiq_memory.messages import Session as StoredSession
from dynamiq_memory.ranking.scores import parts_of
from dynamiq_memory.transfer.lines import to_line

app = typer.Typer()

Query = Annotated[str, typer.Argument(metavar="QUERY", help="The question.", show_default=False)]
_SECONDS_BETWEEN_LOOKS = 1.0
_BAR = 40


@app.command(epilog="Example: dynamiq-memory sessions sqlite:///conversations.db --user u-1")
def sessions(
    store: Store,
    user: User = None,
    limit: Annotated[int | None, typer.Option(help="Maximum number of sessions.", min=1)] = None,
    as_json: AsJson = False,
) -> None:
    """List the sessions of a store, most recently used first."""
    with errors_reported(), opened(store) as backend:
        found = backend.sessions(chosen(user))[:limit]
    if as_json:
        for each in found:
            print_json(asdict(each))
        return
    rows = [
        [each.user_id or "", each.session_id or "", each.messages, time_of(each.first), time_of(each.last)]
        for each in found
    ]
    print_table(("USER", "SESSION", "MESSAGES", "FIRST (UTC)", "LAST (UTC)"), rows)


@app.command(epilog="Example: dynamiq-memory show sqlite:///conversations.db --user u-1 --session s-1 --follow")
def show(
    store: Store,
    session: Annotated[str, typer.Option(help="The session.")],
    user: Annotated[str | None, typer.Option(help="The user it belongs to.")] = None,
    limit: Annotated[int, typer.Option(help="Maximum number of messages, the latest.", min=1)] = 50,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with new messages, until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the latest messages of a session as a chat."""
    with errors_reported(), opened(store) as backend:
        filters = chosen_session(backend, user, session)
        found = backend.get_all(limit, filters)
        _print_messages(found, as_json)
        if follow:
            _follow(backend, filters, found, as_json)
    if not found:
        typer.echo("the session has no messages", err=True)


@app.command(epilog="Example: dynamiq-memory search sqlite:///conversations.db 'ferry to Ostend' --user u-1")
def search(
    store: Store,
    query: Query,
    user: User = None,
    session: Session = None,
    limit: Annotated[int, typer.Option(help="Maximum number of messages.", min=1)] = 10,
    as_json: AsJson = False,
) -> None:
    """Find the messages most relevant to a question, with their scores and what these are made of."""
    with errors_reported(), opened(store) as backend:
        found = Memory(backend).search(query, chosen(user, session), limit)
    for each in found:
        if as_json:
            print_json({**_fields(each), "score": each.score, "score_parts": parts_of(each.score)})
        else:
            where = ", ".join(filter(None, (each.user_id, each.session_id)))
            print_text(shown(each, f"{where} · {_score(each)}"))
    if not found:
        typer.echo("nothing matches", err=True)


@app.command(epilog="Example: dynamiq-memory recall sqlite:///conversations.db 'When does the ferry leave?' --user u-1")
def recall(
    store: Store,
    query: Query,
    user: User = None,
    session: Session = None,
    strategy: Annotated[
        list[MemoryRetrievalStrategy] | None, typer.Option(help="Only this strategy; can be repeated.")
    ] = None,
    limit: Annotated[int, typer.Option(help="Maximum number of messages.", min=1)] = 20,
    max_tokens: Annotated[int, typer.Option(help="Maximum number of tokens.", min=1)] = 32_000,
    as_json: AsJson = False,
) -> None:
    """Show the messages that an agent would be given for a question, by each strategy, and why."""
    with errors_reported(), opened(store) as backend:
        filters = chosen_session(backend, user, session)
        memory = Memory(backend, filters=filters, message_limit=limit, max_tokens=max_tokens)
        for each in strategy or list(MemoryRetrievalStrategy):
            found = memory.explain_agent_conversation(query, strategy=each, compare=True)
            if as_json:
                print_json({"strategy": each.value, **_explained(found)})
            else:
                _print_explained(each, found)


@app.command(epilog="Example: dynamiq-memory stats sqlite:///conversations.db")
def stats(store: Store, user: User = None, as_json: AsJson = False) -> None:
    """Count messages, sessions and users, and show when sessions were last used."""
    with errors_reported(), opened(store) as backend:
        found = backend.sessions(chosen(user))
    numbers = _numbers(found)
    months = Counter(time_of(each.last)[:7] for each in found)
    if as_json:
        print_json({**numbers, "last_used": dict(sorted(months.items()))})
        return
    for name, value in numbers.items():
        is_time = name in ("first", "last")
        typer.echo(f"{name.replace('_', ' '):24}{time_of(value) if is_time and value is not None else value}")
    if months:
        typer.echo("\nsessions by the month (UTC) of their last message")
    most = max(months.values(), default=0)
    for month, count in sorted(months.items())[-24:]:
        typer.echo(f"{month:24}{'█' * max(1, count * _BAR // most)} {count:,}")


@app.command(epilog="Example: dynamiq-memory doctor 'postgresql://app:$DB_PASSWORD@localhost/app'")
def doctor(
    store: Store,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="Also count the messages, and compare the newest with the clock. Some stores read all for it.",
        ),
    ] = False,
    write: Annotated[bool, typer.Option("--write", help="Also store a message and delete it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check that a store can be opened, read and searched, and say what to fix."""
    failed = False
    for check in checks_of(store, full=full, write=write):
        failed = failed or not check.ok
        if as_json:
            print_json(asdict(check))
        else:
            text = Text("ok     " if check.ok else "failed ", "green" if check.ok else "red")
            print_text(text.append(f"{check.name}: {check.detail}", ""))
    if failed:
        raise typer.Exit(1)


def _print_messages(messages: Sequence[Message], as_json: bool) -> None:
    for each in messages:
        if as_json:
            print_json(_fields(each))
        else:
            print_text(shown(each))


def _follow(backend: MemoryBackend, filters: dict[str, Any], found: list[Message], as_json: bool) -> None:
    last = found[-1] if found else None
    try:
        while True:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            new = backend.get_all(None, filters, after=last)
            _print_messages(new, as_json)
            last = new[-1] if new else last
    except KeyboardInterrupt:
        return


def _fields(message: Message) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(to_line(message))
    return fields


def _score(message: Message) -> str:
    parts = ", ".join(f"{name} {part:.2f}" for name, part in parts_of(message.score).items())
    return f"{message.score or 0.0:.2f}{f' ({parts})' if parts else ''}"


def _explained(found: Explanation) -> dict[str, Any]:
    return {
        "tokens": found.tokens,
        "bounded_by": sorted(found.bounded_by),
        "unchanged": found.unchanged,
        "messages": [
            {**_fields(pick.message), "reason": pick.reason.value, "score": pick.message.score} for pick in found
        ],
    }


def _print_explained(strategy: MemoryRetrievalStrategy, found: Explanation) -> None:
    heading = f"{strategy.value}: {len(found)} messages, {found.tokens:,} tokens"
    if found.bounded_by:
        heading += f", bounded by {' and '.join(found.bounded_by)}"
    if found.unchanged is not None:
        heading += f", {found.unchanged:.0%} of the prompt is unchanged since the question before"
    print_text(Text(heading, "bold"))
    for pick in found:
        scored = f" {_score(pick.message)}" if pick.message.score is not None else ""
        print_text(shown(pick.message, pick.reason.value + scored))
    typer.echo()


def _numbers(found: Sequence[StoredSession]) -> dict[str, Any]:
    sizes = [each.messages for each in found]
    return {
        "messages": sum(sizes),
        "sessions": len(found),
        "users": len({each.user_id for each in found} - {None}),
        "messages_without_user": sum(each.messages for each in found if each.user_id is None),
        "median_of_a_session": median(sizes) if sizes else 0,
        "largest_session": max(sizes, default=0),
        "first": min((each.first for each in found), default=None),
        "last": max((each.last for each in found), default=None),
    }
