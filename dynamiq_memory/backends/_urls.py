"""Parsing of backends' URLs with their options, and checks of servers' URLs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from dynamiq_memory.exceptions import ConfigurationError

Readers = Mapping[str, Callable[[str], Any]]


def yes_or_no(text: str) -> bool:
    """Read "true" or "false"."""
    return {"true": True, "false": False}[text]


def check_server(url: object, name: str) -> None:
    """Check that a URL is that of an HTTP server, since libraries fail in obscure ways if it is not.

    Args:
        url: The URL.
        name: Its name in error messages; the URL itself may contain a password.

    Raises:
        ConfigurationError: It is not.
    """
    try:
        parts = urlsplit(url) if isinstance(url, str) and url.isprintable() else None
        valid = parts is not None and parts.scheme in ("http", "https") and parts.port != 0
    except ValueError:
        parts, valid = None, False
    if parts is None or not valid or not parts.hostname or " " in parts.netloc:
        raise ConfigurationError(f"{name} is not a server's URL: use one such as https://host or http://host:8000")


def options_in(query: str, scheme: str, readers: Readers) -> dict[str, Any]:
    """Parse the query of a URL.

    Args:
        query: The URL's query, without "?".
        scheme: The URL's scheme, for error messages; the URL itself may contain a secret.
        readers: A function for each option that parses its value.

    Raises:
        ConfigurationError: An option is unknown or has an invalid value.
    """
    texts = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(texts.keys() - readers.keys())
    if unknown:
        raise ConfigurationError(
            f"this {scheme}:// URL has no option {unknown[0]!r}; its options are {', '.join(sorted(readers))}"
        )
    return read_options(texts, readers)


def read_options(texts: Mapping[str, str], readers: Readers) -> dict[str, Any]:
    """Parse the values of options.

    Raises:
        ConfigurationError: A value is invalid.
    """
    options = {}
    for name, text in texts.items():
        try:
            options[name] = readers[name](text)
        except (KeyError, ValueError):
            kind = _KINDS.get(readers[name], "of another form")
            raise ConfigurationError(f"{name}={text!r} in the URL is invalid: it must be {kind}") from None
    return options


_KINDS: dict[Callable[[str], Any], str] = {int: "a whole number", float: "a number", yes_or_no: "true or false"}
