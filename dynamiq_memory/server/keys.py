"""API keys: made once, shown once, kept as hashes."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from dynamiq_memory._closing import Closing
from dynamiq_memory.exceptions import BackendError, ConfigurationError, InvalidArgumentError
from dynamiq_memory.messages import check_identifier
from dynamiq_memory.server.partition import MEMORY_ID_PATTERN

_FORM = re.compile(r"dm_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_TABLE = """
CREATE TABLE IF NOT EXISTS keys (
    id TEXT PRIMARY KEY,
    digest BLOB NOT NULL,
    name TEXT NOT NULL,
    memory_ids TEXT NOT NULL,
    user_id TEXT,
    created_at REAL NOT NULL,
    revoked_at REAL
) STRICT
"""
_COLUMNS = "id, name, memory_ids, user_id, created_at, revoked_at"
_NO_DIGEST = bytes(hashlib.sha256().digest_size)


@dataclass(frozen=True, slots=True)
class Key:
    """An API key, without its secret.

    Attributes:
        id: Its public part, for lists and logs.
        name: What it is for.
        memory_ids: The memories that it opens.
        user_id: The one user whose messages it reaches, or None for all of these memories.
        created_at: POSIX seconds.
        revoked_at: POSIX seconds, or None while it is valid.
    """

    id: str
    name: str
    memory_ids: tuple[str, ...]
    user_id: str | None
    created_at: float
    revoked_at: float | None

    @classmethod
    def _of_row(cls, row: Sequence[object]) -> Self:
        key_id, name, memory_ids, *rest = row
        return cls(key_id, name, tuple(json.loads(memory_ids)), *rest)  # type: ignore[arg-type]


class KeyStore(Closing):
    """The keys of a service, in a SQLite file of its own. What is revoked is refused from the next request on.

    A key's secret is 256 random bits, of which only the SHA-256 is stored: with so many bits nothing is gained by a
    slow hash.

    Args:
        path: The file; made, readable by its owner alone, if there is none.
    """

    def __init__(self, path: str | Path) -> None:
        """Open the file."""
        self.path = Path(path)
        self._lock = threading.Lock()
        try:
            if not self.path.exists():
                self.path.touch(mode=0o600)
            self._connection = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None)
            with self._lock:
                self._connection.execute("PRAGMA journal_mode=WAL")
                self._connection.execute(_TABLE)
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(f"the file of keys {str(self.path)!r} cannot be opened: {error}") from error

    def create(self, memory_ids: Sequence[str], user_id: str | None = None, name: str = "") -> tuple[Key, str]:
        """Make a key.

        Args:
            memory_ids: The memories that it opens, at least one.
            user_id: The one user whose messages it reaches; None for all of these memories.
            name: What it is for.

        Returns:
            The key, and its text, which is stored nowhere.

        Raises:
            InvalidArgumentError: A memory id or the user_id is none.
        """
        if not memory_ids:
            raise InvalidArgumentError("a key needs the id of at least one memory")
        for memory_id in memory_ids:
            if not re.fullmatch(MEMORY_ID_PATTERN, memory_id):
                raise InvalidArgumentError(f"memory id {memory_id!r} must be of letters, digits, '.', '_' and '-'")
        if user_id is not None:
            check_identifier(user_id, "user_id")
        key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        text = f"dm_{key_id}_{secret}"
        key = Key(key_id, name, tuple(dict.fromkeys(memory_ids)), user_id, time.time(), None)
        row = (key.id, _digest(text), name, json.dumps(key.memory_ids), user_id, key.created_at)
        self._run("INSERT INTO keys (id, digest, name, memory_ids, user_id, created_at) VALUES (?, ?, ?, ?, ?, ?)", row)
        return key, text

    def check(self, text: str) -> Key | None:
        """The valid key of a text; None if there is none. Takes as long for a wrong secret as for the right one."""
        form = _FORM.fullmatch(text)
        rows = self._run(f"SELECT digest, {_COLUMNS} FROM keys WHERE id = ?", (form[1] if form else "",))  # noqa: S608
        digest: Any
        digest, *row = rows[0] if rows else (_NO_DIGEST,)
        right = hmac.compare_digest(_digest(text), digest)
        key = Key._of_row(row) if row else None  # noqa: SLF001 - of this module
        return key if right and key is not None and key.revoked_at is None else None

    def all(self) -> list[Key]:
        """All keys that were ever made, the oldest first."""
        rows = self._run(f"SELECT {_COLUMNS} FROM keys ORDER BY created_at, id")  # noqa: S608 - a constant
        return [Key._of_row(row) for row in rows]  # noqa: SLF001

    def revoke(self, key_id: str) -> bool:
        """Make a key invalid.

        Returns:
            Whether there was a valid one of this id.
        """
        statement = "UPDATE keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL RETURNING id"
        return bool(self._run(statement, (time.time(), key_id)))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    async def aclose(self) -> None:
        """Close the file."""
        self.close()

    def __del__(self) -> None:
        """Close what nobody closed."""
        with suppress(AttributeError):
            self._connection.close()

    def _run(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[object, ...]]:
        try:
            with self._lock:
                return self._connection.execute(statement, parameters).fetchall()
        except sqlite3.Error as error:
            raise BackendError(f"the file of keys {str(self.path)!r}: {error}") from error


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
