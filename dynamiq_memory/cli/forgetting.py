"""The command that deletes."""

from __future__ import annotations

from typing import Annotated

import typer

from dynamiq_memory.cli.choosing import Session, Store, chosen
from dynamiq_memory.cli.output import AsJson, errors_reported, print_json
from dynamiq_memory.cli.stores import opened

app = typer.Typer()


@app.command(epilog="Example: dynamiq-memory forget sqlite:///conversations.db --user u-1")
def forget(
    store: Store,
    user: Annotated[str, typer.Option(help="The user.")],
    session: Session = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete all messages of a user, or of one session of a user. It says how many, and asks first."""
    with errors_reported(), opened(store) as backend:
        count = backend.count(chosen(user, session))
        if count and not yes:
            typer.confirm(f"delete {count:,} messages? They cannot be brought back", abort=True, err=True)
        deleted = backend.delete(session, user)
        left = backend.count(chosen(user, session))
    if as_json:
        print_json({"deleted": deleted, "left": left})
    else:
        typer.echo(f"{deleted:,} messages were deleted{f'; {left:,} are left' if left else ''}")
    if left:  # stored in the meantime
        raise typer.Exit(1)
