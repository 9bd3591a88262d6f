"""Options that choose messages."""

from __future__ import annotations

import datetime as dt
from contextlib import suppress
from typing import Annotated, Any

import typer

from dynamiq_memory.exceptions import ConfigurationError
from dynamiq_memory.messages import SESSION_KEY, TIMESTAMP_KEY, USER_KEY

Store = Annotated[str, typer.Argument(metavar="STORE", help="The store: a URL or a name.", show_default=False)]
User = Annotated[str | None, typer.Option(help="Only messages of this user.")]
Session = Annotated[str | None, typer.Option(help="Only messages of this session.")]
Since = Annotated[str | None, typer.Option(help="Only messages from this time on: ISO 8601 (UTC if it names no zone).")]


def chosen(user: str | None = None, session: str | None = None, since: str | None = None) -> dict[str, Any]:
    """Make a filter of options.

    Raises:
        ConfigurationError: The time cannot be read.
    """
    ids = {USER_KEY: user, SESSION_KEY: session}
    filters: dict[str, Any] = {key: value for key, value in ids.items() if value is not None}
    if since is not None:
        filters[TIMESTAMP_KEY] = {"gte": _seconds(since)}
    return filters


def _seconds(text: str) -> float:
    with suppress(ValueError, OverflowError):
        moment = dt.datetime.fromisoformat(text)
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)).timestamp()
    raise ConfigurationError(f"--since {text!r} is not a time: use one such as 2026-11-30 or 2026-11-30T18:00+01:00")
