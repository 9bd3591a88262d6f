"""The command that deletes."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import Annotated

import typer

from dynamiq_memory.cli.choosing import Store
from dynamiq_memory.cli.output import AsJson, counted, errors_reported, print_json
from dynamiq_memory.cli.stores import opened
from dynamiq_memory.exceptions import ConfigurationError
from dynamiq_memory.forgetting import Receipt
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
            _ask(memory.forget_user(user, also=others, dry_run=True))
        receipt = memory.forget_user(user, also=others)
    if as_json:
        print_json(receipt.to_dict())
    else:
        said = f"{counted(receipt.deleted)} {'was' if receipt.deleted == 1 else 'were'} deleted"
        typer.echo(said if receipt.deleted or not receipt.is_complete else "nothing to delete")
    for each in receipt.stores:
        if each.problem or each.left:
            typer.echo(f"error: {each.store}: {each.problem or f'messages left: {each.left:,}'}", err=True)
        elif each.traces and each.deleted:
            typer.echo(f"may remain: {each.traces} ({each.store})", err=True)
    if not receipt.is_complete:
        raise typer.Exit(1)


def _ask(found: Receipt) -> None:
    """Ask whether to delete what was found, if there is anything.

    Raises:
        Abort: The answer is no.
        ConfigurationError: There is nobody to ask.
    """
    count = sum(each.found or 0 for each in found.stores)
    if not count and all(each.found is not None for each in found.stores):
        return
    try:
        agreed = typer.confirm(f"delete {counted(count)}? They cannot be brought back", err=True)
    except typer.Abort:
        if sys.stdin.isatty():  # Ctrl-C
            raise
        raise ConfigurationError("nobody is there to be asked: give --yes") from None
    if not agreed:
        raise typer.Abort
