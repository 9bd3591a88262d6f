"""Options that choose messages."""

from __future__ import annotations

import datetime as dt
from contextlib import suppress
from typing import Annotated, Any

import typer

from dynamiq_memory.backends.base import MemoryBackend
from dynamiq_memory.exceptions import ConfigurationError
from dynamiq_memory.messages import SESSION_KEY, TIMESTAMP_KEY, USER_KEY

_USERS_NAMED = 3
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


def chosen_session(backend: MemoryBackend, user: str | None, session: str | None) -> dict[str, Any]:
    """Make a filter of a user and a session that does not mix the messages of several users.

    Raises:
        ConfigurationError: Several users have the session, and none is named.
        BackendError: The store failed.
    """
    filters = chosen(user, session)
    if session is None or user is not None:
        return filters
    users = sorted({each.user_id for each in backend.sessions(filters) if each.user_id is not None})
    if len(users) > 1:
        named = ", ".join(map(repr, users[:_USERS_NAMED])) + ", …" * (len(users) > _USERS_NAMED)
        raise ConfigurationError(f"several users have the session {session!r} ({named}): give --user")
    return filters


def _seconds(text: str) -> float:
    with suppress(ValueError, OverflowError):
        moment = dt.datetime.fromisoformat(text)
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)).timestamp()
    raise ConfigurationError(f"--since {text!r} is not a time: use one such as 2026-11-30 or 2026-11-30T18:00+01:00")
