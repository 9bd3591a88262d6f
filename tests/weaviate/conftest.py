"""The fixtures of the Weaviate tests."""

from tests.weaviate.fixtures import collection_name, connection, new_store, server, store

__all__ = ["collection_name", "connection", "new_store", "server", "store"]
