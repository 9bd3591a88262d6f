"""Making terms and vectors of stored objects again, after a change of the tokenizer or the embedder.

The property `made_by` of an object names the tokenizer of its terms and the embedder that was given its text. Objects
that an earlier version of this package stored have no such names. Objects without the present name are made again, page
by page: an interruption loses nothing, and several processes may do it at once. The server updates an object only if it
is stored, so a message that is deleted in between stays deleted.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from weaviate.classes.query import Filter as ServerFilter
from weaviate.classes.query import FilterReturn

from dynamiq_memory._batches import batched
from dynamiq_memory.backends._embedding import Embed, MessageEmbedder, Vector
from dynamiq_memory.backends._labels import VectorLabels
from dynamiq_memory.backends.plans import Plan
from dynamiq_memory.backends.weaviate import requests
from dynamiq_memory.backends.weaviate.filters import MESSAGE, has_fact
from dynamiq_memory.backends.weaviate.reader import WHOLE, Reader
from dynamiq_memory.backends.weaviate.records import Row, terms_in
from dynamiq_memory.backends.weaviate.requests import AtOnce
from dynamiq_memory.backends.weaviate.schema import BODY, DIMENSION, MADE_BY
from dynamiq_memory.exceptions import BackendError, ConfigurationError
from dynamiq_memory.ranking import Tokenize
from dynamiq_memory.ranking.tokenizer import earlier_signatures_of, signature_of

logger = logging.getLogger(__name__)

_TOKENIZER = "tokenizer"
_EMBEDDER = "embedder"
_READ = (*WHOLE, DIMENSION, MADE_BY)
_PAGE = 100
_AT_ONCE = 16
_EMBEDDED = ServerFilter.by_property(DIMENSION).greater_than(0)


class Change(NamedTuple):
    """New properties of an object, and its vector if it gets one."""

    properties: dict[str, Any]
    vector: Vector | None = None


Make = Callable[[Sequence[Row]], Plan[list[Change]]]
"""Makes the changes of objects."""


def made_by(tokenize: Tokenize, embedder: MessageEmbedder | None) -> list[str]:
    """Return the names that objects get when they are stored with this tokenizer and embedder."""
    names = [_text(_TOKENIZER, signature_of(tokenize))]
    return names if embedder is None else [*names, _text(_EMBEDDER, embedder.label)]


class Vectors(VectorLabels[Row]):
    """The vectors of the messages, by the embedders that they name."""

    def __init__(self, embedder: MessageEmbedder, reader: Reader) -> None:
        """Read nothing yet."""
        super().__init__(embedder, reader.location)
        self._reader = reader

    @property
    def comparable(self) -> FilterReturn:
        """The condition for vectors that can be compared with the embedder's."""
        made_by = ServerFilter.by_property(MADE_BY)
        return _EMBEDDED & made_by.contains_any([_text(_EMBEDDER, each) for each in self.accepted])

    def any_label(self, *, accepted: bool) -> Plan[str | None]:
        """Look for one object."""
        condition = self.comparable if accepted else _EMBEDDED & self._others
        rows = yield from requests.fetch(condition, [MADE_BY], 1)
        return _name(rows[0], _EMBEDDER) or "" if rows else None

    def missing(self, limit: int) -> Plan[list[Row]]:
        """Read objects, in no particular order."""
        return (yield from _read(self._reader, self._others, limit))

    @property
    def _others(self) -> FilterReturn:
        made_by = ServerFilter.by_property(MADE_BY)
        return ServerFilter.all_of([made_by.not_equal(_text(_EMBEDDER, each)) for each in self.accepted])

    def embed(self, messages: Sequence[Row]) -> Plan[None]:
        """Give objects other vectors."""
        yield from _renew(self._reader, messages, self._changes)

    def _changes(self, rows: Sequence[Row]) -> Plan[list[Change]]:
        vectors = yield from Embed([row.message for row in rows])
        return [
            Change({DIMENSION: len(vector or ()), MADE_BY: self._made_by(row)}, vector)
            for row, vector in zip(rows, vectors, strict=True)
        ]

    def _made_by(self, row: Row) -> list[str]:
        tokenizer = _name(row, _TOKENIZER)
        others = [] if tokenizer is None else [_text(_TOKENIZER, tokenizer)]
        return [*others, _text(_EMBEDDER, self._embedder.label)]


def renew_terms(reader: Reader, tokenize: Tokenize, embedder: MessageEmbedder | None, *, reindex: bool) -> Plan[None]:
    """Make the terms of all objects that another tokenizer made.

    Args:
        reader: Reads objects.
        tokenize: The tokenizer.
        embedder: The embedder of objects that have a vector and name none, or None.
        reindex: Whether to do so for any other tokenizer. Otherwise, only for earlier versions of this one.

    Raises:
        ConfigurationError: Another tokenizer made the terms, and `reindex` is False.
    """
    signature = signature_of(tokenize)
    known = {None, signature, *earlier_signatures_of(tokenize)}

    def changes(rows: Sequence[Row]) -> Plan[list[Change]]:
        yield from ()
        return [Change({**terms_in(row.message, tokenize), MADE_BY: _completed(row)}) for row in rows]

    def _completed(row: Row) -> list[str]:
        own, stored = _text(_TOKENIZER, signature), _name(row, _EMBEDDER)
        is_embedded = bool(row.properties.get(DIMENSION)) or (embedder is not None and not row.message.text.strip())
        if not is_embedded:
            return [own]
        name = stored if stored is not None else embedder.label if embedder is not None else ""
        return [own, _text(_EMBEDDER, name)]

    lacking = ServerFilter.by_property(MADE_BY).not_equal(_text(_TOKENIZER, signature))
    done = 0
    while rows := (yield from _read(reader, lacking, _PAGE)):
        other = next((name for row in rows if (name := _name(row, _TOKENIZER)) not in known), None)
        if other is not None and not reindex:
            raise ConfigurationError(
                f"the terms of {reader.location} were made by the tokenizer {other!r}, not {signature!r}: pass that "
                "tokenizer, or reindex=True to make them again"
            )
        yield from _renew(reader, rows, changes)
        done += len(rows)
        logger.info("re-indexed %d messages of %s", done, reader.location)


def _renew(reader: Reader, rows: Sequence[Row], make: Make) -> Plan[None]:
    """Change objects; those that another process has stored in the meantime are changed again."""
    while rows:
        errors: list[BackendError | None] = []
        for group in batched(list(zip(rows, (yield from make(rows)), strict=True)), _AT_ONCE):
            errors += yield from AtOnce([_update(row, change) for row, change in group])
        stored = {row.uuid: row for row in (yield from reader.by_ids([row.uuid for row in rows], _READ))}
        for row, error in zip(rows, errors, strict=True):
            if error is not None and row.uuid in stored:
                raise error
        kept = [(row, stored[row.uuid]) for row in rows if row.uuid in stored]
        rows = [now for before, now in kept if now.properties[BODY] != before.properties[BODY]]


def _update(row: Row, change: Change) -> Plan[BackendError | None]:
    try:
        yield from requests.update(row.uuid, *change)
    except BackendError as error:
        return error  # the object may be gone
    return None


def _read(reader: Reader, condition: FilterReturn, limit: int) -> Plan[list[Row]]:
    clause = ServerFilter.all_of([has_fact(MESSAGE), condition])
    request = partial(requests.fetch, clause, _READ)
    rows, _ = yield from requests.read_page(request, min(limit, reader.max_results))
    return rows


def _text(kind: str, name: str) -> str:
    # The index trims white space; JSON ends with a quotation mark.
    return f"{kind}:{json.dumps(name)}"


def _name(row: Row, kind: str) -> str | None:
    """Return the name of a kind that an object has, or None."""
    texts = row.properties.get(MADE_BY) or []
    found = next((text for text in texts if text.startswith(f"{kind}:")), None)
    return None if found is None else str(json.loads(found.removeprefix(f"{kind}:")))
