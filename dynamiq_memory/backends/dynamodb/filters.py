"""A `Filter` as a condition of DynamoDB, and the attributes that it is compared with.

A condition only has to let everything through that may match: the filter itself decides. Comparisons that DynamoDB
would not make as Python does are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import islice
from operator import and_
from typing import Any

from boto3.dynamodb.conditions import Attr

from dynamiq_memory._json import is_clean
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


def filter_condition(conditions: Sequence[Condition]) -> Any:
    """Return a condition that everything meets that may match conditions on metadata; None if that is anything."""
    translated = (_translated(each) for each in conditions if each.key not in (TIMESTAMP_KEY, MESSAGE_ID_KEY))
    known = list(islice((each for each in translated if each is not None), _MOST_CONDITIONS))
    return reduce(and_, known) if known else None


def _translated(condition: Condition) -> Any:
    attribute = Attr(f"{FILTERABLE}.{attribute_name(condition.key)}")
    if isinstance(condition, Absent):
        return attribute.not_exists()
    if isinstance(condition, OneOf):
        values = [comparable(value) for value in condition.values]
        if not values or None in values or len(values) > _MOST_ALTERNATIVES:
            return None
        test = attribute.is_in(values)
    else:
        bounds = [(operator, comparable(bound)) for operator, bound in condition.bounds]
        tests = [getattr(attribute, operator)(bound) for operator, bound in bounds if bound is not None]
        if not tests:
            return None
        # Emulators of the service fail when they compare a text with a number.
        test = reduce(and_, tests, attribute.attribute_type({"S": "N"}))
    return test | Attr(PARTLY).exists()
