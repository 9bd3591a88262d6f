"""API keys. A key is shown once, when it is created; only its hash is stored."""

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
from typing import Any

from dynamiq_memory._closing import Closing
from dynamiq_memory.exceptions import BackendError, ConfigurationError, InvalidArgumentError
from dynamiq_memory.messages import check_identifier
from dynamiq_memory.server.partition import check_memory_id

_FORMAT = re.compile(r"dm_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
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
class APIKey:
    """An API key without its secret.

    Attributes:
        id: The public part, for lists and logs.
        name: A label.
        memory_ids: The memories that the key may access.
        user_id: The only user that the key may access, or None for all users.
        created_at: POSIX seconds.
        revoked_at: POSIX seconds, or None if the key is valid.
    """

    id: str
    name: str
    memory_ids: tuple[str, ...]
    user_id: str | None
    created_at: float
    revoked_at: float | None


class KeyStore(Closing):
    """The API keys of a service, in a separate SQLite file. A revoked key is rejected from the next request on.

    A secret has 256 random bits, and only its SHA-256 is stored. A slow hash would add no security to so many bits.

    Args:
        path: The file. If it does not exist, it is created with access for its owner only.
    """

    def __init__(self, path: str | Path) -> None:
        """Open or create the file."""
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
            raise ConfigurationError(f"the key file {str(self.path)!r} cannot be opened: {error}") from error

    def create(self, memory_ids: Sequence[str], user_id: str | None = None, name: str = "") -> tuple[APIKey, str]:
        """Create a key.

        Args:
            memory_ids: The memories that the key may access, at least one.
            user_id: The only user that the key may access, or None for all users.
            name: A label.

        Returns:
            The key, and its text including the secret, which is not stored.

        Raises:
            InvalidArgumentError: A memory id or the user id is invalid.
        """
        if not memory_ids:
            raise InvalidArgumentError("a key needs the id of at least one memory")
        for memory_id in memory_ids:
            check_memory_id(memory_id)
        if user_id is not None:
            check_identifier(user_id, "user_id")
        key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        text = f"dm_{key_id}_{secret}"
        key = APIKey(key_id, name, tuple(dict.fromkeys(memory_ids)), user_id, time.time(), None)
        row = (key.id, _digest(text), name, json.dumps(key.memory_ids), user_id, key.created_at)
        self._run("INSERT INTO keys (id, digest, name, memory_ids, user_id, created_at) VALUES (?, ?, ?, ?, ?, ?)", row)
        return key, text

    def check(self, text: str) -> APIKey | None:
        """Return the valid key that a text represents, or None. A wrong secret takes as long as the right one."""
        match = _FORMAT.fullmatch(text)
        rows = self._run(f"SELECT digest, {_COLUMNS} FROM keys WHERE id = ?", (match[1] if match else "",))  # noqa: S608
        digest, *row = rows[0] if rows else (_NO_DIGEST,)
        is_correct = hmac.compare_digest(_digest(text), digest)
        key = _key_of(*row) if row else None
        return key if is_correct and key is not None and key.revoked_at is None else None

    def all(self) -> list[APIKey]:
        """Return all keys, including revoked ones, oldest first."""
        rows = self._run(f"SELECT {_COLUMNS} FROM keys ORDER BY created_at, id")  # noqa: S608 - a constant
        return [_key_of(*row) for row in rows]

    def revoke(self, key_id: str) -> bool:
        """Revoke a key.

        Returns:
            Whether a valid key with this id existed.
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
        """Close the file if the caller did not."""
        with suppress(AttributeError):
            self._connection.close()

    def _run(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        try:
            with self._lock:
                return self._connection.execute(statement, parameters).fetchall()
        except sqlite3.Error as error:
            raise BackendError(f"the key file {str(self.path)!r} failed: {error}") from error


def id_of(text: str) -> str:
    """Return the id in a key's text; any other text unchanged."""
    match = _FORMAT.fullmatch(text)
    return match[1] if match else text


def _key_of(key_id: str, name: str, memory_ids: str, *rest: Any) -> APIKey:
    return APIKey(key_id, name, tuple(json.loads(memory_ids)), *rest)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
