"""The vectors of a table's messages, each an item of its own, since an index would copy it and every read would pay it.

    pk              sk                                     item
    vectors/<pk>    <session>/<version>/<generation>       the vector of a message with this pk
    about           vectors                                the embedder, and the generation of its vectors

A message's own item names the generation of its vector. After a change of the embedder there is a new generation;
messages of older ones are ranked by words alone, until they are embedded again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from boto3.dynamodb.conditions import Attr

from dynamiq_memory._batches import batched
from dynamiq_memory.backends._embedding import MessageEmbedder
from dynamiq_memory.backends.dynamodb import keys
from dynamiq_memory.backends.dynamodb.keys import ItemKey, key_attributes, key_in
from dynamiq_memory.backends.dynamodb.reader import Found, Reader
from dynamiq_memory.backends.dynamodb.records import (
    EMBEDDED,
    VECTOR,
    VERSION,
    Item,
    expiry_of,
    other_item,
    random_name,
    stored_version,
)
from dynamiq_memory.backends.dynamodb.table import Table
from dynamiq_memory.filters import Filter
from dynamiq_memory.messages import Message

logger = logging.getLogger(__name__)

_ABOUT = ("about", "vectors")
_GENERATION = "generation"
_DIMENSION = "dimension"
_NAME = "embedder"
_EMBEDDED_AT_ONCE = 500


class Vectors:
    """The vectors of a table, of one embedder.

    Args:
        table: The table.
        embedder: The embedder.
    """

    def __init__(self, table: Table, embedder: MessageEmbedder) -> None:
        """Read nothing yet."""
        self._table = table
        self._embedder = embedder
        self._generation: str | None = None
        self._warned = False

    # --- opening ---------------------------------------------------------------------------------------------

    def open(self, reader: Reader, *, reindex: bool) -> None:
        """Check that the vectors are of the embedder, or embed what is not.

        Args:
            reader: Reads the messages.
            reindex: Whether to embed the messages without a vector, or all if their vectors are of another embedder.

        Raises:
            ConfigurationError: The vectors are of another embedder.
        """
        if reindex:
            self._replace_embedder(self._embedder.measured_dimension())
            self._embed_missing(reader)
        elif not self._check(self._table.get(_ABOUT)) and not reader.is_empty(Filter()):
            self._warn()

    def _check(self, about: Item | None) -> bool:
        """Check that the vectors are of the embedder; return whether there are any."""
        if about is None:
            return False
        self._embedder.check_stored(about.get(_NAME, {}).get("S"), int(about[_DIMENSION]["N"]))
        self._generation = about[_GENERATION]["S"]
        return True

    def _describe(self, generation: str, stored: Item | None = None) -> None:
        """Store what the embedder and its generation are, unless another process has changed that since it was read."""
        item = {**key_attributes(_ABOUT), _GENERATION: {"S": generation}}
        item[_DIMENSION] = {"N": str(self._embedder.dimension)}
        if self._embedder.name is not None:
            item[_NAME] = {"S": self._embedder.name}
        condition = Attr(keys.PK).not_exists() if stored is None else Attr(_GENERATION).eq(stored[_GENERATION])
        if self._table.put(item, condition):
            self._generation = generation
        else:
            self._check(self._table.get(_ABOUT))

    def _warn(self) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "%s has messages that were stored without this embedder: they are ranked by words alone, until it is "
                "opened with reindex=True",
                self._table.location,
            )

    # --- storing and searching -------------------------------------------------------------------------------

    def embed(self, messages: Sequence[Message]) -> tuple[str, list[bytes | None]]:
        """Embed messages, before anything is written.

        Returns:
            The generation, and the packed vector of each message, or None.

        Raises:
            ConfigurationError: Another process has set another embedder.
        """
        from dynamiq_memory.ranking.vectors import pack  # noqa: PLC0415 - numpy is optional

        vectors = self._embedder.embed(messages)
        if self._generation is None and any(vector is not None for vector in vectors):
            self._describe(random_name())
        return self._generation or "", [None if vector is None else pack(vector) for vector in vectors]

    def similarities(
        self, query: Sequence[float], reader: Reader, filter: Filter, found: Sequence[Found]
    ) -> dict[int, float]:
        """Compare the vectors of messages with that of a query.

        Args:
            query: The query's vector.
            reader: Reads the vectors.
            filter: The filter that found the messages.
            found: The messages.

        Returns:
            The cosine similarities, by the numbers of the messages in the list.

        Raises:
            ConfigurationError: Another process has embedded the messages again, with another embedder.
        """
        from dynamiq_memory.ranking.vectors import similarities  # noqa: PLC0415 - numpy is optional

        if any(self._is_of_another_generation(each.item) for each in found):
            self._check(self._table.get(_ABOUT))
            self._embedder.check_dimension(len(query))
        current = {
            number: key for number, each in enumerate(found) if (key := self._current_key(each.item)) is not None
        }
        if any(number not in current and each.message.text.strip() for number, each in enumerate(found)):
            self._warn()
        stored = reader.vectors(filter, current.values()) if current else {}
        return similarities(query, {number: stored[key] for number, key in current.items() if key in stored})

    def _is_of_another_generation(self, item: Item) -> bool:
        return EMBEDDED in item and item[EMBEDDED]["S"] != self._generation

    def _current_key(self, item: Item) -> ItemKey | None:
        """Return the key of the vector in an item; None if it has none, or one of an older generation."""
        return None if self._is_of_another_generation(item) else stored_version(item).vector_key

    # --- embedding stored messages ---------------------------------------------------------------------------

    def _replace_embedder(self, dimension: int) -> None:
        """Make the embedder the one of the table; begin a new generation unless it already is."""
        about = self._table.get(_ABOUT)
        self._embedder.dimension = dimension
        is_same = (
            about is not None
            and about[_DIMENSION]["N"] == str(dimension)
            and not self._embedder.differs_from(about.get(_NAME, {}).get("S"))
        )
        self._describe(about[_GENERATION]["S"] if about is not None and is_same else random_name(), about)

    def _embed_missing(self, reader: Reader) -> None:
        """Embed messages that have no vector of this generation, in batches that stay if this is interrupted."""
        missing = (
            each
            for each in reader.everything()
            if each.message.text.strip() and (EMBEDDED not in each.item or self._is_of_another_generation(each.item))
        )
        done = 0
        for group in batched(missing, _EMBEDDED_AT_ONCE):
            self._embed_group(group)
            done += len(group)
            logger.info("embedded %d messages of %s", done, self._table.location)

    def _embed_group(self, group: Sequence[Found]) -> None:
        generation, vectors = self.embed([each.message for each in group])
        embedded = [
            (each.item, keys.vector_key(key_in(each.item), each.item[VERSION]["S"], generation), vector)
            for each, vector in zip(group, vectors, strict=True)
            if vector is not None
        ]
        self._table.write_many(
            [other_item(key, {VECTOR: {"B": vector}}, expiry_of(item)) for item, key, vector in embedded]
        )
        unchanged = self._table.set_each([item for item, _, _ in embedded], EMBEDDED, {"S": generation})
        unused = [
            stored_version(item).vector_key if is_unchanged else key
            for (item, key, _), is_unchanged in zip(embedded, unchanged, strict=True)
        ]
        self._table.write_many(delete=[key for key in unused if key is not None])
