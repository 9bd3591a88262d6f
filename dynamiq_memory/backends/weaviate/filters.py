"""What of a message can be filtered by: texts of an indexed array, one for each thing that is true of it.

Names of Weaviate's properties are those of GraphQL, so keys of metadata cannot be properties. Instead, a message with
`{"topic": "billing", "n": 7}` has the facts `["topic"]`, `["topic","billing"]`, `["n"]`, `["n",7]` and
`["n",null,"number"]`, each a JSON text. Each is one token of the index (tokenization "field"), so a filter on any key
is one look-up in it, exact in type and value. JSON texts begin and end with a bracket: the index trims white space, and
drops stop words.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weaviate.classes.query import Filter as Native

from dynamiq_memory.filters import Absent, Condition, Filter, OneOf, Range, Scalar
from dynamiq_memory.messages import MESSAGE_ID_KEY, SESSION_KEY, TIMESTAMP_KEY, USER_KEY, Message

FACTS = "facts"
TIMESTAMP = "timestamp"
ARRIVAL = "arrival"

MESSAGE = "message"
"""True of every message: what is negated needs something that is not."""
PARTLY = "partly"
"""True of a message with more metadata than is indexed."""
REPLACING = "replacing"
"""True of what is no message: the note of a replacement that is going on."""

_ALWAYS = (USER_KEY, SESSION_KEY, MESSAGE_ID_KEY)
_MOST_KEYS = 300
_LONGEST = 256
_COMPARISONS = {"gt": "greater_than", "gte": "greater_or_equal", "lt": "less_than", "lte": "less_or_equal"}


def _fact(*parts: Any) -> str:
    text = json.dumps(parts, separators=(",", ":"))
    if len(text) <= _LONGEST:
        return text
    return f"[#{hashlib.blake2b(text.encode(), digest_size=20).hexdigest()}]"


def _value(value: Scalar) -> Scalar:
    """Equal numbers as the same JSON: 7.0 is 7."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def facts_of(message: Message) -> list[str]:
    """The facts of a prepared message."""
    scope = {MESSAGE_ID_KEY: message.id, USER_KEY: message.user_id, SESSION_KEY: message.session_id}
    items = [(key, value) for key, value in scope.items() if value is not None]
    others = [(key, value) for key, value in message.metadata.items() if key not in scope and value is not None]
    found = [MESSAGE]
    if len(others) > _MOST_KEYS:
        found.append(PARTLY)
    for key, value in [*items, *others[:_MOST_KEYS]]:
        found.append(_fact(key))
        if isinstance(value, str | bool | int | float):
            found.append(_fact(key, _value(value)))
        if isinstance(value, int | float) and not isinstance(value, bool):
            found.append(_fact(key, None, "number"))
    return found


def is_fact(*names: str) -> Any:
    """The native filter for what has at least one of these facts."""
    if len(names) == 1:
        return Native.by_property(FACTS).equal(names[0])
    return Native.by_property(FACTS).contains_any(list(names))


def is_no_fact(name: str) -> Any:
    """The native filter for what has this fact not."""
    return Native.by_property(FACTS).not_equal(name)


def all_of(clauses: Sequence[Any]) -> Any:
    """The native filter that all of some hold."""
    return clauses[0] if len(clauses) == 1 else Native.all_of(list(clauses))


def compared(name: str, operator: str, number: float) -> Any:
    """The native filter that compares a property with a number."""
    return getattr(Native.by_property(name), operator)(number)


@dataclass(frozen=True, slots=True)
class Translation:
    """A filter as Weaviate's.

    Attributes:
        where: The filter itself.
        clauses: Native filters that let through all that matches; None if nothing can match.
        exact: Whether they let nothing else through, but for messages that are only partly indexed.
        partial: Whether those may be let through though they do not match.
    """

    where: Filter
    clauses: tuple[Any, ...] | None
    exact: bool
    partial: bool

    @property
    def never(self) -> bool:
        """Whether nothing can match."""
        return self.clauses is None

    def native(self, *more: Any) -> Any:
        """The native filter, and what else must hold."""
        return all_of([*(self.clauses or ()), *more])


def translate(where: Filter) -> Translation:
    """Translate a filter."""
    clauses: list[Any] = [is_fact(MESSAGE)]
    exact, partial = True, False
    for condition in where.conditions:
        if condition.key == TIMESTAMP_KEY:
            found = _timestamp(condition)
        elif isinstance(condition, OneOf):
            found = _one_of(condition)
        elif isinstance(condition, Absent):
            found = [is_no_fact(_fact(condition.key))]
        else:
            # Numbers of all keys share the index, so that a range cannot be looked up in it: it is compared here.
            found = [is_fact(_fact(condition.key, None, "number"), PARTLY)]
            exact = False
        if found is None:
            return Translation(where, None, exact=True, partial=False)
        clauses += found
        partial = partial or condition.key not in (*_ALWAYS, TIMESTAMP_KEY)
    return Translation(where, tuple(clauses), exact=exact, partial=partial)


def _one_of(condition: OneOf) -> list[Any] | None:
    wanted = list(dict.fromkeys(_fact(condition.key, _value(value)) for value in condition.values))
    if not wanted:
        return None
    return [is_fact(*wanted) if condition.key in _ALWAYS else is_fact(*wanted, PARTLY)]


def _timestamp(condition: Condition) -> list[Any] | None:
    if isinstance(condition, Range):
        return [compared(TIMESTAMP, _COMPARISONS[operator], float(bound)) for operator, bound in condition.bounds]
    numbers = [] if isinstance(condition, Absent) else [v for v in condition.values if isinstance(v, int | float)]
    # Adding zero makes 0.0 of -0.0, which has other bytes in the index.
    wanted = [float(number) + 0.0 for number in numbers if not isinstance(number, bool)]
    return [Native.by_property(TIMESTAMP).contains_any(wanted)] if wanted else None


def shown(metadata: Mapping[str, Any], key: str) -> str:
    """An id as a readable property; empty for none."""
    return str(metadata.get(key) or "")
