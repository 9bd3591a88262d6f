"""The service's own demands on a store: first pages, last pages, and messages that are gone."""

from __future__ import annotations

import httpx

from tests.conftest import NewStore
from tests.service.conftest import item
from tests.service.serving import serving

ITEMS = "/v1/memories/m/items"


def texts(answer: httpx.Response) -> list[str]:
    return [each["data"]["content"][0]["text"] for each in answer.json()["data"]]


def test_pages_go_on_where_a_message_is_gone(new_store: NewStore) -> None:
    with serving(new_store()) as service, service.client() as api:
        api.post("/v1/memories/other/items", json=[item("another memory's", created_at=3.0)])
        api.post(ITEMS, json=[item(f"{n}", created_at=float(n), id=f"id-{n}") for n in range(-3, 6)])
        rests = {"created_at": (2, list(range(-1, 6))), "-created_at": (5, list(range(0, -4, -1)))}
        for sort, (size, rest) in rests.items():
            first = api.get(ITEMS, params={"sort": sort, "page_size": size}).json()
            gone = first["data"][-1]
            assert api.post(f"{ITEMS}/delete", json={"filters": {"message_id": gone["id"]}}).json() == {"deleted": 1}
            behind = api.get(ITEMS, params={"sort": sort, "cursor": first["next_cursor"]})
            assert texts(behind) == [str(n) for n in rest]
            del gone["updated_at"]
            api.post(ITEMS, json=gone)


def test_export_and_both_orders(new_store: NewStore) -> None:
    with serving(new_store()) as service, service.client() as api:
        api.post("/v1/memories/other/items", json=[item("another memory's")])
        api.post(ITEMS, json=[item(f"{n}", user=f"u{n % 2}", created_at=float(n)) for n in range(-40, 700)])
        expected = [str(n) for n in range(-40, 700)]
        upwards = texts(api.get(ITEMS, params={"sort": "created_at", "page_size": 1000}))
        downwards = texts(api.get(ITEMS, params={"page_size": 1000}))
        lines = api.get("/v1/memories/m/export").text.splitlines()
        assert upwards == downwards[::-1] == expected
        assert [line.partition('"text": "')[2].partition('"')[0] for line in lines] == expected
        first = api.get(ITEMS, params={"sort": "created_at", "user_id": "u1", "page_size": 2})
        assert texts(first) == ["-39", "-37"]
