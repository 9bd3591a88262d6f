"""Where the servers of backends are, and how to sign in: settings, from the environment unless given.

The environment variables are those of the `dynamiq` package. A backend also takes any other object with the same
attributes, such as that package's own connections. Secrets never show in `repr` or an error.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr

__all__ = ["AWS", "Dynamiq", "OpenAI", "Pinecone", "PostgreSQL", "Qdrant"]


def _from_env(name: str, default: Any = None) -> Any:
    return os.environ.get(name) or default


def _region() -> str | None:
    return os.environ.get("AWS_DEFAULT_REGION") or os.environ.get("AWS_REGION") or None


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
