"""Where the servers of backends are, and how to sign in: settings, from the environment unless given.

The environment variables are those of the `dynamiq` package. A backend also takes any other object with the same
attributes, such as that package's own connections. Secrets never show in `repr` or an error.
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
    """A URL without its user, password, query and fragment, to be shown."""
    parsed = urlsplit(url)
    return parsed._replace(netloc=parsed.netloc.rpartition("@")[2], query="", fragment="").geturl()


def plain(secret: SecretStr | str | None) -> str | None:
    """The text of a secret: of ours, or of another package's connection, which may keep a plain string."""
    return secret.get_secret_value() if isinstance(secret, SecretStr) else secret


class Connection(BaseModel):
    """Settings of a connection; nothing is opened."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class PostgreSQL(Connection):
    """A PostgreSQL database.

    Attributes:
        host: The server's name or address, or the folder of its socket; `POSTGRESQL_HOST`, else "localhost".
        port: Its port; `POSTGRESQL_PORT`, else 5432.
        database: The database's name; `POSTGRESQL_DATABASE`, else "db".
        user: Who signs in; `POSTGRESQL_USER`, else "postgres".
        password: The password; `POSTGRESQL_PASSWORD`, else "password".
    """

    host: str = Field(default_factory=partial(_from_env, "POSTGRESQL_HOST", "localhost"))
    port: int = Field(default_factory=partial(_from_env, "POSTGRESQL_PORT", 5432))
    database: str = Field(default_factory=partial(_from_env, "POSTGRESQL_DATABASE", "db"))
    user: str = Field(default_factory=partial(_from_env, "POSTGRESQL_USER", "postgres"))
    password: SecretStr = Field(default_factory=partial(_from_env, "POSTGRESQL_PASSWORD", "password"))


class AWS(Connection):
    """An AWS account and region. What is not set, boto3 looks for in its usual places: shared files, roles.

    Attributes:
        access_key_id: `AWS_ACCESS_KEY_ID`.
        secret_access_key: `AWS_SECRET_ACCESS_KEY`.
        session_token: `AWS_SESSION_TOKEN`; temporary credentials have one.
        region: `AWS_DEFAULT_REGION`, else `AWS_REGION`.
        profile: A profile of the shared files, which then gives the credentials; `AWS_DEFAULT_PROFILE`. Keys that are
            given here go before a profile that only the environment names.
    """

    access_key_id: str | None = Field(default_factory=partial(_from_env, "AWS_ACCESS_KEY_ID"))
    secret_access_key: SecretStr | None = Field(default_factory=partial(_from_env, "AWS_SECRET_ACCESS_KEY"), repr=False)
    session_token: SecretStr | None = Field(default_factory=partial(_from_env, "AWS_SESSION_TOKEN"), repr=False)
    region: str | None = Field(default_factory=_region)
    profile: str | None = Field(default_factory=partial(_from_env, "AWS_DEFAULT_PROFILE"))


class Dynamiq(Connection):
    """The Dynamiq platform, or a service of ours (`dynamiq-memory serve`).

    Attributes:
        url: Its base URL; `DYNAMIQ_URL`, else "https://api.getdynamiq.ai".
        api_key: The API key; `DYNAMIQ_API_KEY`. A service without keys needs none.
        headers: Further headers of each request.
    """

    url: str = Field(default_factory=partial(_from_env, "DYNAMIQ_URL", "https://api.getdynamiq.ai"))
    api_key: SecretStr | None = Field(default_factory=partial(_from_env, "DYNAMIQ_API_KEY"))
    headers: dict[str, str] = Field(default_factory=dict, repr=False)


class OpenAI(Connection):
    """A server with OpenAI's API.

    Attributes:
        api_key: `OPENAI_API_KEY`; None for a server that asks for none.
        url: Its base URL; `OPENAI_URL`, else "https://api.openai.com/v1".
    """

    api_key: SecretStr | None = Field(default_factory=partial(_from_env, "OPENAI_API_KEY"), repr=False)
    url: str = Field(default_factory=partial(_from_env, "OPENAI_URL", "https://api.openai.com/v1"))


class Pinecone(Connection):
    """An account of Pinecone.

    Attributes:
        api_key: `PINECONE_API_KEY`.
        host: Where indexes are managed; `PINECONE_CONTROLLER_HOST`, else Pinecone's own service.
    """

    api_key: SecretStr | None = Field(default_factory=partial(_from_env, "PINECONE_API_KEY"), repr=False)
    host: str | None = Field(default_factory=partial(_from_env, "PINECONE_CONTROLLER_HOST"))


class Qdrant(Connection):
    """A Qdrant server.

    Attributes:
        url: `QDRANT_URL`, else "http://localhost:6333".
        api_key: `QDRANT_API_KEY`; None for a server that asks for none.
    """

    url: str = Field(default_factory=partial(_from_env, "QDRANT_URL", "http://localhost:6333"))
    api_key: SecretStr | None = Field(default_factory=partial(_from_env, "QDRANT_API_KEY"), repr=False)


class WeaviateDeploymentType(StrEnum):
    """Where a Weaviate server runs."""

    WEAVIATE_CLOUD = "weaviate_cloud"
    CUSTOM = "custom"


class Weaviate(Connection):
    """A Weaviate server: by its URL, or by the hosts and ports of HTTP and gRPC.

    Attributes:
        deployment_type: "custom" prefers the hosts, "weaviate_cloud" the URL, where both are set.
        api_key: `WEAVIATE_API_KEY`; None for a server that asks for none.
        url: `WEAVIATE_URL`, such as "https://name.weaviate.cloud" or "http://localhost:8080".
        http_host: `WEAVIATE_HTTP_HOST`.
        http_port: `WEAVIATE_HTTP_PORT`, else 443.
        http_secure: Whether HTTP is over TLS; without a URL, it is.
        grpc_host: `WEAVIATE_GRPC_HOST`, else the host of HTTP, or what the cloud calls it.
        grpc_port: `WEAVIATE_GRPC_PORT`, else 50051; the cloud has its own.
        grpc_secure: Whether gRPC is over TLS; by default as HTTP.
        timeout_init: Seconds to wait for the server when it is opened.
        timeout_query: Seconds to wait for an answer.
        timeout_insert: Seconds to wait for a write.
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
    timeout_query: float = Field(default=180.0, gt=0)
    timeout_insert: float = Field(default=120.0, gt=0)
