"""The command `dynamiq-memory`: serve a memory, and manage its keys."""

from __future__ import annotations

import datetime as dt
import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from dynamiq_memory import __version__
from dynamiq_memory.exceptions import ConfigurationError, DynamiqMemoryError, MissingDependencyError

try:
    import typer
except ImportError as error:
    _missing = MissingDependencyError("the command needs typer: pip install 'dynamiq-memory[server]'")
    if __name__ == "__main__" or Path(sys.argv[0]).stem == "dynamiq-memory":
        sys.exit(f"error: {_missing}")  # a command shows no traceback
    raise _missing from error

app = typer.Typer(no_args_is_help=True, add_completion=False)
keys_app = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")

KeysFile = Annotated[
    Path, typer.Option("--keys", envvar="DYNAMIQ_MEMORY_KEYS", help="The file of keys.", dir_okay=False)
]
_DEFAULT_KEYS = Path("dynamiq-memory-keys.db")
_LOG_LEVELS = ("debug", "info", "warning", "error")
_COLUMNS = ("ID", "STATE", "MADE (UTC)", "MEMORIES", "USERS", "NAME")


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
    """Conversation memory for AI agents, as a service."""


@app.command()
def serve(
    context: typer.Context,
    backend: Annotated[str, typer.Option(envvar="DYNAMIQ_MEMORY_BACKEND", help="The store, as a URL.")],
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 for any that is free.", min=0, max=65535)] = 8000,
    keys: KeysFile = _DEFAULT_KEYS,
    memory: Annotated[
        str | None,
        typer.Option(help="Serve the whole store as this one memory, as agents that open it directly see it."),
    ] = None,
    rate: Annotated[
        str, typer.Option(help="Requests of a key, such as 100/second or 5000/minute; none.")
    ] = "100/second",
    max_body: Annotated[int, typer.Option(help="The largest body, in MiB.", min=1, max=1024)] = 32,
    max_page_size: Annotated[int, typer.Option(help="The most messages in a page.", min=1)] = 1000,
    max_connections: Annotated[int, typer.Option(help="The most connections at once.", min=1)] = 1000,
    body_timeout: Annotated[float, typer.Option(help="Seconds in which a body must have come.")] = 30.0,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Serve a store over HTTP. Without any key it listens on this machine alone, and lets everybody in."""
    with _explained():
        if log_level.lower() not in _LOG_LEVELS:
            raise ConfigurationError(f"--log-level must be one of {', '.join(_LOG_LEVELS)}, not {log_level!r}")
        from dynamiq_memory.backends import create_backend  # noqa: PLC0415 - only what a command needs
        from dynamiq_memory.server import logs, run  # noqa: PLC0415
        from dynamiq_memory.server.keys import KeyStore  # noqa: PLC0415
        from dynamiq_memory.server.settings import MEBIBYTE, Settings  # noqa: PLC0415

        source = context.get_parameter_source("keys")
        if source is not None and source.name != "DEFAULT" and not keys.exists():
            raise ConfigurationError(
                f"there is no file of keys {str(keys)!r}: make a key with `dynamiq-memory keys create --keys {keys} "
                "--memory …`, or name no file to let everybody on this machine in"
            )
        found = KeyStore(keys) if keys.exists() else None
        # A key that was revoked still says that keys are wanted.
        asked = found if found is not None and found.all() else None
        settings = Settings(
            memory_id=memory,
            max_body_bytes=max_body * MEBIBYTE,
            max_page_size=max_page_size,
            rate=None if rate == "none" else rate,
            body_timeout=body_timeout,
            local_only=asked is None,
        )
        run.check_open(host, asked)
        # The default would end the process at once, before the store is closed.
        signal.signal(signal.SIGTERM, _end)
        with create_backend(backend) as store:
            logs.configure(log_level)
            if asked is None:
                logging.getLogger("dynamiq_memory").warning("there are no keys: everybody on this machine is let in")
            run.serve(store, asked, settings, host, port, max_connections)
        if found is not None:
            found.close()


@keys_app.command("create")
def create_key(
    memory: Annotated[list[str], typer.Option(help="A memory that the key opens; may be given several times.")],
    user: Annotated[str | None, typer.Option(help="The one user whose messages it reaches.")] = None,
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    keys: KeysFile = _DEFAULT_KEYS,
) -> None:
    """Make a key and print it: it is shown this once."""
    with _explained():
        from dynamiq_memory.server.keys import KeyStore  # noqa: PLC0415

        with KeyStore(keys) as store:
            is_first = not store.all()
            _, text = store.create(memory, user, name)
    typer.echo(text)
    if is_first:
        typer.echo(f"{keys} holds its first key: start a service again that runs without keys", err=True)


@keys_app.command("list")
def list_keys(keys: KeysFile = _DEFAULT_KEYS) -> None:
    """List all keys, without their secrets."""
    with _explained():
        from dynamiq_memory.server.keys import KeyStore  # noqa: PLC0415

        found = []
        if keys.exists():
            with KeyStore(keys) as store:
                found = store.all()
    if not found:
        typer.echo(f"there are no keys in {keys}", err=True)
        return
    typer.echo("\t".join(_COLUMNS))
    for key in found:
        made = dt.datetime.fromtimestamp(key.created_at, dt.UTC).strftime("%Y-%m-%d %H:%M")
        state = "valid" if key.revoked_at is None else "revoked"
        whose = "all users" if key.user_id is None else f"user {key.user_id}"
        typer.echo("\t".join((key.id, state, made, ",".join(key.memory_ids), whose, key.name)))


@keys_app.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="Its id, as `keys list` shows it.")], keys: KeysFile = _DEFAULT_KEYS
) -> None:
    """Make a key invalid, from the next request on."""
    with _explained():
        from dynamiq_memory.server.keys import KeyStore  # noqa: PLC0415

        revoked = False
        if keys.exists():
            with KeyStore(keys) as store:
                revoked = store.revoke(key_id)
    if not revoked:
        typer.echo(f"there is no valid key {key_id} in {keys}", err=True)
        raise typer.Exit(1)
    typer.echo(f"{key_id} is revoked")


def main() -> None:
    """Run the command."""
    app()


def _end(signal_number: int, _: object) -> None:
    sys.exit(128 + signal_number)


@contextmanager
def _explained() -> Iterator[None]:
    """End with the text of an error of ours, without its traceback."""
    try:
        yield
    except DynamiqMemoryError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
