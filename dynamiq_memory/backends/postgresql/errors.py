"""PostgreSQL's errors as ours (https://www.postgresql.org/docs/current/errcodes-appendix.html)."""

from __future__ import annotations

import re

from sqlalchemy.exc import DBAPIError

from dynamiq_memory.exceptions import (
    BackendAuthenticationError,
    BackendConnectionError,
    BackendError,
    ConfigurationError,
    DynamiqMemoryError,
    MessageTooLargeError,
)

# Set on an error that was raised by a commit, which may have succeeded.
AT_COMMIT = "_dynamiq_memory_at_commit"

_AUTHENTICATION = ("authentication failed", "no password supplied", "no pg_hba.conf entry", 'role "')
_RUN_AGAIN = frozenset({"40001", "40P01"})
# The server goes down or comes up, the database was dropped, or the connection was idle for too long.
_ENDED = frozenset({"57P01", "57P02", "57P03", "57P04", "57P05", "25P03", "25P04"})
_NO_DATABASE = re.compile('database ".*" does not exist')
# libpq's or psycopg's words for an option that it does not understand.
_WRONG_OPTION = re.compile("invalid [^:]*value|bad value for ")
_POOLER = "behind a pooler such as PgBouncer, pass prepared_statements=False"
_MEANINGS: dict[str, tuple[type[BackendError | MessageTooLargeError], str]] = {
    "22P05": (BackendError, "its encoding lacks a character of the message: use a database and connections in UTF8"),
    "25006": (BackendError, "it is read-only, such as a replica: connect to the primary to write"),
    "26000": (BackendError, _POOLER),
    "42P05": (BackendError, _POOLER),
    "42501": (BackendAuthenticationError, "the user lacks a right: grant it, or use another user"),
    "42P01": (BackendError, "the table is gone: open the backend again to create it"),
    "53100": (BackendError, "the disk is full"),
    "53200": (BackendError, "the server has no memory left"),
    "53300": (
        BackendConnectionError,
        "it accepts no more connections: lower pool_size, or raise its max_connections",
    ),
    "54000": (MessageTooLargeError, "more than the server can store: an id is too long for an index, or a vector"),
    "57014": (BackendError, "the statement took too long: raise statement_timeout, or ask for less"),
}


def must_run_again(error: Exception) -> bool:
    """Whether the server has rolled a transaction back because of another one: a deadlock, for example."""
    return _state(error) in _RUN_AGAIN


def is_disconnect(error: Exception) -> bool:
    """Whether the connection broke, or the server is going down."""
    state, cause = _state(error), _cause(error)
    if state:
        return state.startswith("08") or state in _ENDED
    return type(cause).__name__ == "OperationalError" and not _is_refusal(str(cause))


def translated(error: Exception, server: str) -> DynamiqMemoryError:
    """Turn a driver error into our error.

    Args:
        error: The driver error.
        server: The database, without a password.
    """
    state = "22P05" if isinstance(error, UnicodeEncodeError) else _state(error)
    text = str(_cause(error)).strip().partition("\n")[0]
    if getattr(error, AT_COMMIT, False) and is_disconnect(error):
        return BackendConnectionError(
            f"the connection to {server} broke while a change was being committed: it may have been made or not. "
            "Look, before you repeat it"
        )
    if not state and _WRONG_OPTION.search(text):
        return ConfigurationError(f"{server}: {text}: correct that option of the URL")
    if "unsupported startup parameter" in text:
        return BackendConnectionError(f"{server}: {text}: {_POOLER}")
    if state.startswith("28") or (not state and _is_refusal(text)):
        return BackendAuthenticationError(f"{server} refuses the user or the password ({text}): check both")
    if state in _MEANINGS:
        kind, meaning = _MEANINGS[state]
        return kind(f"{server}: {meaning} ({text})")
    if not state and _NO_DATABASE.search(text):
        return BackendConnectionError(f"{server}: {text}; create it, or correct the name")
    if is_disconnect(error):
        return BackendConnectionError(
            f"{server} cannot be reached ({text}): check the address, and that the server runs"
        )
    return BackendError(f"{server}: {text}")


def _cause(error: BaseException) -> BaseException:
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error


def _state(error: BaseException) -> str:
    return getattr(_cause(error), "sqlstate", None) or ""


def _is_refusal(text: str) -> bool:
    return any(words in text for words in _AUTHENTICATION)
