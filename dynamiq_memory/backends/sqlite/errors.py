"""SQLite's errors as ours (https://www.sqlite.org/rescode.html)."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.exc import DBAPIError

from dynamiq_memory.exceptions import BackendConnectionError, BackendError, DynamiqMemoryError

_MEANINGS: tuple[tuple[str, type[BackendError], str], ...] = (
    ("SQLITE_NOTADB", BackendConnectionError, "is not a SQLite database: choose another db_path"),
    ("SQLITE_READONLY", BackendError, "is read-only: give this process the right to write it and its folder"),
    ("SQLITE_CORRUPT", BackendError, "is damaged ({cause}): restore it from a backup"),
    ("SQLITE_FULL", BackendError, "cannot grow: the disk is full"),
)


def translated(error: Exception, path: str, timeout: float) -> DynamiqMemoryError:
    """Turn a driver error into our error.

    Args:
        error: The driver error.
        path: The file.
        timeout: The backend's timeout in seconds.
    """
    cause = error.orig if isinstance(error, DBAPIError) else error
    code = getattr(cause, "sqlite_errorname", None) or ""
    file = f"SQLite file {path!r}"
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return BackendError(
            f"{file} is locked: another process has been writing for more than {timeout:g} s; try again, or raise "
            "timeout"
        )
    if code.startswith("SQLITE_CANTOPEN"):
        return BackendConnectionError(f"{file} cannot be opened: {_why_unopenable(Path(path))}")
    for prefix, kind, meaning in _MEANINGS:
        if code.startswith(prefix):
            return kind(f"{file} {meaning.format(cause=cause)}")
    if "no such table" in str(cause):
        return BackendError(f"{file}: {cause}: open the store again, which makes from the messages what is missing")
    return BackendError(f"{file}: {cause}")


def _why_unopenable(file: Path) -> str:
    if file.is_dir():
        return "it is a folder; give the path of a file"
    if not file.parent.is_dir():
        return f"the folder {str(file.parent)!r} does not exist; create it first"
    return f"the folder {str(file.parent)!r} or the file does not allow writing"
