"""Commands of the service: serve, and its API keys."""

from __future__ import annotations

import datetime as dt
import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated

import typer

from dynamiq_memory.cli.output import counted, errors_reported, printable
from dynamiq_memory.cli.stores import opened
from dynamiq_memory.exceptions import ConfigurationError
from dynamiq_memory.server.keys import KeyStore, id_of
from dynamiq_memory.server.logs import configure
from dynamiq_memory.server.settings import MEBIBYTE, Settings

app = typer.Typer()
keys_app = typer.Typer(help="Create, list and revoke API keys.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")

KeysFile = Annotated[
    Path, typer.Option("--keys", envvar="DYNAMIQ_MEMORY_KEYS", help="The file with the API keys.", dir_okay=False)
]
_DEFAULT_KEYS = Path("dynamiq-memory-keys.db")
_LOG_LEVELS = ("debug", "info", "warning", "error")
_COLUMNS = ("ID", "STATE", "CREATED (UTC)", "MEMORIES", "USERS", "NAME")


@app.command(epilog="Example: dynamiq-memory serve --backend sqlite:///conversations.db")
def serve(
    context: typer.Context,
    backend: Annotated[str, typer.Option(envvar="DYNAMIQ_MEMORY_BACKEND", help="The store: a URL or a name.")],
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 for any free port.", min=0, max=65535)] = 8000,
    keys: KeysFile = _DEFAULT_KEYS,
    memory: Annotated[
        str | None,
        typer.Option(help="Serve the whole store as this one memory, as agents that open the store directly see it."),
    ] = None,
    rate: Annotated[
        str, typer.Option(help="Request limit per key, such as 100/second or 5000/minute, or none.")
    ] = "100/second",
    max_body: Annotated[int, typer.Option(help="Maximum size of a request body, in MiB.", min=1, max=1024)] = 32,
    max_page_size: Annotated[int, typer.Option(help="Maximum number of messages per page.", min=1)] = 1000,
    max_connections: Annotated[int, typer.Option(help="Maximum number of concurrent connections.", min=1)] = 1000,
    max_concurrent: Annotated[
        int, typer.Option(help="Maximum number of requests per key that are handled at once; others wait.", min=1)
    ] = 4,
    body_timeout: Annotated[float, typer.Option(help="Seconds within which a request body must arrive.")] = 30.0,
    request_timeout: Annotated[
        float, typer.Option(help="Seconds within which a response must start; the request is stopped otherwise.")
    ] = 60.0,
    forwarded_allow_ips: Annotated[
        str | None,
        typer.Option(
            help="Proxies that are trusted to set X-Forwarded-For: addresses and networks, separated by commas."
        ),
    ] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Serve a store over HTTP. Without keys, the service listens on localhost only and admits everyone."""
    with _stored_keys(keys) as stored_keys:
        if log_level.lower() not in _LOG_LEVELS:
            raise ConfigurationError(f"--log-level must be one of {', '.join(_LOG_LEVELS)}, not {log_level!r}")
        from dynamiq_memory.server import run  # noqa: PLC0415 - the other commands do not need its libraries

        source = context.get_parameter_source("keys")
        if source is not None and source.name != "DEFAULT" and not keys.exists():
            raise ConfigurationError(
                f"the key file {str(keys)!r} does not exist: create a key with `dynamiq-memory keys create "
                f"--keys {keys} --memory …`, or omit --keys to admit everyone on this machine"
            )
        # Even a revoked key means that keys are required.
        key_store = stored_keys if stored_keys is not None and stored_keys.all() else None
        settings = Settings(
            memory_id=memory,
            max_body_bytes=max_body * MEBIBYTE,
            max_page_size=max_page_size,
            rate=None if rate == "none" else rate,
            max_concurrent=max_concurrent,
            body_timeout=body_timeout,
            request_timeout=request_timeout,
            local_only=key_store is None,
        )
        run.check_open(host, key_store)
        run.check_proxies(forwarded_allow_ips)
        # By default SIGTERM ends the process at once, before the store is closed, and SIGINT with a traceback.
        for ending in (signal.SIGTERM, signal.SIGINT):
            signal.signal(ending, lambda number, _: sys.exit(128 + number))
        configure(log_level)
        with opened(backend, must_exist=False) as store:
            _log_keys(key_store, keys)
            run.serve(store, key_store, settings, host, port, max_connections, forwarded_allow_ips)


@keys_app.command("create")
def create_key(
    memory: Annotated[list[str], typer.Option(help="A memory that the key may access; can be repeated.")],
    user: Annotated[str | None, typer.Option(help="Restrict the key to this user's messages.")] = None,
    name: Annotated[str, typer.Option(help="A label for the key.")] = "",
    keys: KeysFile = _DEFAULT_KEYS,
) -> None:
    """Create a key and print it. It is shown only once."""
    with errors_reported(), KeyStore(keys) as store:
        is_first = not store.all()
        _, text = store.create(memory, user, name)
    typer.echo(text)
    if is_first:
        typer.echo(f"this is the first key in {keys}: restart any service that runs without keys", err=True)


@keys_app.command("list")
def list_keys(keys: KeysFile = _DEFAULT_KEYS) -> None:
    """List all keys, without their secrets."""
    with _stored_keys(keys) as store:
        stored = [] if store is None else store.all()
    if not stored:
        typer.echo(f"{keys} has no keys", err=True)
        return
    typer.echo("\t".join(_COLUMNS))
    for key in stored:
        created = dt.datetime.fromtimestamp(key.created_at, dt.UTC).strftime("%Y-%m-%d %H:%M")
        state = "valid" if key.revoked_at is None else "revoked"
        users = "all users" if key.user_id is None else f"user {printable(key.user_id)}"
        typer.echo("\t".join((key.id, state, created, ",".join(key.memory_ids), users, printable(key.name))))


@keys_app.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="The key's id, as shown by `keys list`, or the key.")],
    keys: KeysFile = _DEFAULT_KEYS,
) -> None:
    """Revoke a key; this takes effect with the next request."""
    key_id = id_of(key_id)  # what is printed may be logged
    with _stored_keys(keys) as store:
        revoked = store is not None and store.revoke(key_id)
    if not revoked:
        typer.echo(f"{keys} has no valid key {key_id}", err=True)
        raise typer.Exit(1)
    typer.echo(f"{key_id} is revoked")


def _log_keys(store: KeyStore | None, path: Path) -> None:
    log = logging.getLogger("dynamiq_memory")
    if store is None:
        log.warning("there are no keys: everyone on this machine is admitted")
    else:
        valid = sum(key.revoked_at is None for key in store.all())
        log.info("keys from %s: %s", path, counted(valid, "valid key"))


@contextmanager
def _stored_keys(path: Path) -> Iterator[KeyStore | None]:
    """Open the file with the keys, if it exists; report errors like `errors_reported`."""
    with errors_reported(), KeyStore(path) if path.exists() else nullcontext() as store:
        yield store
