"""Parsing URLs of backends and of servers."""

from __future__ import annotations

import pytest

from dynamiq_memory.backends._urls import check_server, options_in, yes_or_no
from dynamiq_memory.exceptions import ConfigurationError

READERS = {"name": str, "limit": int, "timeout": float, "create": yes_or_no, "letter": {"a": 1}.__getitem__}


def test_options_are_read():
    query = "name=a%20b&limit=3&timeout=0.5&create=true&letter=a"
    assert options_in(query, "x", READERS) == {
        "name": "a b", "limit": 3, "timeout": 0.5, "create": True, "letter": 1
    }  # fmt: skip
    assert options_in("name=", "x", READERS) == {"name": ""}
    assert options_in("", "x", READERS) == {}


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("nmae=1", "x:// URL has no option 'nmae'; its options are create, letter, limit, name, timeout"),
        ("limit=many", "limit='many' in the URL is invalid: it must be a whole number"),
        ("limit=1.5", "a whole number"),
        ("timeout=soon", "it must be a number"),
        ("create=1", "it must be true or false"),
        ("letter=b", "letter='b' in the URL is invalid"),
    ],
)
def test_errors_name_the_wrong_option(query, said):
    with pytest.raises(ConfigurationError) as caught:
        options_in(query, "x", READERS)
    assert said in str(caught.value)


@pytest.mark.parametrize("url", ["http://host", "https://host:8000/path", "http://[::1]:1", "http://u:p@host"])
def test_urls_of_servers(url):
    check_server(url, "it")


@pytest.mark.parametrize(
    "url",
    [
        None, 7, "", "host", "host:80", "ftp://host", "http://", "http://:80", "http://h:99999", "http://h:abc",
        "http://h:0", "http://[::1", "http://ho st", "http://h\x00:1", "http://pass@word@host:x",
    ],
)  # fmt: skip
def test_other_texts_are_refused_as_a_server(url):
    with pytest.raises(ConfigurationError, match=r"^endpoint is not a server's URL: use one such as") as caught:
        check_server(url, "endpoint")
    assert "word" not in str(caught.value)
