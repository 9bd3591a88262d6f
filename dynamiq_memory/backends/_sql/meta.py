"""The table of meta: the version and the tokenizer with which the tables were written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from dynamiq_memory.backends._sql.prepared import Prepared
from dynamiq_memory.backends._sql.tables import Tables
from dynamiq_memory.exceptions import ConfigurationError
from dynamiq_memory.ranking.tokenizer import Tokenize, signature_of

SCHEMA_VERSION = "1"
VERSION_KEY = "schema_version"
TOKENIZER_KEY = "tokenizer"


class Meta:
    """Checks the table of meta in each write and search, since another process may have changed it."""

    def __init__(self, tables: Tables, tokenize: Tokenize, keys: tuple[str, ...] = (TOKENIZER_KEY,)) -> None:
        """Compile the statement."""
        self._name = tables.messages.name
        self._signature = signature_of(tokenize)
        meta = tables.meta.c
        condition = sa.or_(*(meta.key == key for key in keys))
        self._statement: sa.Select[Any] = sa.select(meta.key, meta.value).where(condition)
        self._read = Prepared(self._statement, tables.dialect)

    def check(self, connection: sa.Connection) -> Mapping[str, str]:
        """Return what the table says.

        Raises:
            ConfigurationError: Another process has indexed the messages again, with another tokenizer.
        """
        return self._checked(self._read.fetch(connection, {}))

    def check_for_write(self, connection: sa.Connection) -> Mapping[str, str]:
        """Return what the table says, and will say until the end of the transaction; see `check`."""
        return self.check(connection)

    def _checked(self, rows: Iterable[Any]) -> Mapping[str, str]:
        meta: dict[str, str] = dict(rows)
        stored = meta.get(TOKENIZER_KEY, self._signature)
        if stored != self._signature:
            raise ConfigurationError(
                f"the messages in {self._name!r} have been re-indexed by the tokenizer {stored!r}, but this object "
                f"uses {self._signature!r}: make a new one with that tokenizer"
            )
        return meta
