"""A server for the tests of a process: moto over HTTP, or the server of AWS_ENDPOINT_URL_DYNAMODB."""

from __future__ import annotations

import copy
import json
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from unittest.mock import patch

import pytest

from tests.fakes import REQUIRED

ENDPOINT = "AWS_ENDPOINT_URL_DYNAMODB"


class Handler(BaseHTTPRequestHandler):
    """Hands requests on one after the other, as moto is not made for several threads. Keeps connections."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body of an answer in one packet
    app: Callable[..., Any]
    lock: ClassVar[threading.Lock]
    # Given an operation's name, the code of the error to answer with; None for none.
    fault: Callable[[str], str | None] = staticmethod(lambda _: None)

    def do_POST(self) -> None:
        """Answer a request; the service has no others."""
        from werkzeug.test import EnvironBuilder, run_wsgi_app  # noqa: PLC0415 - only where moto is

        data = self.rfile.read(int(self.headers["Content-Length"]))
        code = self.fault(self.headers["X-Amz-Target"].rpartition(".")[2])
        if code is not None:
            said = {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "it is said AKIAIOSFODNN7EXAMPLE"}
            self.answer(500 if code == "InternalServerError" else 400, [], json.dumps(said).encode())
            return
        with self.lock:
            request = EnvironBuilder(method="POST", path=self.path, headers=list(self.headers.items()), data=data)
            response = run_wsgi_app(type(self).app, request.get_environ(), buffered=True)
        self.answer(int(response[1].split()[0]), response[2], b"".join(response[0]))

    def answer(self, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> None:
        """Send an answer."""
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "server", "date"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def quick_moto() -> Iterator[None]:
    """Spare moto what takes most of the tests' time, and change none of its answers.

    It looks for ten possible names in each attribute's value, where the one that is there needs no translation. It
    copies the whole table for each operation of a transaction, and each item that it reads with all values, where new
    dicts of the same items and values are enough: we change none in place. And it chooses attributes by translating
    the whole item for each of them, where ours are all at the top.
    """
    from moto.core.serialize import JSONSerializer  # noqa: PLC0415
    from moto.dynamodb.models.dynamo_type import Item, LimitedSizeDict  # noqa: PLC0415
    from moto.dynamodb.models.table import Table  # noqa: PLC0415

    structure = JSONSerializer._serialize_type_structure

    def serialize(self: Any, serialized: Any, value: Any, shape: Any, key: str) -> None:
        if shape.name == "AttributeValue" and "B" not in value:  # bytes are translated
            serialized[key] = value
        else:
            structure(self, serialized, value, shape, key)

    def copied(self: Any, _: Any) -> Any:
        new = copy.copy(self)
        new.items = defaultdict(dict, {key: dict(items) for key, items in self.items.items()})
        return new

    def with_attributes(item: Any, names: Iterable[str]) -> Any:
        new = copy.copy(item)
        new.attrs = LimitedSizeDict({name: item.attrs[name] for name in names if name in item.attrs})
        return new

    with (
        patch.object(JSONSerializer, "_serialize_type_structure", serialize),
        patch.object(Table, "__deepcopy__", copied, create=True),
        patch.object(Item, "__deepcopy__", lambda self, _: with_attributes(self, self.attrs)),
        patch.object(Item, "project", lambda self, paths: with_attributes(self, [name for (name,) in paths])),
    ):
        yield


def multiply(table_name: str, item: dict[str, Any], texts: Iterable[str]) -> None:
    """Put copies of an item into a table of moto's, past its API, which would take minutes for many.

    Args:
        table_name: A table in this process.
        item: An item that is there.
        texts: For each copy, the text to append to its keys.
    """
    from moto.dynamodb.models import dynamodb_backends  # noqa: PLC0415
    from moto.dynamodb.models.dynamo_type import DynamoType  # noqa: PLC0415

    tables = [backend.tables for regions in dynamodb_backends.values() for backend in regions.values()]
    (table,) = (each[table_name] for each in tables if table_name in each)
    partition = table.items[DynamoType(item["pk"])]
    original = partition[DynamoType(item["sk"])]
    keys = ("sk", *(name for name in item if name.startswith("at_")))
    for text in texts:
        new = copy.copy(original)
        longer = {name: DynamoType({"S": item[name]["S"] + text}) for name in keys}
        new.attrs = {**original.attrs, **longer}
        new.range_key = longer["sk"]
        partition[new.range_key] = new


@contextmanager
def running() -> Iterator[str]:
    """The URL of a server; one of our own ends with the block."""
    given = os.environ.get(ENDPOINT)
    if given:
        yield given
        return
    try:
        from moto.moto_server.werkzeug_app import create_backend_app  # noqa: PLC0415
    except ImportError as error:
        if REQUIRED:
            raise
        pytest.skip(f"no DynamoDB server can be started: {error!r}")
    app = staticmethod(create_backend_app("dynamodb"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Moto", (Handler,), {"app": app, "lock": threading.Lock()}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    with quick_moto():
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
