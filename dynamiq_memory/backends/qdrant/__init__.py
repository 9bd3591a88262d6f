"""Messages in a Qdrant collection."""

from dynamiq_memory.backends.qdrant.backend import Qdrant

__all__ = ["Qdrant"]

Qdrant.__module__ = __name__
