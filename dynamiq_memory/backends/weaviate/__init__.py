"""Messages in a Weaviate collection."""

from dynamiq_memory.backends.weaviate.backend import Weaviate

__all__ = ["Weaviate"]

Weaviate.__module__ = __name__
