"""The fixtures of the Pinecone tests."""

from tests.pinecone.fixtures import connection, module_server, new_store, real_store, server, store

__all__ = ["connection", "module_server", "new_store", "real_store", "server", "store"]
