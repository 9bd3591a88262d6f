"""The fixtures of the DynamoDB tests."""

from tests.dynamodb.fixtures import credentials, endpoint, new_store, store, table_name, watched

__all__ = ["credentials", "endpoint", "new_store", "store", "table_name", "watched"]
