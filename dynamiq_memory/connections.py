"""Connection settings: where a backend's server is and how to sign in. Unset values come from the environment.

The environment variables are the same as in the `dynamiq` package. Backends also accept any other object with the same
attributes, such as that package's own connections. Secrets never appear in `repr` or in errors.
"""

from __future__ import annotations

import os
from enum import StrEnum
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr

__all__ = ["AWS", "Dynamiq", "OpenAI", "Pinecone", "PostgreSQL", "Qdrant", "Weaviate", "WeaviateDeploymentType"]


def _from_env(name: str, default: Any = None) -> Any:
    return os.environ.get(name) or default


def _region() -> str | None:
    return os.environ.get("AWS_DEFAULT_REGION") or os.environ.get("AWS_REGION") or None


def without_secrets(url: str) -> str:
    """Remove the user, password, query and fragment from a URL so that it can be shown."""
    parsed = urlsplit(url)
    return parsed._replace(netloc=parsed.netloc.rpartition("@")[2], query="", fragment="").geturl()


def plain(secret: SecretStr | str | None) -> str | None:
    """Return a secret's text. Connections of other packages may hold a plain string."""
    return secret.get_secret_value() if isinstance(secret, SecretStr) else secret


class Connection(BaseModel):
    """Base class of connection settings. Creating one opens no connection."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class PostgreSQL(Connection):
    """A PostgreSQL database.

    Attributes:
        host: Host name, address, or directory of the Unix socket. Defaults to `POSTGRESQL_HOST`, then "localhost".
        port: Defaults to `POSTGRESQL_PORT`, then 5432.
        database: Database name. Defaults to `POSTGRESQL_DATABASE`, then "db".
        user: Defaults to `POSTGRESQL_USER`, then "postgres".
        password: Defaults to `POSTGRESQL_PASSWORD`, then "password".
    """

    host: str = Field(default_factory=partial(_from_env, "POSTGRESQL_HOST", "localhost"))
    port: int = Field(default_factory=partial(_from_env, "POSTGRESQL_PORT", 5432))
    database: str = Field(default_factory=partial(_from_env, "POSTGRESQL_DATABASE", "db"))
    user: str = Field(default_factory=partial(_from_env, "POSTGRESQL_USER", "postgres"))
    password: SecretStr = Field(default_factory=partial(_from_env, "POSTGRESQL_PASSWORD", "password"))


class AWS(Connection):
    """An AWS account and region. For unset values, boto3 searches its usual sources: shared files and roles.

    Attributes:
        access_key_id: Defaults to `AWS_ACCESS_KEY_ID`.
        secret_access_key: Defaults to `AWS_SECRET_ACCESS_KEY`.
        session_token: Session token of temporary credentials. Defaults to `AWS_SESSION_TOKEN`.
        region: Defaults to `AWS_DEFAULT_REGION`, then `AWS_REGION`.
        profile: Profile in the shared files that supplies the credentials. Defaults to `AWS_DEFAULT_PROFILE`. Keys
            passed here take precedence over a profile that only the environment names.
    """

    access_key_id: str | None = Field(default_factory=partial(_from_env, "AWS_ACCESS_KEY_ID"))
    secret_access_key: SecretStr | None = Field(default_factory=partial(_from_env, "AWS_SECRET_ACCESS_KEY"), repr=False)
    session_token: SecretStr | None = Field(default_factory=partial(_from_env, "AWS_SESSION_TOKEN"), repr=False)
    region: str | None = Field(default_factory=_region)
    profile: str | None = Field(default_factory=partial(_from_env, "AWS_DEFAULT_PROFILE"))


class Dynamiq(Connection):
    """The Dynamiq platform, or a `dynamiq-memory serve` service.

    Attributes:
        url: Base URL. Defaults to `DYNAMIQ_URL`, then "https://api.getdynamiq.ai".
        api_key: API key. Defaults to `DYNAMIQ_API_KEY`. Not needed for a service without keys.
        headers: Additional headers for each request.
    """

    url: str = Field(default_factory=partial(_from_env, "DYNAMIQ_URL", "https://api.getdynamiq.ai"))
    api_key: SecretStr | None = Field(default_factory=partial(_from_env, "DYNAMIQ_API_KEY"))
    headers: dict[str, str] = Field(default_factory=dict, repr=False)


class OpenAI(Connection):
    """A server with OpenAI's API.

    Attributes:
        api_key: Defaults to `OPENAI_API_KEY`. None for a server that requires no key.
        url: Base URL. Defaults to `OPENAI_URL`, then "https://api.openai.com/v1".
    """

    api_key: SecretStr | None = Field(default_factory=partial(_from_env, "OPENAI_API_KEY"), repr=False)
    url: str = Field(default_factory=partial(_from_env, "OPENAI_URL", "https://api.openai.com/v1"))


class Pinecone(Connection):
    """A Pinecone account.

    Attributes:
        api_key: Defaults to `PINECONE_API_KEY`.
        host: URL of the API that manages indexes. Defaults to `PINECONE_CONTROLLER_HOST`, then Pinecone's own service.
    """

    api_key: SecretStr | None = Field(default_factory=partial(_from_env, "PINECONE_API_KEY"), repr=False)
    host: str | None = Field(default_factory=partial(_from_env, "PINECONE_CONTROLLER_HOST"))


class Qdrant(Connection):
    """A Qdrant server.

    Attributes:
        url: Defaults to `QDRANT_URL`, then "http://localhost:6333".
        api_key: Defaults to `QDRANT_API_KEY`. None for a server that requires no key.
    """

    url: str = Field(default_factory=partial(_from_env, "QDRANT_URL", "http://localhost:6333"))
    api_key: SecretStr | None = Field(default_factory=partial(_from_env, "QDRANT_API_KEY"), repr=False)


class WeaviateDeploymentType(StrEnum):
    """Where a Weaviate server runs."""

    WEAVIATE_CLOUD = "weaviate_cloud"
    CUSTOM = "custom"


class Weaviate(Connection):
    """A Weaviate server, given by its URL or by the hosts and ports of HTTP and gRPC.

    Attributes:
        deployment_type: If both a URL and hosts are set, "custom" uses the hosts and "weaviate_cloud" the URL.
        api_key: Defaults to `WEAVIATE_API_KEY`. None for a server that requires no key.
        url: A URL such as "https://name.weaviate.cloud" or "http://localhost:8080". Defaults to `WEAVIATE_URL`.
        http_host: Defaults to `WEAVIATE_HTTP_HOST`.
        http_port: Defaults to `WEAVIATE_HTTP_PORT`, then 443.
        http_secure: Whether HTTP uses TLS, for `http_host`. Defaults to True. With `url`, the URL's scheme decides.
        grpc_host: Defaults to `WEAVIATE_GRPC_HOST`, then the HTTP host; Weaviate Cloud has its own.
        grpc_port: Defaults to `WEAVIATE_GRPC_PORT`, then 50051; Weaviate Cloud has its own.
        grpc_secure: Whether gRPC uses TLS. Defaults to the setting for HTTP.
        timeout_init: Seconds to wait for the server when connecting.
        timeout_query: Seconds to wait for a response, also if the connection is lost. Defaults to 60.
        timeout_insert: The same for a write. Defaults to 90.
    """

    deployment_type: WeaviateDeploymentType = WeaviateDeploymentType.WEAVIATE_CLOUD
    api_key: SecretStr | None = Field(default_factory=partial(_from_env, "WEAVIATE_API_KEY"), repr=False)
    url: str | None = Field(default_factory=partial(_from_env, "WEAVIATE_URL"))
    http_host: str | None = Field(default_factory=partial(_from_env, "WEAVIATE_HTTP_HOST"))
    http_port: int = Field(default_factory=partial(_from_env, "WEAVIATE_HTTP_PORT", 443))
    http_secure: bool | None = None
    grpc_host: str | None = Field(default_factory=partial(_from_env, "WEAVIATE_GRPC_HOST"))
    grpc_port: int = Field(default_factory=partial(_from_env, "WEAVIATE_GRPC_PORT", 50051))
    grpc_secure: bool | None = None
    timeout_init: float = Field(default=30.0, gt=0)
    timeout_query: float = Field(default=60.0, gt=0)
    timeout_insert: float = Field(default=90.0, gt=0)
