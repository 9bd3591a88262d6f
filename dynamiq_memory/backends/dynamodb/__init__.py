"""Messages in a DynamoDB table."""

from dynamiq_memory.backends.dynamodb.backend import DynamoDB

__all__ = ["DynamoDB"]

DynamoDB.__module__ = __name__
