"""Run the server: `python -m tests.fakes.weaviate [--api-key KEY] [--grpc-bytes N]`; it prints its two ports."""

from __future__ import annotations

import argparse
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
from weaviate.proto.v1 import weaviate_pb2_grpc

from tests.fakes.weaviate.database import Database
from tests.fakes.weaviate.grpc_api import Weaviate, health
from tests.fakes.weaviate.rest import Handler, Server


def main() -> None:
    """Serve until standard input ends, at the latest when the process that started it ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--api-key", default="")
    parser.add_argument("--grpc-bytes", type=int, default=104_858_000)
    parser.add_argument("--version", default="1.33.4")
    parser.add_argument("--maximum-results", type=int, default=10_000)
    parser.add_argument("--http-port", type=int, default=0)
    parser.add_argument("--grpc-port", type=int, default=0)
    arguments = parser.parse_args()
    database = Database(arguments.maximum_results)
    options = [
        ("grpc.max_receive_message_length", arguments.grpc_bytes),
        ("grpc.max_send_message_length", arguments.grpc_bytes),
    ]
    grpc_server = grpc.server(ThreadPoolExecutor(16), options=options)
    weaviate_pb2_grpc.add_WeaviateServicer_to_server(Weaviate(database, arguments.api_key), grpc_server)
    check = {"Check": grpc.unary_unary_rpc_method_handler(health)}
    grpc_server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", check),))
    grpc_port = grpc_server.add_insecure_port(f"127.0.0.1:{arguments.grpc_port}")
    grpc_server.start()
    rest = Server(("127.0.0.1", arguments.http_port), Handler)
    rest.database, rest.api_key, rest.grpc_bytes = database, arguments.api_key, arguments.grpc_bytes
    rest.version = arguments.version
    threading.Thread(target=rest.serve_forever, daemon=True).start()
    print(rest.server_address[1], grpc_port, flush=True)  # noqa: T201 - read by the process that started it
    while input_left():
        pass
    grpc_server.stop(0)
    # Its clients may have ended without closing their connections: do not wait for them.
    os._exit(0)


def input_left() -> bool:
    """Wait for a line of standard input, and return whether there was one."""
    try:
        input()
    except EOFError:
        return False
    return True


main()
