"""Exceptions. All errors that this package raises deliberately derive from `DynamiqMemoryError`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class DynamiqMemoryError(Exception):
    """Base class of this package's errors."""


class InvalidArgumentError(DynamiqMemoryError, ValueError):
    """An argument is invalid; nothing was read or written."""


class ConfigurationError(InvalidArgumentError):
    """A memory, backend or connection is misconfigured; the message says what to change."""


class FilterError(InvalidArgumentError):
    """A filter is malformed."""


class MessageError(InvalidArgumentError):
    """A message cannot be stored or converted as it is; the error names the field, key or content part."""


class MessageTooLargeError(MessageError):
    """A message is too large for the store; nothing was written."""


class MissingDependencyError(DynamiqMemoryError, ImportError):
    """An optional library is not installed; the message gives the `pip install` command."""


class BackendError(DynamiqMemoryError):
    """The store failed or refused the operation; the driver's exception is chained as the cause."""


class BackendConnectionError(BackendError):
    """The store cannot be reached or opened."""


class StoreNotFoundError(BackendConnectionError):
    """The store's file, table or collection does not exist, and is not to be created."""


class BackendAuthenticationError(BackendError):
    """The store rejected the credentials or denied permission."""


class PartialWriteError(BackendError):
    """A batch failed halfway on a store without transactions.

    Attributes:
        stored_ids: Ids of the messages that were stored. It is safe to add the same batch again: a message replaces
            the stored one with the same id.
    """

    def __init__(self, message: str, stored_ids: Sequence[str]) -> None:
        """Create the error from its message and the stored ids."""
        super().__init__(message)
        self.stored_ids = tuple(stored_ids)


class EmbedderError(BackendError):
    """The embedder failed or did not return one vector per text; nothing was written."""


class TransferError(DynamiqMemoryError):
    """A copy, an export or an import stopped. Messages that it has written stay; doing it again goes on from there."""
