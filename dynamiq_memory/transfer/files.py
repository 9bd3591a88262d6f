"""Files of messages: a line of JSON that names the format, then a line for each message.

    {"format": "dynamiq-memory", "version": 1}
    {"role": "user", "content": "Hi", "id": "…", "timestamp": 1760000000.0, "metadata": {"user_id": "u-1", …}}

Files whose names end in `.gz` or `.zst` are compressed. docs/moving.md has the JSON Schema of a line.
"""

from __future__ import annotations

import gzip
import os
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal, cast

from dynamiq_memory._json import dumps, loads
from dynamiq_memory.backends.base import MemoryBackend
from dynamiq_memory.exceptions import ConfigurationError, MessageError, MissingDependencyError, TransferError
from dynamiq_memory.filters import parse
from dynamiq_memory.transfer.lines import from_line, to_line
from dynamiq_memory.transfer.reading import BATCH, messages_of
from dynamiq_memory.transfer.writing import Located, OnConflict, OnError, Progress, Report, Totals, Writer

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    try:
        from backports import zstd
    except ImportError:  # optional
        zstd = None  # type: ignore[assignment]

FORMAT = "dynamiq-memory"
VERSION = 1
_BOM = b"\xef\xbb\xbf"
_UNREADABLE = (OSError, EOFError, zlib.error, *(() if zstd is None else (zstd.ZstdError,)))

File = str | os.PathLike[str] | IO[bytes]
"""A file's path, or an open binary stream, which stays open and is not compressed."""


def export_to(
    file: File,
    source: MemoryBackend,
    *,
    filters: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Totals:
    """Write the messages of a store into a file, with all that the store keeps of them.

    Args:
        file: The path of a new file, compressed if it ends in ".gz" or ".zst", or a binary stream.
        source: The store.
        filters: Write only messages that match.
        progress: Is called after each 1,000 messages.

    Returns:
        The numbers of messages.

    Raises:
        ConfigurationError: The file exists.
        TransferError: The file cannot be written. Nothing is left of it.
        MissingDependencyError: ".zst" needs a library.
        FilterError: The filter is malformed.
        BackendError: The store failed. Nothing is left of the file.
    """
    filter = parse(filters)
    with _new_file(file) as stream:
        sessions = source.sessions(filters)[::-1]
        totals = Totals(sum(session.messages for session in sessions))
        _write_line(stream, dumps({"format": FORMAT, "version": VERSION}))
        for message in messages_of(source, sessions, filter):
            _write_line(stream, to_line(message))
            totals.read += 1
            totals.written += 1
            if progress is not None and totals.read % BATCH == 0:
                progress(totals)
        stream.flush()
    return totals


def import_from(
    file: File,
    target: MemoryBackend,
    *,
    filters: Mapping[str, Any] | None = None,
    on_conflict: OnConflict | str = OnConflict.ERROR,
    on_error: OnError | str = OnError.STOP,
    dry_run: bool = False,
    progress: Progress | None = None,
    report: Report | None = None,
) -> Totals:
    """Read a file of `export_to` into a store.

    Messages that the store has already are not written again, so an import that was interrupted goes on when it is made
    again.

    Args:
        file: The file's path, or a binary stream.
        target: The store.
        filters: Import only messages that match.
        on_conflict: As for `copy`; also for two messages of the file with the same id.
        on_error: For a line that cannot be read or stored: "stop", or "skip".
        dry_run: Whether to write nothing, and count what would be written.
        progress: Is called after each batch, with the numbers so far.
        report: Is called with the reason for each line that is skipped.

    Returns:
        The numbers of messages.

    Raises:
        TransferError: The file is not one of `export_to` or of a later version, or a line cannot be read or stored; the
            error names the line. Messages imported before stay.
        MissingDependencyError: ".zst" needs a library.
        FilterError: The filter is malformed.
        BackendError: The store failed. Messages imported before stay.
    """
    writer = Writer(target, on_conflict, on_error, dry_run=dry_run, progress=progress, report=report)
    filter = parse(filters)
    with opened(file) as stream:
        lines = numbered_lines(stream)
        _check_header(next(lines, (1, b""))[1])
        return writer.write(each for each in _located(lines, writer) if filter.matches(each.message))


def _located(lines: Iterable[tuple[int, bytes]], writer: Writer) -> Iterator[Located]:
    for number, line in lines:
        if not line.strip():
            continue
        try:
            message = from_line(_decoded(line))
        except MessageError as error:
            writer.refuse(f"line {number}", error)
        else:
            yield Located(message, f"line {number}")


def _check_header(line: bytes) -> None:
    """Check the first line of a file.

    Raises:
        TransferError: It is of another format, or of a later version.
    """
    try:
        header = loads(_decoded(line))
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise TransferError(
            f'line 1 is not {{"format": "{FORMAT}", "version": {VERSION}}}, with which an export begins: give a file '
            "that `dynamiq-memory export` wrote, or name the file's format"
        )
    version = header.get("version")
    if version != VERSION:
        raise TransferError(
            f"line 1 says version {version!r}, and this package reads version {VERSION}: update dynamiq-memory"
        )


def numbered_lines(stream: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Read the lines of a file, with their numbers from 1.

    Raises:
        TransferError: The file cannot be read, or its compressed data are damaged or cut off.
    """
    number = 0
    try:
        for number, line in enumerate(stream, 1):
            yield number, line.removeprefix(_BOM) if number == 1 else line
    except _UNREADABLE as error:
        raise TransferError(f"the file cannot be read after line {number}: {error}") from error


def _decoded(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise MessageError(f"byte {error.start + 1} is not UTF-8: convert the file to UTF-8") from None


@contextmanager
def opened(file: File) -> Iterator[IO[bytes]]:
    """Open a file to read it, uncompressed.

    Raises:
        TransferError: It cannot be opened.
    """
    if not isinstance(file, str | os.PathLike):
        yield file
        return
    path = Path(file)
    try:
        stream = _open(path, path.suffix, "rb")
    except OSError as error:
        raise TransferError(f"{str(path)!r} cannot be opened: {error.strerror}: check its name") from error
    with stream:
        yield stream


@contextmanager
def _new_file(file: File) -> Iterator[IO[bytes]]:
    """Write a file that gets its name when it is complete and on the disk, or a stream."""
    try:
        if isinstance(file, str | os.PathLike):
            with _under_another_name(Path(file)) as stream:
                yield stream
        else:
            yield file
    except OSError as error:
        name = repr(os.fspath(file)) if isinstance(file, str | os.PathLike) else "the stream"
        raise TransferError(f"{name} cannot be written: {error.strerror or error}") from error


@contextmanager
def _under_another_name(path: Path) -> Iterator[IO[bytes]]:
    if path.exists():
        raise ConfigurationError(f"{str(path)!r} exists: choose another name, or delete it first")
    part = path.with_name(f"{path.name}.part")
    try:
        with _open(part, path.suffix, "wb") as stream:
            yield stream
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)


def _open(path: Path, suffix: str, mode: Literal["rb", "wb"]) -> IO[bytes]:
    if suffix == ".gz":
        return cast("IO[bytes]", gzip.open(path, mode))
    if suffix != ".zst":
        return path.open(mode)
    if zstd is None:
        raise MissingDependencyError("files in .zst need a library: pip install 'dynamiq-memory[cli]'")
    return cast("IO[bytes]", zstd.open(path, mode))


def _write_line(stream: IO[bytes], line: str) -> None:
    stream.write(line.encode() + b"\n")
