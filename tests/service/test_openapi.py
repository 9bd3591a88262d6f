"""The service against its own OpenAPI description, by schemathesis."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import hypothesis
import pytest

pytest.importorskip("schemathesis")

import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from dynamiq_memory.backends import InMemory
from dynamiq_memory.server.app import create_app
from dynamiq_memory.server.settings import Settings

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
TAGS = ("items", "memory", "operation")


@pytest.fixture(scope="module")
def operations() -> Iterator[list[Any]]:
    with InMemory() as store:
        schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(store, None, Settings(rate=None)))
        yield [cast("Any", result).ok() for result in schema.get_all_operations()]


@pytest.mark.parametrize("tag", TAGS)
def test_every_answer_is_as_described(operations: list[Any], tag: str) -> None:
    mine = [operation for operation in operations if operation.definition.raw["tags"] == [tag]]
    assert mine
    for operation in mine:

        @hypothesis.given(case=operation.as_strategy())
        @hypothesis.settings(max_examples=10)
        def check(case: Any) -> None:
            case.call_and_validate(checks=CHECKS)

        check()
