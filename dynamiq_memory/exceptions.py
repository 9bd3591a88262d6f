"""Every error that the package raises on purpose derives from `DynamiqMemoryError`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class DynamiqMemoryError(Exception):
    """Base of all errors of this package."""


class InvalidArgumentError(DynamiqMemoryError, ValueError):
    """A call's arguments are wrong; nothing was read or written."""


class ConfigurationError(InvalidArgumentError):
    """A memory, backend or connection is set up wrongly; the text says what to change."""


class FilterError(InvalidArgumentError):
    """A filter has a shape that the filter language does not know."""


class MessageError(InvalidArgumentError):
    """A message cannot be stored as it is given; the text names the field or key."""


class MessageTooLargeError(MessageError):
    """A message exceeds what the store can hold; raised before anything is written."""


class MissingDependencyError(DynamiqMemoryError, ImportError):
    """An optional library is not installed; the text gives the `pip install` line."""


class BackendError(DynamiqMemoryError):
    """The store failed or refused; the driver's own exception is chained as the cause."""


class BackendConnectionError(BackendError):
    """The store cannot be reached or opened."""


class BackendAuthenticationError(BackendError):
    """The store refused the credentials or the permission."""


class PartialWriteError(BackendError):
    """A batch failed halfway on a store without transactions.

    Attributes:
        stored_ids: Ids of the messages that are in the store. Adding the same batch again is safe, because
            the same id replaces.
    """

    def __init__(self, message: str, stored_ids: Sequence[str]) -> None:
        """Keep the text and the ids."""
        super().__init__(message)
        self.stored_ids = tuple(stored_ids)


class EmbedderError(BackendError):
    """The embedder failed, or gave what is no vector for each text; nothing was written."""
