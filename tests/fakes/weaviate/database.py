"""The collections of the server and their tenants, and the faults that tests inject."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

from tests.fakes.weaviate.names import TENANT, RefusedError, check_collection, check_property, require
from tests.fakes.weaviate.shard import Shard


class MissingError(RefusedError):
    """It does not exist."""


class Database:
    """Everything that the server stores.

    Attributes:
        lock: Locked while a request is served.
        requests: How often each operation was requested.
        maximum_results: QUERY_MAXIMUM_RESULTS.
    """

    def __init__(self, maximum_results: int) -> None:
        self.maximum_results = maximum_results
        self.lock = threading.RLock()
        self.requests: Counter[str] = Counter()
        self._definitions: dict[str, dict[str, Any]] = {}
        self._shards: dict[str, dict[str, Shard]] = {}
        self._faults: list[dict[str, Any]] = []

    def definition(self, name: str) -> dict[str, Any]:
        if name not in self._definitions:
            raise MissingError(f"could not find class {name} in schema")
        return self._definitions[name]

    def create(self, definition: dict[str, Any]) -> dict[str, Any]:
        checked = check_collection(definition)
        name = checked["class"]
        require(name.lower() not in {each.lower() for each in self._definitions}, f"class name {name} already exists")
        self._definitions[name] = checked
        self._shards[name] = {} if checked["multiTenancyConfig"].get("enabled") else {"": Shard(checked)}
        return checked

    def drop(self, name: str) -> None:
        self._definitions.pop(name, None)
        self._shards.pop(name, None)

    def add_property(self, name: str, given: dict[str, Any]) -> None:
        check_property(given)
        self.definition(name)["properties"].append(given)

    def tenants(self, name: str) -> dict[str, Shard]:
        require(
            self.definition(name)["multiTenancyConfig"].get("enabled"),
            f"multi-tenancy is not enabled for class {name!r}",
        )
        return self._shards[name]

    def add_tenants(self, name: str, tenants: list[str]) -> None:
        held = self.tenants(name)
        for tenant in tenants:
            require(TENANT.fullmatch(tenant), f"'{tenant}' is not a valid tenant name")
            held.setdefault(tenant, Shard(self.definition(name)))

    def shard(self, name: str, tenant: str, *, write: bool = False) -> Shard:
        """The shard for a request."""
        settings = self.definition(name)["multiTenancyConfig"]
        if not settings.get("enabled"):
            require(not tenant, f"class {name} has multi-tenancy disabled, but request was with tenant")
            return self._shards[name][""]
        require(tenant, f"class {name} has multi-tenancy enabled, but request was without tenant")
        if write and settings.get("autoTenantCreation"):
            self.add_tenants(name, [tenant])
        if tenant not in self._shards[name]:
            raise MissingError(f'tenant not found: "{tenant}"')
        return self._shards[name][tenant]

    # --- faults ----------------------------------------------------------------------------------------------

    def ask_for(self, fault: dict[str, Any]) -> None:
        """Let an operation fail.

        Args:
            fault: `operation` (such as "Search", "BatchObjects", "GET /v1/schema"), and what happens: `code` (a
                status of gRPC, or a number of HTTP) with `text`, `delay` in seconds, or for a batch `objects`, the
                numbers of those that fail; `skip` requests before, `times` (1 unless given), and `done`: whether the
                operation is carried out anyway, and only its response lost.
        """
        with self.lock:
            self._faults.append({"skip": 0, "times": 1, "text": "injected", **fault})

    def forget(self) -> None:
        with self.lock:
            self._faults.clear()
            self.requests.clear()

    def fault(self, operation: str) -> dict[str, Any] | None:
        """Count a request, and return how it must fail."""
        with self.lock:
            self.requests[operation] += 1
            due = next((each for each in self._faults if operation.startswith(each["operation"])), None)
            if due is None:
                return None
            if due["skip"]:
                due["skip"] -= 1
                return None
            due["times"] -= 1
            if not due["times"]:
                self._faults.remove(due)
        time.sleep(due.get("delay", 0))
        return due
