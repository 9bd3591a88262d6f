"""The `dynamiq-memory` command: look into a store, move its messages, run the service and manage its API keys."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from dynamiq_memory import __version__
from dynamiq_memory.exceptions import MissingDependencyError

try:
    import typer
except ImportError as error:
    _missing = MissingDependencyError("the command needs typer: pip install 'dynamiq-memory[cli]'")
    if Path(sys.argv[0]).stem == "dynamiq-memory":
        sys.exit(f"error: {_missing}")  # without a traceback
    raise _missing from error

from dynamiq_memory.cli import forgetting, looking, moving, serving

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for _group in (looking.app, moving.app, forgetting.app, serving.app):
    app.add_typer(_group)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dynamiq-memory {__version__}")
        raise typer.Exit


@app.callback()
def command(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Conversation memory for AI agents: look into a store, move its messages, serve it.

    A STORE is a URL, such as sqlite:///conversations.db, or a name from the file stores.toml in the folder
    ~/.config/dynamiq-memory. $NAME in either is taken from the environment: passwords need not be written.

    Exit codes: 0 for success, 1 for a failure or a difference, 2 for wrong use.
    """


def main() -> None:
    """Run the command."""
    app()
