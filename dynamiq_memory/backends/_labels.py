"""The embedders of a store's vectors, for stores that keep with each message the name of the one that read its text.

This name is the message's label; "" is that of an embedder without a name. A search compares the vector of a query with
those of its own embedder only. Messages without its label are embedded again with `reindex=True`, in batches: this goes
on where it was interrupted, and several processes may do it at once. Until then, these messages are ranked by words.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

from dynamiq_memory.backends._embedding import MessageEmbedder
from dynamiq_memory.backends.plans import Plan

logger = logging.getLogger(__name__)

T = TypeVar("T")

_AT_ONCE = 100


class VectorLabels(ABC, Generic[T]):
    """The labels of a store's vectors; T is a message as the store reads it.

    Args:
        embedder: The embedder.
        location: The store, for the log.

    Attributes:
        accepted: The labels of vectors that can be compared with the embedder's.
    """

    def __init__(self, embedder: MessageEmbedder, location: str) -> None:
        """Accept the label of the embedder, and that of one without a name."""
        self._embedder = embedder
        self._location = location
        self.accepted = list(dict.fromkeys([embedder.label, ""]))

    @abstractmethod
    def any_label(self, *, accepted: bool) -> Plan[str | None]:
        """Return the label of a vector with an accepted label, or of one with another; None if there is none."""

    @abstractmethod
    def missing(self, limit: int) -> Plan[Sequence[T]]:
        """Read up to this number of messages without an accepted label."""

    @abstractmethod
    def embed(self, messages: Sequence[T]) -> Plan[None]:
        """Embed messages and label them, unless they were deleted since they were read."""

    def open(self, *, reindex: bool) -> Plan[None]:
        """Check which embedder made the vectors, and embed the messages that have none of this one.

        Args:
            reindex: Whether to embed them. Otherwise a warning says that there are some.

        Raises:
            ConfigurationError: All vectors are of another embedder, and `reindex` is False, or the embedder's have
                another dimension.
        """
        if reindex:
            self._embedder.check_dimension(self._embedder.measured_dimension())
        other = yield from self._other()
        if other is not None and not reindex and (yield from self.any_label(accepted=True)) is None:
            self._embedder.check_name(other)
        done = 0
        while messages := (yield from self.missing(_AT_ONCE if reindex else 1)):
            if not reindex:
                logger.warning(
                    "%s has messages that were stored without this embedder: they are ranked by words alone, until it "
                    "is opened with reindex=True",
                    self._location,
                )
                return
            yield from self.embed(messages)
            done += len(messages)
            logger.info("embedded %d messages of %s", done, self._location)

    def _other(self) -> Plan[str | None]:
        """Accept the labels of embedders that may be this one, and return one of another embedder."""
        while (label := (yield from self.any_label(accepted=False))) is not None:
            if self._embedder.differs_from(label or None):
                return label
            self.accepted.append(label)
        return None
