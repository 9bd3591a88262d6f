"""The command that deletes."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated

import typer

from dynamiq_memory.cli.choosing import Store
from dynamiq_memory.cli.output import AsJson, errors_reported, print_json
from dynamiq_memory.cli.stores import opened
from dynamiq_memory.memory import Memory

app = typer.Typer()


@app.command(epilog="Example: dynamiq-memory forget sqlite:///conversations.db --user u-1")
def forget(
    store: Store,
    user: Annotated[str, typer.Option(help="The user.")],
    also: Annotated[
        list[str] | None, typer.Option(metavar="STORE", help="Delete from this store, too; can be repeated.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete all messages of a user. It says how many, asks first, and looks whether they are gone.

    With --json, it prints a receipt.
    """
    with errors_reported(), ExitStack() as stack:
        memory, *others = [Memory(stack.enter_context(opened(each))) for each in (store, *(also or ()))]
        if not yes:
            found = sum(each.found or 0 for each in memory.forget_user(user, also=others, dry_run=True).stores)
            typer.confirm(f"delete {found:,} messages? They cannot be brought back", abort=True, err=True)
        receipt = memory.forget_user(user, also=others)
    if as_json:
        print_json(receipt.to_dict())
    else:
        typer.echo(f"{receipt.deleted:,} messages were deleted")
    for each in receipt.stores:
        if each.problem or each.left:
            typer.echo(f"error: {each.store}: {each.problem or f'{each.left:,} messages are left'}", err=True)
        elif each.traces:
            typer.echo(f"not deleted: {each.traces} ({each.store})", err=True)
    if not receipt.is_complete:
        raise typer.Exit(1)
