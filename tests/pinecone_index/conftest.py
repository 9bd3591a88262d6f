"""The fixtures of the Pinecone tests."""

from tests.pinecone_index.fixtures import client, connection, module_server, new_store, real_store, server, store

__all__ = ["client", "connection", "module_server", "new_store", "real_store", "server", "store"]
