"""Rules for names and for a collection's definition.

Checked against `entities/schema/validation.go` and `usecases/schema/class.go` of weaviate/weaviate, and against
https://docs.weaviate.io/weaviate/config-refs/collections.
"""

from __future__ import annotations

import re
from typing import Any

COLLECTION = re.compile(r"[A-Z][_0-9A-Za-z]{0,254}")
PROPERTY = re.compile(r"[_A-Za-z][_0-9A-Za-z]{0,230}")
TENANT = re.compile(r"[A-Za-z0-9\-_]{1,64}")
RESERVED = ("_additional", "_id", "id")
TYPES = ("text", "text[]", "int", "int[]", "number", "number[]", "boolean", "boolean[]", "uuid", "date")
TOKENIZATIONS = ("word", "lowercase", "whitespace", "field", "trigram")
RANGEABLE = ("int", "number", "date")

# The service adds these to a definition, and the client reads them.
DEFAULTS: dict[str, dict[str, Any]] = {
    "invertedIndexConfig": {"cleanupIntervalSeconds": 60},
    "multiTenancyConfig": {"enabled": False, "autoTenantCreation": False, "autoTenantActivation": False},
    "replicationConfig": {"factor": 1, "asyncEnabled": False, "deletionStrategy": "NoAutomatedResolution"},
    "shardingConfig": {
        "virtualPerPhysical": 128,
        "desiredCount": 1,
        "actualCount": 1,
        "desiredVirtualCount": 128,
        "actualVirtualCount": 128,
        "key": "_id",
        "strategy": "hash",
        "function": "murmur3",
    },
}
HNSW: dict[str, Any] = {
    "cleanupIntervalSeconds": 300,
    "distance": "cosine",
    "dynamicEfFactor": 8,
    "dynamicEfMax": 500,
    "dynamicEfMin": 100,
    "ef": -1,
    "efConstruction": 128,
    "filterStrategy": "acorn",
    "flatSearchCutoff": 40000,
    "maxConnections": 32,
    "skip": False,
    "vectorCacheMaxObjects": 1000000000000,
}


class RefusedError(Exception):
    """The service would refuse this."""


def require(holds: object, text: str) -> None:
    if not holds:
        raise RefusedError(text)


def check_collection(definition: dict[str, Any]) -> dict[str, Any]:
    """Check a collection's definition and fill in what the service does."""
    name = definition.get("class", "")
    require(COLLECTION.fullmatch(name), f"'{name}' is not a valid class name")
    seen: set[str] = set()
    for each in definition.get("properties", []):
        own = each["name"]
        require(PROPERTY.fullmatch(own), f"'{own}' is not a valid property name")
        require(own not in RESERVED, f"'{own}' is a reserved property name")
        require(own.lower() not in seen, f"class '{name}': conflict for property '{own}': already in use")
        seen.add(own.lower())
        check_property(each)
    for part, defaults in DEFAULTS.items():
        definition[part] = {**defaults, **definition.get(part, {})}
    index = definition["invertedIndexConfig"]
    index["stopwords"] = {"preset": "en", "additions": None, "removals": None, **index.get("stopwords", {})}
    index["bm25"] = {"b": 0.75, "k1": 1.2, **index.get("bm25", {})}
    preset = index["stopwords"]["preset"]
    require(preset in ("en", "none"), f"stopwordPreset '{preset}' does not exist")
    definition.setdefault("properties", [])
    for vector in definition.setdefault("vectorConfig", {}).values():
        vector.setdefault("vectorIndexType", "hnsw")
        vector["vectorIndexConfig"] = {**HNSW, **vector.get("vectorIndexConfig", {})}
    return definition


def check_property(given: dict[str, Any]) -> None:
    (kind,) = given["dataType"]
    require(kind in TYPES, f"property '{given['name']}': unknown data type '{kind}'")
    is_text = kind in ("text", "text[]")
    tokenization = given.get("tokenization")
    require(is_text or not tokenization, f"tokenization is not allowed for data type '{kind}'")
    require(not tokenization or tokenization in TOKENIZATIONS, f"tokenization '{tokenization}' is not allowed")
    require(is_text or not given.get("indexSearchable"), "`indexSearchable` is allowed only for text/text[] data types")
    rangeable = kind in RANGEABLE
    require(
        rangeable or not given.get("indexRangeFilters"),
        "`indexRangeFilters` is allowed only for number/int/date data types",
    )
    given.setdefault("indexFilterable", True)
    given.setdefault("indexSearchable", is_text)
    given.setdefault("indexRangeFilters", False)
    if is_text and not tokenization:
        given["tokenization"] = "word"
