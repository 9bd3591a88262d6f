"""Reading URLs: of backends with their options, and of servers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from dynamiq_memory.exceptions import ConfigurationError

Readers = Mapping[str, Callable[[str], Any]]


def yes_or_no(text: str) -> bool:
    """Read "true" or "false"."""
    return {"true": True, "false": False}[text]


def check_server(url: object, what: str) -> None:
    """Check that a URL is one of a server over HTTP, before a library fails at it in its own way.

    Args:
        url: What was given.
        what: What to call it in an error: the URL itself may hold a password.

    Raises:
        ConfigurationError: It is none.
    """
    try:
        parts = urlsplit(url) if isinstance(url, str) and url.isprintable() else None
        right = parts is not None and parts.scheme in ("http", "https") and parts.port != 0
    except ValueError:
        parts, right = None, False
    if parts is None or not right or not parts.hostname or " " in parts.netloc:
        raise ConfigurationError(f"{what} is no URL of a server: write one such as https://host or http://host:8000")


def options_in(query: str, scheme: str, readers: Readers) -> dict[str, Any]:
    """Read the query of a URL, none of whose options is unknown.

    Args:
        query: The URL's query, without "?".
        scheme: The URL's scheme, for errors: the URL itself may hold a secret.
        readers: What reads each option that there is.

    Raises:
        ConfigurationError: An option is unknown, or cannot be read.
    """
    given = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(given.keys() - readers.keys())
    if unknown:
        raise ConfigurationError(
            f"this {scheme}:// URL has no option {unknown[0]!r}; its options are {', '.join(sorted(readers))}"
        )
    return read_options(given, readers)


def read_options(given: Mapping[str, str], readers: Readers) -> dict[str, Any]:
    """Read the values of options.

    Raises:
        ConfigurationError: One cannot be read.
    """
    options = {}
    for name, text in given.items():
        try:
            options[name] = readers[name](text)
        except (KeyError, ValueError):
            kind = _KINDS.get(readers[name], "of another form")
            raise ConfigurationError(f"{name}={text!r} in the URL is wrong: it must be {kind}") from None
    return options


_KINDS: dict[Callable[[str], Any], str] = {int: "a whole number", float: "a number", yes_or_no: "true or false"}
