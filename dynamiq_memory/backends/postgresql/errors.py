"""What PostgreSQL's errors mean (https://www.postgresql.org/docs/current/errcodes-appendix.html)."""

from __future__ import annotations

import re

from sqlalchemy.exc import DBAPIError

from dynamiq_memory.exceptions import (
    BackendAuthenticationError,
    BackendConnectionError,
    BackendError,
    DynamiqMemoryError,
    MessageTooLargeError,
)

# Set on an error that came while a transaction was being committed: nobody knows whether it was.
AT_COMMIT = "_dynamiq_memory_at_commit"

_AUTHENTICATION = ("authentication failed", "no password supplied", "no pg_hba.conf entry", 'role "')
_RUN_AGAIN = frozenset({"40001", "40P01"})
# The server goes down or comes up, the database was dropped, or the connection was idle for too long.
_ENDED = frozenset({"57P01", "57P02", "57P03", "57P04", "57P05", "25P03", "25P04"})
_NO_DATABASE = re.compile('database ".*" does not exist')
_MEANINGS: dict[str, tuple[type[BackendError | MessageTooLargeError], str]] = {
    "25006": (BackendError, "it is read-only, such as a replica: connect to the primary to write"),
    "42501": (BackendAuthenticationError, "the user lacks a right: grant it, or use another user"),
    "42P01": (BackendError, "the table is gone: open the backend anew to create it"),
    "53100": (BackendError, "the disk is full"),
    "53200": (BackendError, "the server has no memory left"),
    "53300": (BackendConnectionError, "it takes no more connections: lower pool_size, or raise its max_connections"),
    "54000": (MessageTooLargeError, "more than the server can hold: an id is too long for an index, or a vector"),
    "57014": (BackendError, "the statement took too long: raise statement_timeout, or ask for less"),
}


def _cause(error: BaseException) -> BaseException:
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error


def _state(error: BaseException) -> str:
    return getattr(_cause(error), "sqlstate", None) or ""


def must_run_again(error: Exception) -> bool:
    """Whether the server has rolled a transaction back because it met another: a deadlock, say."""
    return _state(error) in _RUN_AGAIN


def is_disconnect(error: Exception) -> bool:
    """Whether the connection broke, or the server is going down."""
    state, cause = _state(error), _cause(error)
    if state:
        return state.startswith("08") or state in _ENDED
    return type(cause).__name__ == "OperationalError" and not _refused(str(cause))


def translated(error: Exception, where: str) -> DynamiqMemoryError:
    """Turn an error of the driver's into one of ours.

    Args:
        error: The driver's.
        where: The database, without a password.
    """
    state = _state(error)
    said = str(_cause(error)).strip().partition("\n")[0]
    if state.startswith("28") or (not state and _refused(said)):
        return BackendAuthenticationError(f"{where} refuses the user or the password ({said}): check both")
    if state in _MEANINGS:
        kind, meaning = _MEANINGS[state]
        return kind(f"{where}: {meaning} ({said})")
    if not state and _NO_DATABASE.search(said):
        return BackendConnectionError(f"{where}: {said}; create it, or correct the name")
    if is_disconnect(error):
        return BackendConnectionError(
            f"{where} cannot be reached ({said}): check the address, and that the server runs"
        )
    return BackendError(f"{where}: {said}")


def _refused(said: str) -> bool:
    return any(words in said for words in _AUTHENTICATION)
