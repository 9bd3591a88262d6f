"""Making a client of DynamoDB."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from zlib import crc32

import boto3
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import BotoCoreError, HTTPClientError

from dynamiq_memory._clients import LazyClient
from dynamiq_memory.backends._urls import check_server
from dynamiq_memory.connections import AWS, plain
from dynamiq_memory.exceptions import ConfigurationError

_ATTRIBUTES = ("access_key_id", "secret_access_key", "region", "profile")


def client_of(
    connection: Any, region: str | None, endpoint_url: str | None, config: Config
) -> tuple[LazyClient[Any], bool]:
    """Return a client, and whether it is made here; otherwise it is owned by the caller.

    Args:
        connection: As `DynamoDB` takes it.
        region: The region, or None for that of the connection.
        endpoint_url: The address of the service, or None to derive it from the region and the environment.
        config: The SDK's settings.

    Raises:
        ConfigurationError: The connection is of the wrong type.
    """
    source = _checked(connection)
    if isinstance(source, BaseClient):
        return LazyClient.given(source, "DynamoDB"), False
    settings = {"region_name": region, "endpoint_url": endpoint_url, "config": config}
    return LazyClient(partial(_client, source, settings), lambda client: client.close()), True


def _client(make_session: Callable[[], boto3.Session], settings: Mapping[str, Any]) -> Any:
    session = make_session()
    try:
        client = session.client("dynamodb", **settings)
    except ValueError as error:
        if isinstance(error, BotoCoreError):
            raise
        # Its text, and so the traceback, may show a password.
        raise ConfigurationError("endpoint_url is not a URL; for example, use https://host:8000") from None
    check_server(client.meta.endpoint_url, "endpoint_url")
    client.meta.events.register("after-call.dynamodb", _check_answer)
    return client


def _check_answer(http_response: Any, **_: Any) -> None:
    """Refuse a damaged answer, which the SDK asks for again, and in the end takes for one without fields."""
    checksum = http_response.headers.get("x-amz-crc32")
    if checksum is not None and int(checksum) != crc32(http_response.content):
        raise HTTPClientError(error="the answer is damaged; a write may have been made or not")


def _checked(connection: Any) -> Any:
    """Return a boto3 client, or a function that makes a boto3 session."""
    if connection is None:
        return partial(_session, AWS())
    if isinstance(connection, BaseClient):
        service = connection.meta.service_model.service_name
        if service != "dynamodb":
            raise ConfigurationError(f'the client is for {service}: make one by session.client("dynamodb")')
        return connection
    client = getattr(getattr(connection, "meta", None), "client", None)
    if isinstance(client, BaseClient):  # boto3.resource("dynamodb")
        return _checked(client)
    if isinstance(connection, boto3.Session):
        return lambda: connection
    if callable(getattr(connection, "get_boto3_session", None)):
        return connection.get_boto3_session  # of the dynamiq package, which finds its own credentials
    if all(hasattr(connection, name) for name in _ATTRIBUTES):
        return partial(_session, connection)
    raise ConfigurationError(
        "connection must be a dynamiq_memory.connections.AWS, a boto3 client or a boto3 session, not a "
        f"{type(connection).__name__}"
    )


def _session(connection: Any) -> boto3.Session:
    arguments = {"region_name": connection.region or None}
    key_id, secret = plain(connection.access_key_id), plain(connection.secret_access_key)
    passed = getattr(connection, "model_fields_set", ())
    keys_first = "access_key_id" in passed and "profile" not in passed
    if connection.profile and not keys_first:
        return boto3.Session(profile_name=connection.profile, **arguments)
    if bool(key_id) != bool(secret):
        missing = "secret_access_key" if key_id else "access_key_id"
        raise ConfigurationError(f"AWS has no {missing}: set both keys, or neither to let boto3 look for them")
    if not key_id:
        return boto3.Session(**arguments)
    token = plain(getattr(connection, "session_token", None)) or None
    return boto3.Session(aws_access_key_id=key_id, aws_secret_access_key=secret, aws_session_token=token, **arguments)
