"""Files and streams of bytes, compressed or not."""

from __future__ import annotations

import gzip
import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import IO, Literal, cast

from dynamiq_memory.exceptions import (
    ConfigurationError,
    MessageTooLargeError,
    MissingDependencyError,
    TransferError,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    try:
        from backports import zstd
    except ImportError:  # optional
        zstd = None  # type: ignore[assignment]

MAX_LINE_BYTES = 64 * 1024 * 1024
"""Maximum size of a line by default: a small compressed file may have one that fills all memory."""
_CHUNK = 64 * 1024
_BOM = b"\xef\xbb\xbf"
_UNREADABLE = (OSError, EOFError, zlib.error, *(() if zstd is None else (zstd.ZstdError,)))

File = str | os.PathLike[str] | IO[bytes]
"""A file's path, or an open binary stream, which stays open and is not compressed."""


def numbered_lines(
    stream: IO[bytes], max_bytes: int = MAX_LINE_BYTES
) -> Iterator[tuple[int, bytes | MessageTooLargeError]]:
    """Read the lines of a file, with their numbers from 1.

    Args:
        stream: The file.
        max_bytes: Maximum size of a line. In place of a longer one is its error; hardly more than this is held of it.

    Raises:
        TransferError: The file cannot be read, or its compressed data are damaged or cut off.
    """
    number = 0
    try:
        while line := stream.readline(max_bytes + 1):
            number += 1
            if len(line) <= max_bytes or line.endswith(b"\n"):
                yield number, line.removeprefix(_BOM) if number == 1 else line
                continue
            while line and not line.endswith(b"\n"):
                line = stream.readline(_CHUNK)
            yield (
                number,
                MessageTooLargeError(
                    f"this has more than {max_bytes:,} bytes: split it, or for an export, give a larger max_line_bytes"
                ),
            )
    except _UNREADABLE as error:
        raise TransferError(f"the file cannot be read after line {number}: {error}") from error


def whole(stream: IO[bytes]) -> bytes:
    """Read a file as a whole.

    Raises:
        TransferError: The file cannot be read, or its compressed data are damaged or cut off.
    """
    try:
        return stream.read()
    except _UNREADABLE as error:
        raise TransferError(f"the file cannot be read: {error}") from error


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
def new_file(file: File) -> Iterator[IO[bytes]]:
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
    if os.path.lexists(path):
        raise _exists(path)
    part = path.with_name(f"{path.name}.{token_hex(8)}.part")
    stream = _open(part, path.suffix, "xb")
    try:
        with stream:
            yield stream
        with part.open("rb") as written:
            os.fsync(written.fileno())
        try:
            _name(part, path)
        except FileExistsError:
            raise _exists(path) from None
    finally:
        part.unlink(missing_ok=True)


def _name(part: Path, path: Path) -> None:
    """Give a file its name.

    Raises:
        FileExistsError: The name is taken; nothing is replaced.
    """
    try:
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        path.touch(exist_ok=False)  # takes the name, so that only this empty file is replaced
        try:
            part.replace(path)
        except OSError:
            path.unlink()
            raise


def _exists(path: Path) -> ConfigurationError:
    return ConfigurationError(f"{str(path)!r} exists: choose another name, or delete it first")


def _open(path: Path, suffix: str, mode: Literal["rb", "xb"]) -> IO[bytes]:
    if suffix == ".gz":
        return cast("IO[bytes]", gzip.open(path, mode))
    if suffix != ".zst":
        return path.open(mode)
    if zstd is None:
        raise MissingDependencyError("files in .zst need a library: pip install 'dynamiq-memory[cli]'")
    return cast("IO[bytes]", zstd.open(path, mode))
