"""The objects of a collection, or of one of its tenants: stored, indexed, filtered, ranked.

Checked against `adapters/repos/db/inverted/searcher.go` and `row_reader.go` (what filters mean: a text is tokenised,
stop words are dropped, NotEqual is all but Equal), `adapters/repos/db/inverted/bm25_searcher.go` (statistics are those
of the whole shard, not of what a filter allows; a server 1.39 does not page equal scores in one order) and `usecases/traverser/hybrid` (fusion) of weaviate/weaviate.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.fakes.weaviate.names import RefusedError, require

# Some of the preset "en": enough to notice a collection with stop words.
STOP_WORDS = frozenset(
    ("a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "is", "it", "of", "the")
)


def tokens(tokenization: str, text: str) -> list[str]:
    """Split a text as the service does."""
    if tokenization == "field":
        return [text.strip()]
    if tokenization == "whitespace":
        return text.split()
    if tokenization == "lowercase":
        return text.lower().split()
    return [each for each in re.split(r"[^0-9a-z]+", text.lower()) if each]


@dataclass
class Stored:
    uuid: str
    properties: dict[str, Any]
    vectors: dict[str, Any]


@dataclass
class Shard:
    """Objects with the same index.

    Attributes:
        definition: The collection's.
        objects: The stored objects by their ids, in the order of arrival.
    """

    definition: dict[str, Any]
    objects: dict[str, Stored] = field(default_factory=dict)
    _rows: dict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict(set))
    _counts: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)
    # How many tokens each object has in a property.
    _lengths: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))

    @property
    def properties(self) -> dict[str, dict[str, Any]]:
        return {each["name"]: each for each in self.definition["properties"]}

    # --- writing ---------------------------------------------------------------------------------------------

    def put(self, uuid: str, properties: dict[str, Any], vectors: dict[str, Any]) -> None:
        """Store an object; it replaces one with the same id."""
        self._check(properties, vectors)
        self.remove(uuid)
        arrays = {name: np.array(vector, dtype=np.float32) for name, vector in vectors.items()}
        self.objects[uuid] = Stored(uuid, properties, arrays)
        for name, value in properties.items():
            if isinstance(value, str | list):
                found = Counter(self._tokens(name, value))
                self._counts[uuid, name] = found
                self._lengths[name][uuid] = found.total()
                for token in found:
                    self._rows[name, token].add(uuid)

    def merge(self, uuid: str, properties: dict[str, Any], vectors: dict[str, Any]) -> bool:
        """Change properties and vectors of an object; return whether it is stored."""
        stored = self.objects.get(uuid)
        if stored is None:
            return False
        numbers = {name: float(value) if type(value) is int else value for name, value in properties.items()}
        self.put(uuid, stored.properties | numbers, stored.vectors | vectors)
        return True

    def remove(self, uuid: str) -> bool:
        stored = self.objects.pop(uuid, None)
        if stored is None:
            return False
        for name in stored.properties:
            self._lengths[name].pop(uuid, None)
            for token in self._counts.pop((uuid, name), ()):
                self._rows[name, token].discard(uuid)
                if not self._rows[name, token]:
                    del self._rows[name, token]
        return True

    def _check(self, properties: dict[str, Any], vectors: dict[str, Any]) -> None:
        known = self.properties
        for name, value in properties.items():
            # With AUTOSCHEMA_ENABLED=true the service would add the property.
            require(name in known, f"no such prop with name '{name}' found in class '{self.definition['class']}'")
            (kind,) = known[name]["dataType"]
            fits = {
                "text": isinstance(value, str),
                "text[]": isinstance(value, list) and all(isinstance(each, str) for each in value),
                "int": isinstance(value, float) and value.is_integer(),
                "number": isinstance(value, float),
                "boolean": isinstance(value, bool),
            }
            require(fits.get(kind), f"invalid {kind} property '{name}' on class '{self.definition['class']}'")
        for name, vector in vectors.items():
            require(name in self.definition["vectorConfig"], f"vector named {name!r} is not configured")
            self._check_length(name, vector)

    def _check_length(self, name: str, vector: Any) -> None:
        require(len(vector) > 0, "vector is empty")
        for other in self.objects.values():
            if name in other.vectors:
                known = len(other.vectors[name])
                text = (
                    f"new node has a vector with length {len(vector)}. Existing nodes have vectors with length {known}"
                )
                require(known == len(vector), text)
                return

    def _tokens(self, name: str, value: str | list[str]) -> list[str]:
        given = self.properties[name]
        if not given["indexFilterable"] and not given["indexSearchable"]:
            return []
        texts = [value] if isinstance(value, str) else value
        return [token for text in texts for token in tokens(given["tokenization"], text)]

    # --- filters ---------------------------------------------------------------------------------------------

    def matching(self, clause: dict[str, Any] | None, within: set[str] | None = None) -> set[str]:
        """The ids of the objects that meet a clause (as `clause_of` of the gRPC module reads it)."""
        everything = set(self.objects) if within is None else within
        if clause is None:
            return everything
        operator = clause["operator"]
        if operator in ("And", "Or"):
            require(clause["operands"], f"operator '{operator}' needs operands")
            # Rows of the index first: comparing numbers means reading each object.
            ordered = sorted(clause["operands"], key=lambda each: "operands" in each or "Than" in each["operator"])
            if operator == "Or":
                return set().union(*(self.matching(each, everything) for each in ordered))
            for each in ordered:
                everything = self.matching(each, everything)
            return everything
        return everything & self._leaf(clause, everything)

    def _leaf(self, clause: dict[str, Any], within: set[str]) -> set[str]:
        name, operator, kind, value = clause["on"], clause["operator"], clause["type"], clause["value"]
        if name in ("_id", "id"):
            require(kind in ("text", "text[]"), "an id is filtered by text")
            return {value} & within if operator == "Equal" else set(value) & within
        known = self.properties
        require(name in known, f"no such prop with name '{name}' found in class '{self.definition['class']}'")
        (data_type,) = known[name]["dataType"]
        expected = data_type.removesuffix("[]")
        wanted = f"{expected}[]" if operator.startswith("Contains") else expected
        text = f'data type filter cannot use "{kind}" on type "{data_type}", use "{wanted}" instead'
        require(kind == wanted, text)
        indexed = known[name]["indexFilterable"] or known[name]["indexRangeFilters"] or known[name]["indexSearchable"]
        require(
            indexed, f"Filtering by property '{name}' requires inverted index. Is `indexFilterable` option enabled?"
        )
        if operator == "ContainsAny":
            return set().union(*(self._one(name, "Equal", expected, each, within) for each in value))
        if operator == "ContainsAll":
            return set.intersection(*(self._one(name, "Equal", expected, each, within) for each in value))
        return self._one(name, operator, expected, value, within)

    def _one(self, name: str, operator: str, kind: str, value: Any, within: set[str]) -> set[str]:
        if kind == "text":
            return self._text(name, operator, value)
        compare = {
            "Equal": lambda held: held == value,
            "NotEqual": lambda held: held != value,
            "GreaterThan": lambda held: held > value,
            "GreaterThanEqual": lambda held: held >= value,
            "LessThan": lambda held: held < value,
            "LessThanEqual": lambda held: held <= value,
        }
        require(operator in compare, f"operator {operator} not supported")
        held = ((uuid, self.objects[uuid].properties.get(name)) for uuid in within)
        return {uuid for uuid, number in held if number is not None and compare[operator](number)}

    def _text(self, name: str, operator: str, value: str) -> set[str]:
        require(operator in ("Equal", "NotEqual"), f"{operator} of texts is not served here")
        found = tokens(self.properties[name]["tokenization"], value)
        kept = [token for token in found if not self._is_stop_word(token)]
        require(
            kept,
            "invalid search term, only stopwords provided. Stopwords can be configured in "
            "class.invertedIndexConfig.stopwords",
        )
        rows = set.intersection(*(self._rows.get((name, token), set()) for token in kept))
        return set(self.objects) - rows if operator == "NotEqual" else rows

    def _is_stop_word(self, token: str) -> bool:
        return self.definition["invertedIndexConfig"]["stopwords"]["preset"] == "en" and token in STOP_WORDS

    # --- ranking ---------------------------------------------------------------------------------------------

    def bm25(self, query: str, names: list[str], allowed: set[str], page: tuple[int, int]) -> list[tuple[str, float]]:
        """Rank by words: ids and scores, best first. The order of equal scores depends on the page that is asked for."""
        scores: defaultdict[str, float] = defaultdict(float)
        settings = self.definition["invertedIndexConfig"]["bm25"]
        for name in names:
            require(name in self.properties, f"no such prop with name '{name}' found in class")
            given = self.properties[name]
            require(given["indexSearchable"], f"{name} does not have a searchable index (indexSearchable: false)")
            lengths = self._lengths[name]
            average = sum(lengths.values()) / max(1, len(lengths))
            for token in dict.fromkeys(tokens(given["tokenization"], query)):
                rows = set() if self._is_stop_word(token) else self._rows.get((name, token), set())
                idf = math.log(1 + (len(self.objects) - len(rows) + 0.5) / (len(rows) + 0.5))
                for uuid in rows & allowed:
                    count = self._counts[uuid, name][token]
                    norm = settings["k1"] * (1 - settings["b"] + settings["b"] * lengths[uuid] / average)
                    scores[uuid] += idf * count / (count + norm)
        return sorted(scores.items(), key=lambda each: (-each[1], zlib.crc32(f"{each[0]}{page}".encode())))

    def nearest(self, name: str, vector: Any, allowed: set[str]) -> list[tuple[str, float]]:
        """Rank by vectors: ids and cosine distances, nearest first; objects without a vector are left out."""
        require(name in self.definition["vectorConfig"], f"vector named {name!r} is not configured")
        distance = self.definition["vectorConfig"][name]["vectorIndexConfig"]["distance"]
        require(distance == "cosine", f"distance {distance} is not served here")
        found = [uuid for uuid in self.objects if uuid in allowed and name in self.objects[uuid].vectors]
        if not found:
            return []
        matrix = np.stack([self.objects[uuid].vectors[name] for uuid in found])
        known = matrix.shape[1]
        require(known == len(vector), f"vector lengths don't match: {known} vs {len(vector)}")
        query = np.array(vector, dtype=np.float32)
        norms = np.linalg.norm(matrix, axis=1) * np.linalg.norm(query)
        distances = 1 - np.divide(matrix @ query, norms, out=np.zeros(len(found), np.float32), where=norms != 0)
        order = np.argsort(distances, kind="stable")
        return [(found[number], float(distances[number])) for number in order]


def fused(
    keyword: Iterable[tuple[str, float]], near: Iterable[tuple[str, float]], alpha: float, *, relative: bool
) -> list[tuple[str, float]]:
    """Fuse two rankings as the service's hybrid search does."""
    scores: defaultdict[str, float] = defaultdict(float)
    for weight, ranking in ((1 - alpha, dict(keyword)), (alpha, {uuid: -distance for uuid, distance in near})):
        if not ranking or not weight:
            continue
        low, high = min(ranking.values()), max(ranking.values())
        for place, (uuid, score) in enumerate(sorted(ranking.items(), key=lambda each: -each[1])):
            part = (1.0 if high == low else (score - low) / (high - low)) if relative else 1 / (60 + place)
            scores[uuid] += weight * part
    return sorted(scores.items(), key=lambda each: -each[1])


__all__ = ["RefusedError", "Shard", "Stored", "fused", "tokens"]
