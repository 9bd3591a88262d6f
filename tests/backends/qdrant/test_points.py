"""Messages as points, and the test server's own rules."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdrant_client import models
from qdrant_client.http.exceptions import UnexpectedResponse

from dynamiq_memory.backends.qdrant import records
from dynamiq_memory.backends.qdrant.client import Address
from dynamiq_memory.testing import say
from tests.fakes.qdrant.server import QdrantServer

TIMES = st.floats(-253_402_300_799.0, 253_402_300_799.0)


@given(TIMES, TIMES)
def test_the_order_of_times_is_that_of_whole_numbers_exact_as_doubles(first: float, second: float) -> None:
    earlier, later = sorted([records.order_of(first), records.order_of(second)])
    assert earlier <= later
    assert (records.order_of(first) <= records.order_of(second)) or first > second
    assert int(float(later)) == later
    assert abs(later) < 2**63


def test_times_next_to_each_other_keep_their_order() -> None:
    now = 1_763_900_000.123456
    assert records.order_of(now) <= records.order_of(math.nextafter(now, math.inf))
    point = records.point_of(say("x", timestamp=now), 7, [], None, None)
    assert records.position_of(point) == (now, 7)


def test_labels_distinguish_types_and_not_equal_numbers() -> None:
    assert records.value_label("k", 7) == records.value_label("k", 7.0)
    assert records.value_label("k", 0.0) == records.value_label("k", -0.0)
    different: list[tuple[str, Any]] = [
        ("k", 1),
        ("k", True),
        ("k", "1"),
        ("k", "True"),
        ("k1", 1),
        ("k", 2**53),
        ("k", 2**53 + 1),
        ("k", 0.1),
    ]
    labels = {records.value_label(key, value) for key, value in different} | {records.key_label("k")}
    assert len(labels) == len(different) + 1


def test_a_point_has_an_id_of_its_own_for_each_session() -> None:
    places = [("u", "s"), ("u", None), (None, "s"), (None, None), ("us", None), ("u", "s2")]
    ids = {records.point_id(say("x", id="same", user=user, session=session)) for user, session in places}
    assert len(ids) == len(places)
    assert records.point_id(say("x", id="same")) == records.point_id(say("y", id="same"))


def test_the_server_refuses_what_a_server_refuses(server: QdrantServer) -> None:
    client = Address(url=server.url).connect()
    client.create_collection("x", vectors_config={"dense": models.VectorParams(size=2, distance=models.Distance.DOT)})
    by_user = models.Filter(must=[models.FieldCondition(key="user_id", match=models.MatchValue(value="u"))])
    identity = "00000000-0000-0000-0000-000000000001"

    def put(name: str | int, vector: dict[str, list[float]], wait: bool = True) -> None:
        client.upsert("x", [models.PointStruct(id=name, vector=vector, payload={"user_id": "u"})], wait=wait)

    for refused, says in (
        (lambda: client.scroll("x", order_by="order"), "No range index"),
        (lambda: client.scroll("x", by_user), "Index required"),
        (lambda: put(identity, {"dense": [1.0]}), "expected dim: 2, got 1"),
        (lambda: put(identity, {"other": [1.0, 2.0]}), "Not existing vector name"),
        (lambda: put("no-uuid", {}), "not a valid point ID"),
        (lambda: client.count("y"), "Not found: Collection"),
    ):
        with pytest.raises(UnexpectedResponse, match=says):
            refused()
    put(identity, {}, wait=False)
    assert client.count("x").count == 0
    put(2, {})
    assert client.count("x").count == 2
    client.close()
