"""Filters as filter expressions of DynamoDB.

An expression only has to let everything through that may match: the filter's own evaluator decides. So what DynamoDB
cannot compare as Python does is left out of it. Text of a filter never becomes text of an expression.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dynamiq_memory._json import is_clean
from dynamiq_memory.backends.dynamodb.keys import part
from dynamiq_memory.filters import Absent, Condition, OneOf, Range
from dynamiq_memory.messages import MESSAGE_ID_KEY, TIMESTAMP_KEY

# The map of what filters can find of a message, and the mark of one that has more than is in it.
FILTERABLE = "filterable"
PARTLY = "partly_filterable"
EXPIRES = "expires"

# A number has up to 38 digits and lies between 1e-130 and 9.99e125
# (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.NamingRulesDataTypes.html).
_LARGEST = 1e38
_SMALLEST = 1e-130
_LONGEST_TEXT = 1024
MOST_FILTERABLE = 16 * 1024
# An expression takes 4 KB and 300 operators, IN takes 100 values
# (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html).
_MOST_ALTERNATIVES = 50
_MOST_CONDITIONS = 10
_OPERATORS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


def attribute(key: str) -> str:
    """The name under which a key of metadata stands in the map: never empty, without a dot, not too long."""
    return "k" + part(key).replace(".", "%2E")


def value_of(value: Any) -> dict[str, Any] | None:
    """A value as DynamoDB compares it, exactly as Python does; None if it cannot."""
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, str):
        return {"S": value} if is_clean(value) and len(value.encode()) <= _LONGEST_TEXT else None
    if isinstance(value, int):
        return {"N": str(int(value))}
    if isinstance(value, float):
        if value.is_integer():
            # The shortest text of a large float is another number.
            return {"N": str(int(value))} if abs(value) < _LARGEST else None
        return {"N": repr(float(value))} if abs(value) > _SMALLEST else None
    return None


def filterable(metadata: Mapping[str, Any], most: int = MOST_FILTERABLE) -> dict[str, Any]:
    """The attributes by which filters find a message.

    Args:
        metadata: A prepared message's metadata; what is null counts as absent.
        most: How many bytes they may take.
    """
    found: dict[str, Any] = {}
    complete, size = True, 0
    for key, value in metadata.items():
        if value is None or not is_clean(key):
            continue
        # A list or a dict is there, and equals nothing that a filter can name.
        held = value_of(value) if isinstance(value, str | int | float) else {"L": []}
        name = attribute(key)
        size += len(name) + 8 + (len(held["S"].encode()) if held is not None and "S" in held else 21)
        if held is None or size > most:
            complete = False
            continue
        found[name] = held
    attributes: dict[str, Any] = {FILTERABLE: {"M": found}}
    return attributes if complete else attributes | {PARTLY: {"BOOL": True}}


@dataclass
class Expression:
    """The parts of an expression, and what its placeholders stand for.

    Attributes:
        parts: All of them must hold.
        names: Attribute names by their placeholders.
        values: Values by their placeholders.
    """

    parts: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    def name(self, attribute_name: str) -> str:
        """A placeholder for the name of an attribute."""
        for placeholder, known in self.names.items():
            if known == attribute_name:
                return placeholder
        placeholder = f"#n{len(self.names)}"
        self.names[placeholder] = attribute_name
        return placeholder

    def value(self, typed: Mapping[str, Any]) -> str:
        """A placeholder for a value."""
        placeholder = f":v{len(self.values)}"
        self.values[placeholder] = dict(typed)
        return placeholder

    def add(self, conditions: Sequence[Condition]) -> None:
        """Let through only what may match the conditions on metadata."""
        translated = 0
        for condition in conditions:
            if condition.key in (TIMESTAMP_KEY, MESSAGE_ID_KEY) or translated == _MOST_CONDITIONS:
                continue
            text = self._text(condition)
            if text is not None:
                translated += 1
                self.parts.append(text)

    def unexpired(self, now: int) -> None:
        """Let through only what has not expired."""
        expires = self.name(EXPIRES)
        self.parts.append(f"(attribute_not_exists({expires}) OR {expires} > {self.value({'N': str(now)})})")

    def or_with(self, attribute_name: str) -> None:
        """Let everything through that has an attribute, whatever the parts so far say; no more may come."""
        if self.parts:
            # AND goes before OR, and the service refuses parentheses that change nothing.
            self.parts = [f"{' AND '.join(self.parts)} OR attribute_exists({self.name(attribute_name)})"]

    def arguments(self, argument: str) -> dict[str, Any]:
        """The arguments of a call, with the expression under the name of one."""
        arguments: dict[str, Any] = {argument: " AND ".join(self.parts)} if self.parts else {}
        if self.names:
            arguments["ExpressionAttributeNames"] = self.names
        if self.values:
            arguments["ExpressionAttributeValues"] = self.values
        return arguments

    def _text(self, condition: Condition) -> str | None:
        if isinstance(condition, Absent):
            return f"attribute_not_exists({self._path(condition)})"
        if isinstance(condition, OneOf):
            values = [value_of(value) for value in condition.values]
            known = [value for value in values if value is not None]
            if not known or len(known) < len(values) or len(values) > _MOST_ALTERNATIVES:
                return None
            path = self._path(condition)
            test = f"{path} IN ({', '.join(self.value(value) for value in known)})"
        else:
            bounds = [(_OPERATORS[operator], value_of(bound)) for operator, bound in condition.bounds]
            comparable = [(operator, bound) for operator, bound in bounds if bound is not None]
            if not comparable:
                return None
            path = self._path(condition)
            # Stand-ins for the service fail where it finds that a text is not less than a number.
            tests = [f"attribute_type({path}, {self.value({'S': 'N'})})"]
            tests += [f"{path} {operator} {self.value(bound)}" for operator, bound in comparable]
            test = " AND ".join(tests)
        return f"({test} OR attribute_exists({self.name(PARTLY)}))"

    def _path(self, condition: OneOf | Range | Absent) -> str:
        return f"{self.name(FILTERABLE)}.{self.name(attribute(condition.key))}"
