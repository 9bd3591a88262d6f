"""Files of messages: a line of JSON that names the format, then a line for each message.

    {"format": "dynamiq-memory", "version": 1}
    {"role": "user", "content": "Hi", "id": "…", "timestamp": 1760000000.0, "metadata": {"user_id": "u-1", …}}

Files with names in `.gz` or `.zst` are compressed. docs/moving.md has the JSON Schema of a line.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

from dynamiq_memory._checks import check_whole_number
from dynamiq_memory._json import dumps, loads
from dynamiq_memory.backends.base import MemoryBackend
from dynamiq_memory.exceptions import ConfigurationError, MessageError, TransferError
from dynamiq_memory.filters import parse
from dynamiq_memory.messages import SESSION_KEY, USER_KEY
from dynamiq_memory.transfer.lines import MALFORMED, from_line, to_line
from dynamiq_memory.transfer.readers import messages_in, reader_of
from dynamiq_memory.transfer.reading import BATCH, messages_of
from dynamiq_memory.transfer.streams import MAX_LINE_BYTES, File, new_file, numbered_lines, opened
from dynamiq_memory.transfer.writing import Located, OnConflict, OnError, Progress, Report, Totals, Writer

FORMAT = "dynamiq-memory"
VERSION = 1


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
    with new_file(file) as stream:
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
    format: str = FORMAT,  # noqa: A002 - the field's term
    user_id: str | None = None,
    session_id: str | None = None,
    filters: Mapping[str, Any] | None = None,
    on_conflict: OnConflict | str = OnConflict.ERROR,
    on_error: OnError | str = OnError.STOP,
    dry_run: bool = False,
    max_line_bytes: int = MAX_LINE_BYTES,
    progress: Progress | None = None,
    report: Report | None = None,
) -> Totals:
    """Read a file of `export_to`, or of another program, into a store.

    Messages that the store has already are not written again, so an import that was interrupted goes on when it is made
    again. Messages of other programs that have no time get that of the import, and keep it.

    Args:
        file: The file's path, or a binary stream. For a table of a database, the path of a SQLite file or a URL.
        target: The store.
        format: The file's format: "dynamiq-memory", "chatgpt", "claude", "langchain-sql", "llama-index", "mem0",
            "openai-agents" or "openai-chat". See docs/moving.md.
        user_id: The user of messages that have none.
        session_id: The session of messages that have none.
        filters: Import only messages that match.
        on_conflict: As for `copy`; also for two messages of the file with the same id.
        on_error: For a line that cannot be read or stored: "stop", or "skip".
        dry_run: Whether to write nothing, and count what would be written.
        max_line_bytes: Maximum size of a line of an export, uncompressed, in bytes. Defaults to 64 MiB, which are also
            the maximum for lines of other programs.
        progress: Is called after each batch, with the numbers so far.
        report: Is called with the reason for each line that is skipped.

    Returns:
        The numbers of messages.

    Raises:
        ConfigurationError: The format is unknown, its reader is not installed, or the URL of a table is malformed.
        TransferError: The file is not of this format or of a later version, or a line cannot be read or stored; the
            error names the line. Messages imported before stay.
        MissingDependencyError: ".zst" needs a library.
        FilterError: The filter is malformed.
        BackendError: The store failed. Messages imported before stay.
    """
    writer = Writer(target, on_conflict, on_error, dry_run=dry_run, progress=progress, report=report)
    filter = parse(filters)
    if format == FORMAT:
        given = {USER_KEY: user_id, SESSION_KEY: session_id}
        defaults = {key: value for key, value in given.items() if value is not None}
        found = _own(file, defaults, writer, check_whole_number("max_line_bytes", max_line_bytes))
    else:
        read = messages_in(file, format, user_id, session_id, writer.refuse)
        found = (Located(message, location) for message, location in read)
    return writer.write(each for each in found if filter.matches(each.message))


def check_source(file: File, format: str) -> None:  # noqa: A002 - the field's term
    """Check that a file can be imported, as far as it can be seen without reading all of it.

    Raises:
        ConfigurationError: The format is unknown, its reader is not installed, or the file is a store.
        TransferError: The file cannot be opened, or does not begin as a file of this package's format does.
    """
    if format != FORMAT:
        reader_of(format)
    if not isinstance(file, str | os.PathLike):
        return
    if "://" in os.fspath(file):
        if format == FORMAT:
            raise ConfigurationError("the URL is that of a store, not of a file: use `dynamiq-memory copy FROM TO`")
        return
    with opened(file) as stream:
        if format == FORMAT:
            _check_header(next(numbered_lines(stream), (1, b""))[1])


def _own(file: File, defaults: Mapping[str, str], writer: Writer, max_line_bytes: int) -> Iterator[Located]:
    with opened(file) as stream:
        lines = numbered_lines(stream, max_line_bytes)
        _check_header(next(lines, (1, b""))[1])
        for each in _located(lines, writer):
            each.message.metadata = {**defaults, **each.message.metadata}
            yield each


def _located(lines: Iterable[tuple[int, bytes | MessageError]], writer: Writer) -> Iterator[Located]:
    for number, line in lines:
        if isinstance(line, bytes) and not line.strip():
            continue
        try:
            message = from_line(_decoded(line))
        except MessageError as error:
            writer.refuse(f"line {number}", error)
        else:
            yield Located(message, f"line {number}")


def _check_header(line: bytes | MessageError) -> None:
    """Check the first line of a file.

    Raises:
        TransferError: It is of another format, or of a later version.
    """
    try:
        header = loads(_decoded(line))
    except MALFORMED:
        header = None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise TransferError(
            f'line 1 is not {{"format": "{FORMAT}", "version": {VERSION}}}, with which an export begins: give a file '
            "that `dynamiq-memory export` wrote, or name the file's format (--from)"
        )
    version = header.get("version")
    if type(version) is not int or version < 1:
        raise TransferError(f"line 1 says version {version!r:.100}, which is not a whole number: write {VERSION}")
    if version != VERSION:
        raise TransferError(
            f"line 1 says version {version}, and this package reads version {VERSION}: update dynamiq-memory"
        )


def _decoded(line: bytes | MessageError) -> str:
    if isinstance(line, MessageError):
        raise line
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise MessageError(f"byte {error.start + 1} is not UTF-8: convert the file to UTF-8") from None


def _write_line(stream: IO[bytes], line: str) -> None:
    stream.write(line.encode() + b"\n")
