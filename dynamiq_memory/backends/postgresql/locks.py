"""Advisory locks of a transaction (https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import SESSION_KEY, USER_KEY

_BATCH_LOCKS = 256


class Locks:
    """Locks for the tables of one store, each held until the end of the transaction.

    Args:
        schema: The database schema of the tables, or None for the default one.
        table: The name of the table of messages.
    """

    def __init__(self, schema: str | None, table: str) -> None:
        """Lock nothing yet."""
        self._name = (schema, table)

    def opening(self, connection: sa.Connection) -> None:
        """Let one process at a time create and upgrade the tables."""
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_number("open", *self._name))))

    def batches(self, connection: sa.Connection, sessions: Iterable[tuple[str, str]]) -> None:
        """Let one batch at a time change each session: two that change the same messages could deadlock."""
        # The server has room for some thousands of locks.
        numbers = sorted({_hash("batch", *self._name, *session) % _BATCH_LOCKS for session in sessions})
        table = _hash("batches", *self._name) % 2**31
        each = sa.func.unnest(sa.literal(numbers, sa.ARRAY(sa.Integer))).column_valued("number")
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.literal(table, sa.Integer), each)))

    def replacing(self, connection: sa.Connection, filter: Filter) -> None:
        """Let one replacement at a time change the same messages: the next must see the messages that it wrote.

        The smallest scope that contains all that is replaced is locked, the larger ones around it are shared.
        """
        names: list[tuple[str | None, ...]] = [("replace", *self._name)]
        for key in (USER_KEY, SESSION_KEY):
            allowed = filter.scope(key)
            if allowed is None or len(allowed) != 1:
                break
            names.append((*names[-1], allowed[0] or ""))
        shared = [sa.func.pg_advisory_xact_lock_shared(_number(*name)) for name in names[:-1]]
        connection.execute(sa.select(*shared, sa.func.pg_advisory_xact_lock(_number(*names[-1]))))


def _number(*names: str | None) -> Any:
    return sa.literal(_hash(*names) - 2**63, sa.BigInteger)


def _hash(*names: str | None) -> int:
    digest = hashlib.blake2b("\0".join(name or "" for name in names).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")
