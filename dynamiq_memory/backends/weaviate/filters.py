"""Filters in Weaviate's language: look-ups in an indexed array of texts, one for each thing that is true of a message.

The names of Weaviate's properties follow GraphQL's rules, so keys of metadata cannot be properties. Instead, a message
with `{"topic": "billing", "n": 7}` has the facts `["topic"]`, `["topic","billing"]`, `["n"]`, `["n",7]` and
`["n",null,"number"]`, each a JSON text. Each is one token of the index (tokenization "field"), so a filter on any key
is one look-up, exact in type and value. JSON texts begin and end with a bracket, since the index trims white space and
drops stop words.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from weaviate.classes.query import Filter as ServerFilter
from weaviate.classes.query import FilterReturn

from dynamiq_memory.backends.weaviate.schema import FACTS, TIMESTAMP
from dynamiq_memory.filters import Absent, Condition, Filter, OneOf, Range, Scalar
from dynamiq_memory.messages import MESSAGE_ID_KEY, SESSION_KEY, TIMESTAMP_KEY, USER_KEY, Message

MESSAGE = "message"
"""True of every message: a negated condition needs another one that is not."""
PARTLY = "partly"
"""True of a message with more metadata than is indexed."""
REPLACING = "replacing"
"""True of an object that is not a message: the note of a replacement in progress."""
NEVER = "never"
"""True of no object."""

_ALWAYS = (USER_KEY, SESSION_KEY, MESSAGE_ID_KEY)
_MOST_KEYS = 300
_LONGEST = 256


def _fact(*parts: Any) -> str:
    text = json.dumps(parts, separators=(",", ":"))
    if len(text) <= _LONGEST:
        return text
    return f"[#{hashlib.blake2b(text.encode(), digest_size=20).hexdigest()}]"


def _value(value: Scalar) -> Scalar:
    """Make equal numbers the same JSON: 7.0 is 7."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def facts_of(message: Message) -> list[str]:
    """The facts of a prepared message."""
    scope = {MESSAGE_ID_KEY: message.id, USER_KEY: message.user_id, SESSION_KEY: message.session_id}
    items = [(key, value) for key, value in scope.items() if value is not None]
    others = [(key, value) for key, value in message.metadata.items() if key not in scope and value is not None]
    facts = [MESSAGE]
    if len(others) > _MOST_KEYS:
        facts.append(PARTLY)
    for key, value in [*items, *others[:_MOST_KEYS]]:
        facts.append(_fact(key))
        if isinstance(value, str | bool | int | float):
            facts.append(_fact(key, _value(value)))
        if isinstance(value, int | float) and not isinstance(value, bool):
            facts.append(_fact(key, None, "number"))
    return facts


def has_fact(*facts: str) -> FilterReturn:
    """Match objects with at least one of some facts."""
    return ServerFilter.by_property(FACTS).contains_any(list(facts))


@dataclass(frozen=True, slots=True)
class Translation:
    """A filter in Weaviate's language.

    Attributes:
        filter: The filter itself.
        clauses: Conditions for the server, met by all messages that match.
        exact: Whether only messages that match meet them, apart from those that are only partly indexed.
        partial: Whether those may meet them without matching.
    """

    filter: Filter
    clauses: tuple[FilterReturn, ...]
    exact: bool
    partial: bool

    def clause(self, *more: FilterReturn) -> FilterReturn:
        """All conditions for the server, and some more, as one."""
        return ServerFilter.all_of([*self.clauses, *more])


def translate(filter: Filter) -> Translation:
    """Translate a filter."""
    clauses = [has_fact(MESSAGE)]
    exact, partial = True, False
    for condition in filter.conditions:
        if condition.key == TIMESTAMP_KEY:
            found = _timestamp(condition)
        elif isinstance(condition, OneOf):
            found = _one_of(condition)
        elif isinstance(condition, Absent):
            found = [ServerFilter.by_property(FACTS).not_equal(_fact(condition.key))]
        else:
            # Numbers of all keys share the index, which cannot look up a range: it is compared in this process.
            found = [has_fact(_fact(condition.key, None, "number"), PARTLY)]
            exact = False
        clauses += found
        partial = partial or condition.key not in (*_ALWAYS, TIMESTAMP_KEY)
    return Translation(filter, tuple(clauses), exact=exact, partial=partial)


def _one_of(condition: OneOf) -> list[FilterReturn]:
    wanted = list(dict.fromkeys(_fact(condition.key, _value(value)) for value in condition.values)) or [NEVER]
    return [has_fact(*wanted) if condition.key in _ALWAYS else has_fact(*wanted, PARTLY)]


def _timestamp(condition: Condition) -> list[FilterReturn]:
    time = ServerFilter.by_property(TIMESTAMP)
    if isinstance(condition, Range):
        compare = {
            "gt": time.greater_than,
            "gte": time.greater_or_equal,
            "lt": time.less_than,
            "lte": time.less_or_equal,
        }
        return [compare[operator](float(bound)) for operator, bound in condition.bounds]
    numbers = [] if isinstance(condition, Absent) else [v for v in condition.values if isinstance(v, int | float)]
    # Adding zero turns -0.0 into 0.0, which has other bytes in the index.
    wanted = [float(number) + 0.0 for number in numbers if not isinstance(number, bool)]
    return [time.contains_any(wanted) if wanted else has_fact(NEVER)]
