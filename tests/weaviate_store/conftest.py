"""The fixtures of the Weaviate tests."""

from tests.weaviate_store.fixtures import collection_name, connection, new_store, one_ssl_context, server, store

__all__ = ["collection_name", "connection", "new_store", "one_ssl_context", "server", "store"]
