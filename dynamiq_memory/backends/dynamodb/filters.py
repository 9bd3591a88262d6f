"""A `Filter` as a filter expression of DynamoDB, and the attributes that it is compared with.

An expression only has to let everything through that may match: the filter itself decides. Comparisons that DynamoDB
would not make as Python does are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dynamiq_memory._json import is_clean
from dynamiq_memory.backends.dynamodb.expressions import Expression
from dynamiq_memory.backends.dynamodb.keys import key_part
from dynamiq_memory.filters import Absent, Condition, OneOf
from dynamiq_memory.messages import MESSAGE_ID_KEY, TIMESTAMP_KEY

# The map of the metadata that filters can compare, and the flag of a message with more metadata than is in the map.
FILTERABLE = "filterable"
PARTLY = "partly_filterable"

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


def attribute_name(key: str) -> str:
    """Return the name of a metadata key in the map: never empty, without dots, not too long."""
    return "k" + key_part(key).replace(".", "%2E")


def comparable(value: Any) -> dict[str, Any] | None:
    """Convert a value to one that DynamoDB compares exactly as Python does, or return None."""
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
    """Return the attributes that filters compare.

    Args:
        metadata: A prepared message's metadata; null counts as absent.
        most: Maximum number of bytes.
    """
    found: dict[str, Any] = {}
    complete, size = True, 0
    for key, value in metadata.items():
        if value is None or not is_clean(key):
            continue
        # A list or a dict is present, and equals nothing that a filter can name.
        converted = comparable(value) if isinstance(value, str | int | float) else {"L": []}
        name = attribute_name(key)
        size += len(name) + 8 + (len(converted["S"].encode()) if converted is not None and "S" in converted else 21)
        if converted is None or size > most:
            complete = False
            continue
        found[name] = converted
    attributes: dict[str, Any] = {FILTERABLE: {"M": found}}
    return attributes if complete else attributes | {PARTLY: {"BOOL": True}}


def filter_expression(conditions: Sequence[Condition]) -> Expression:
    """Build an expression that lets everything through that may match conditions on metadata."""
    expression = Expression()
    translated = 0
    for condition in conditions:
        if condition.key in (TIMESTAMP_KEY, MESSAGE_ID_KEY) or translated == _MOST_CONDITIONS:
            continue
        text = _text(expression, condition)
        if text is not None:
            translated += 1
            expression.require(text)
    return expression


def _text(expression: Expression, condition: Condition) -> str | None:
    if isinstance(condition, Absent):
        return f"attribute_not_exists({_path(expression, condition)})"
    if isinstance(condition, OneOf):
        values = [value for value in map(comparable, condition.values) if value is not None]
        if not values or len(values) < len(condition.values) or len(values) > _MOST_ALTERNATIVES:
            return None
        path = _path(expression, condition)
        test = f"{path} IN ({', '.join(map(expression.value, values))})"
    else:
        bounds = [(_OPERATORS[operator], comparable(bound)) for operator, bound in condition.bounds]
        known = [(operator, bound) for operator, bound in bounds if bound is not None]
        if not known:
            return None
        path = _path(expression, condition)
        # Emulators of the service fail when they compare a text with a number.
        tests = [f"attribute_type({path}, {expression.value({'S': 'N'})})"]
        tests += [f"{path} {operator} {expression.value(bound)}" for operator, bound in known]
        test = " AND ".join(tests)
    return f"({test} OR attribute_exists({expression.name(PARTLY)}))"


def _path(expression: Expression, condition: Condition) -> str:
    return f"{expression.name(FILTERABLE)}.{expression.name(attribute_name(condition.key))}"
