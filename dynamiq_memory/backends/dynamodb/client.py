"""Making a client of DynamoDB, and what may be given instead of one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import boto3
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from dynamiq_memory.backends._urls import check_server
from dynamiq_memory.connections import AWS
from dynamiq_memory.exceptions import ConfigurationError

_ATTRIBUTES = ("access_key_id", "secret_access_key", "region", "profile")


@dataclass(frozen=True, slots=True)
class Settings:
    """How to talk to the service.

    Attributes:
        region: The region, or None for that of the connection.
        endpoint_url: Where the service is, or None for what the region and the environment say.
        max_attempts: How often the SDK tries a request.
        connect_timeout: Seconds to wait for a connection.
        read_timeout: Seconds to wait for an answer.
        max_connections: At most so many connections.
    """

    region: str | None
    endpoint_url: str | None = field(repr=False)
    max_attempts: int
    connect_timeout: float
    read_timeout: float
    max_connections: int


def check_connection(connection: Any) -> Any:
    """Check what was given as a connection.

    Returns:
        A session of boto3's, an object that makes one or has the attributes of `dynamiq_memory.connections.AWS`, or a
        client.

    Raises:
        ConfigurationError: It is none of these.
    """
    if connection is None:
        return AWS()
    if isinstance(connection, BaseClient):
        service = connection.meta.service_model.service_name
        if service != "dynamodb":
            raise ConfigurationError(f'the client is one of {service}: make one by session.client("dynamodb")')
        return connection
    client = getattr(getattr(connection, "meta", None), "client", None)
    if isinstance(client, BaseClient):  # boto3.resource("dynamodb")
        return check_connection(client)
    if (
        isinstance(connection, boto3.Session)
        or _makes_sessions(connection)
        or all(hasattr(connection, name) for name in _ATTRIBUTES)
    ):
        return connection
    raise ConfigurationError(
        "connection must be a dynamiq_memory.connections.AWS, a boto3 client or a boto3 session, not a "
        f"{type(connection).__name__}"
    )


def make_client(connection: Any, settings: Settings) -> Any:
    """Make a client of our own.

    Raises:
        ConfigurationError: A key of a pair is missing, or endpoint_url is no URL.
        botocore.exceptions.BotoCoreError: The region or the profile is missing.
    """
    if _makes_sessions(connection):
        session = connection.get_boto3_session()
    else:
        session = connection if isinstance(connection, boto3.Session) else _session(connection)
    config = Config(
        retries={"mode": "adaptive", "total_max_attempts": settings.max_attempts},
        connect_timeout=settings.connect_timeout,
        read_timeout=settings.read_timeout,
        max_pool_connections=settings.max_connections,
        tcp_keepalive=True,
        user_agent_extra="dynamiq-memory",
    )
    try:
        client = session.client(
            "dynamodb", region_name=settings.region, endpoint_url=settings.endpoint_url, config=config
        )
    except ValueError as error:
        if isinstance(error, BotoCoreError):
            raise
        # Its text, and so the traceback, may show a password.
        raise ConfigurationError("endpoint_url is no URL: write one such as https://host:8000") from None
    check_server(client.meta.endpoint_url, "endpoint_url")
    return client


def _makes_sessions(connection: Any) -> bool:
    """Whether it is a connection of the dynamiq package's, which knows how its own credentials are found."""
    return callable(getattr(connection, "get_boto3_session", None))


def _session(connection: Any) -> boto3.Session:
    arguments = {"region_name": connection.region or None}
    key_id, secret = _plain(connection.access_key_id), _plain(connection.secret_access_key)
    given = getattr(connection, "model_fields_set", ())
    keys_first = "access_key_id" in given and "profile" not in given
    if connection.profile and not keys_first:
        return boto3.Session(profile_name=connection.profile, **arguments)
    if bool(key_id) != bool(secret):
        missing = "secret_access_key" if key_id else "access_key_id"
        raise ConfigurationError(f"AWS has no {missing}: give both keys, or neither to let boto3 look for them")
    if not key_id:
        return boto3.Session(**arguments)
    token = _plain(getattr(connection, "session_token", None)) or None
    return boto3.Session(aws_access_key_id=key_id, aws_secret_access_key=secret, aws_session_token=token, **arguments)


def _plain(secret: Any) -> str | None:
    plain: str | None = secret.get_secret_value() if hasattr(secret, "get_secret_value") else secret
    return plain
