"""Stores as they are named in commands: by a URL, or by a name in the user's file of stores."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from urllib.parse import quote

from dynamiq_memory.backends import create_backend
from dynamiq_memory.backends.base import MemoryBackend
from dynamiq_memory.exceptions import ConfigurationError

_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")


def opened(store: str, *, must_exist: bool = True) -> MemoryBackend:
    """Open a store.

    Args:
        store: A URL, or a name in the file of stores.
        must_exist: Whether a missing store is an error, and is not created.

    Raises:
        ConfigurationError: The name is unknown, a variable is not set, or the URL is wrong.
        StoreNotFoundError: It is missing, and must exist.
        BackendError: The store cannot be opened.
    """
    return create_backend(url_of(store), must_exist=must_exist)


def url_of(store: str) -> str:
    """Return the URL of a store, with variables of the environment in it replaced.

    Raises:
        ConfigurationError: The name is unknown, or a variable is not set.
    """
    if "://" not in store and not store.startswith("$"):
        store = _named(store)
    whole = _VARIABLE.fullmatch(store)
    if whole:
        return _value(whole)
    return _VARIABLE.sub(lambda match: quote(_value(match), safe=""), store)


def file_of_stores() -> Path:
    """Return the path of the file of stores, which may not exist."""
    folder = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(folder) / "dynamiq-memory" / "stores.toml"


def _named(name: str) -> str:
    file = file_of_stores()
    try:
        stores = tomllib.loads(file.read_text())
    except FileNotFoundError:
        stores = {}
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{file} cannot be read: {error}") from None
    url = stores.get(name)
    if isinstance(url, str) and "://" in url.replace("$", "://"):
        return url
    if name in stores:
        raise ConfigurationError(f'{file}: {name} must be a URL, such as {name} = "sqlite:///conversations.db"')
    known = f"; it has {', '.join(sorted(stores))}" if stores else ""
    raise ConfigurationError(
        f"{name!r} is not a URL, nor a name in {file}{known}: for a SQLite file, use sqlite:///{name}"
    )


def _value(match: re.Match[str]) -> str:
    name = match[1] or match[2]
    value = os.environ.get(name)
    if not value:
        raise ConfigurationError(f"the environment has no {name}: set it, or write %24 for a dollar sign in a URL")
    return value
