"""Commands that move messages: copy, verify, export, import, backup."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import IO, Annotated

import typer

from dynamiq_memory.backends import InMemory
from dynamiq_memory.backends.base import MemoryBackend
from dynamiq_memory.cli.choosing import Session, Since, Store, User, chosen
from dynamiq_memory.cli.output import (
    AsJson,
    counted,
    errors_reported,
    print_json,
    print_table,
    progress_bar,
    resumable,
)
from dynamiq_memory.cli.stores import opened
from dynamiq_memory.exceptions import ConfigurationError, StoreNotFoundError
from dynamiq_memory.transfer import Difference, OnConflict, OnError, Totals, export_to, import_from
from dynamiq_memory.transfer import copy as copy_store
from dynamiq_memory.transfer import verify as verify_stores
from dynamiq_memory.transfer.files import FORMAT, check_source
from dynamiq_memory.transfer.readers import known_formats
from dynamiq_memory.transfer.streams import MAX_LINE_BYTES

app = typer.Typer()

From = Annotated[str, typer.Argument(metavar="FROM", help="The store to read.", show_default=False)]
To = Annotated[str, typer.Argument(metavar="TO", help="The store to write. It is created if need be.")]
Conflict = Annotated[
    OnConflict, typer.Option(help="For a message that the target has with the same id and other content.")
]
Failure = Annotated[OnError, typer.Option(help="For a message that cannot be read or stored.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Write nothing; say what would be written.")]
_STANDARD = "-"


@app.command(
    epilog="Example: dynamiq-memory copy sqlite:///conversations.db 'postgresql://app:$DB_PASSWORD@localhost/app'"
)
def copy(
    source: From,
    target: To,
    user: User = None,
    session: Session = None,
    since: Since = None,
    on_conflict: Conflict = OnConflict.ERROR,
    on_error: Failure = OnError.STOP,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Copy messages into another store, with their ids, times and order.

    Messages that the target has already are not written again: give the command again to go on after an interruption,
    or to bring messages added since. A target with an embedder (?embedder=…) embeds the messages.
    """
    with (
        errors_reported(),
        resumable(),
        opened(source) as one,
        _target(target, dry_run) as other,
        progress_bar("copying") as progress,
    ):
        totals = copy_store(
            one,
            other,
            filters=chosen(user, session, since),
            on_conflict=on_conflict,
            on_error=on_error,
            dry_run=dry_run,
            progress=progress,
            report=_report,
        )
    _print_totals(totals, as_json, dry_run)


@app.command(epilog="Example: dynamiq-memory verify sqlite:///conversations.db team --user u-1")
def verify(
    source: From,
    target: Annotated[str, typer.Argument(metavar="TO", help="The store to compare with.", show_default=False)],
    user: User = None,
    session: Session = None,
    since: Since = None,
    as_json: AsJson = False,
) -> None:
    """Check that each session of a store is the same in another: all messages, every field, in order."""
    with errors_reported(), opened(source) as one, opened(target) as other, progress_bar("comparing") as progress:
        result = verify_stores(one, other, filters=chosen(user, session, since), progress=progress)
    if as_json:
        print_json({"identical": result.identical, **asdict(result)})
    elif result.identical:
        typer.echo(f"identical: {counted(result.messages)} in {counted(result.sessions, 'session')}")
    else:
        rows = [
            [each.user_id or "", each.session_id or "", each.in_source, each.in_target, _first(each), each.field or ""]
            for each in result.differences
        ]
        print_table(("USER", "SESSION", "IN SOURCE", "IN TARGET", "FIRST DIFFERENCE", "FIELD"), rows)
        typer.echo(f"sessions that differ: {len(rows):,} of {result.sessions:,}", err=True)
    if not result.identical:
        raise typer.Exit(1)


@app.command("export", epilog="Example: dynamiq-memory export sqlite:///conversations.db conversations.jsonl.gz")
def export(
    store: Store,
    file: Annotated[
        str, typer.Argument(help="A new file, compressed if it ends in .gz or .zst; - for the standard output.")
    ],
    user: User = None,
    session: Session = None,
    since: Since = None,
    as_json: AsJson = False,
) -> None:
    """Write messages into a file of JSON lines, with all that the store keeps of them."""
    with errors_reported(), opened(store) as source, progress_bar("exporting") as progress:
        where = _standard(file, lambda: sys.stdout.buffer)
        totals = export_to(where, source, filters=chosen(user, session, since), progress=progress)
    if as_json:
        typer.echo(f'{{"written":{totals.written}}}', err=file == _STANDARD)
    else:
        typer.echo(f"{counted(totals.written)} {_was(totals.written)} written", err=file == _STANDARD)


@app.command("import", epilog="Example: dynamiq-memory import conversations.jsonl.gz sqlite:///conversations.db")
def import_(
    file: Annotated[
        str, typer.Argument(help="The file, or the URL of a database; - for the standard input.", show_default=False)
    ],
    store: To,
    format: Annotated[  # noqa: A002 - the field's term
        str, typer.Option("--from", help=f"The file's format: {FORMAT}, {', '.join(known_formats())}.")
    ] = FORMAT,
    as_user: Annotated[str | None, typer.Option(help="The user of messages that have none.")] = None,
    as_session: Annotated[str | None, typer.Option(help="The session of messages that have none.")] = None,
    user: User = None,
    session: Session = None,
    since: Since = None,
    on_conflict: Conflict = OnConflict.ERROR,
    on_error: Failure = OnError.STOP,
    dry_run: DryRun = False,
    max_line_bytes: Annotated[int, typer.Option(min=1, help="Maximum size of a line of an export.")] = MAX_LINE_BYTES,
    as_json: AsJson = False,
) -> None:
    """Read a file that `export` wrote, or another program, into a store.

    Messages that the store has already are not written again: give the command again to go on after an interruption.
    """
    source = _standard(file, lambda: sys.stdin.buffer)
    with errors_reported(), ExitStack() as stack:
        stack.enter_context(resumable())
        check_source(source, format)  # before the store is created
        target = stack.enter_context(_target(store, dry_run))
        progress = stack.enter_context(progress_bar("importing"))
        totals = import_from(
            source,
            target,
            format=format,
            user_id=as_user,
            session_id=as_session,
            filters=chosen(user, session, since),
            on_conflict=on_conflict,
            on_error=on_error,
            dry_run=dry_run,
            max_line_bytes=max_line_bytes,
            progress=progress,
            report=_report,
        )
    _print_totals(totals, as_json, dry_run)


@app.command(epilog="Example: dynamiq-memory backup sqlite:///conversations.db copy.db")
def backup(
    store: Annotated[str, typer.Argument(help="The store, as a URL (sqlite:///conversations.db) or as a path.")],
    file: Annotated[Path, typer.Argument(help="The copy. It must not exist.", dir_okay=False)],
) -> None:
    """Copy a SQLite store into a new file, while it is in use or not. The store is only read."""
    with errors_reported():
        from dynamiq_memory.backends.sqlite.backend import path_in  # noqa: PLC0415 - slow to import
        from dynamiq_memory.backends.sqlite.backup import back_up  # noqa: PLC0415

        scheme, is_url, _ = store.partition("://")
        if is_url and scheme != "sqlite":
            raise ConfigurationError(
                f"a store at {scheme}:// cannot be copied by this command: use the tools of its database, or "
                "`dynamiq-memory export`"
            )
        path = path_in(store)[0] if is_url else store
        with progress_bar("copying") as progress:
            back_up(Path(path), file, lambda copied, pages: progress(Totals(pages, copied)))
    typer.echo(f"{path} is copied to {file}")


def _target(store: str, dry_run: bool) -> MemoryBackend:
    try:
        return opened(store, must_exist=dry_run)
    except StoreNotFoundError:  # a dry run writes nothing: what does not exist is empty
        return InMemory()


def _standard(file: str, stream: Callable[[], IO[bytes]]) -> str | IO[bytes]:
    return stream() if file == _STANDARD else file


def _first(difference: Difference) -> str:
    return difference.message_id or "(more in the target)"


def _report(reason: str) -> None:
    typer.echo(f"skipped: {reason}", err=True)


def _print_totals(totals: Totals, as_json: bool, dry_run: bool) -> None:
    if as_json:
        print_json(asdict(totals))
        return
    said = {
        "there already": totals.unchanged,
        "replaced": totals.replaced,
        "kept as in the target": totals.kept,
        "skipped": totals.skipped,
    }
    rest = "".join(f"; {count:,} {_was(count)} {what}" for what, count in said.items() if count)
    typer.echo(f"{counted(totals.written)} {'would be' if dry_run else _was(totals.written)} written{rest}")


def _was(count: int) -> str:
    return "was" if count == 1 else "were"
