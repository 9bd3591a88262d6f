"""JSON that preserves the extra types allowed in metadata: datetime, date, bytes, Decimal, UUID.

Such values become `{"$type": name, "value": text}`. A user's dict that has its own `$type` key is wrapped in the same
way, so that it is not mistaken for a tag.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from dynamiq_memory.exceptions import MessageError

if TYPE_CHECKING:
    from collections.abc import Callable

TAG = "$type"
_QUOTED_TAG = f'"{TAG}"'
# Stores use 64-bit integers; a larger one would be read back as an approximate float.
MAX_INTEGER = 2**63 - 1
MAX_DEPTH = 100
_SPLIT_CHARACTER = re.compile("[\ud800-\udbff][\udc00-\udfff]")

# For each type: its name, and the functions that write and read its text.
_TAGGED: dict[type, tuple[str, Callable[[Any], str], Callable[[Any], Any]]] = {
    dt.datetime: ("datetime", dt.datetime.isoformat, dt.datetime.fromisoformat),
    dt.date: ("date", dt.date.isoformat, dt.date.fromisoformat),
    bytes: ("bytes", lambda value: base64.b64encode(value).decode("ascii"), partial(base64.b64decode, validate=True)),
    Decimal: ("decimal", str, Decimal),
    UUID: ("uuid", str, UUID),
}
_RESTORE = {name: read for name, _, read in _TAGGED.values()}


def normalise(value: Any, where: str, depth: int = 0) -> Any:
    """Make a deep copy of plain dicts, lists and scalars that can be stored and restored.

    Args:
        value: Any value.
        where: Path to the value, such as `metadata['when']`, for error messages.
        depth: Number of levels above this one.

    Returns:
        An equal value that shares no mutable objects with the original. Tuples become lists, as in JSON.

    Raises:
        MessageError: The value cannot be restored from JSON; the error names the key.
    """
    kind = type(value)
    if kind is str:
        return value if value.isascii() else _check_text(value, where)
    if value is None or kind is bool:
        return value
    if kind is int or kind is float:
        return _check_number(value, where)
    if depth > MAX_DEPTH:
        raise MessageError(f"{where} is nested deeper than {MAX_DEPTH} levels (or contains itself)")
    if kind is dict or isinstance(value, Mapping):
        return _normalise_mapping(value, where, depth)
    if isinstance(value, list | tuple):
        return [normalise(item, f"{where}[{i}]", depth + 1) for i, item in enumerate(value)]
    return value if kind in _TAGGED else normalise(_plain(value, where), where, depth + 1)


def _check_text(value: str, where: str) -> str:
    if _SPLIT_CHARACTER.search(value):
        raise MessageError(
            f"{where} contains a character that is split into two surrogates, which JSON would join: decode it first, "
            "for example with text.encode('utf-16', 'surrogatepass').decode('utf-16')"
        )
    return value


def _check_number(value: float, where: str) -> float:
    if isinstance(value, int):
        if not -MAX_INTEGER - 1 <= value <= MAX_INTEGER:
            raise MessageError(f"{where} does not fit in 64 bits: store it as a string")
    elif not math.isfinite(value):
        raise MessageError(f"{where} is {value}, which JSON cannot represent: omit it or store None or a string")
    return value


def _plain(value: Any, where: str) -> Any:
    """Return the plain value of an enum member or of a subclass of a plain type (numpy.float64 is a float)."""
    if isinstance(value, Enum):
        return value.value
    for base in (str, int, float):
        if isinstance(value, base):
            return base.__str__(value) if base is str else base(value)
    kind = type(value)
    raise MessageError(
        f"{where} is a {kind.__module__}.{kind.__qualname__}, which cannot be stored: use plain JSON values "
        "(str, int, float, bool, None, list, dict) or datetime, date, bytes, Decimal or UUID"
    )


def _normalise_mapping(value: Mapping[Any, Any], where: str, depth: int) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, item in value.items():
        if type(key) is not str:
            if not isinstance(key, str):
                raise MessageError(f"{where} has the key {key!r}, a {type(key).__name__}: keys must be strings")
            key = key.value if isinstance(key, Enum) else str.__str__(key)  # noqa: PLW2901 - same key as a plain string
        if not key.isascii():
            _check_text(key, f"a key of {where}")
        # To write the path takes longer than to look at a plain text.
        is_plain = item is None or (type(item) is str and item.isascii())
        result[key] = item if is_plain else normalise(item, f"{where}[{key!r}]", depth + 1)
    return result


def copy_plain(value: Any) -> Any:
    """Copy a value that `normalise` returned. Faster than `copy.deepcopy`, since scalars are shared."""
    if isinstance(value, dict):
        return {key: copy_plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copy_plain(item) for item in value]
    return value


def dumps(value: Any, *, sort_keys: bool = False) -> str:
    """Write a normalised value as JSON text that is valid UTF-8 without NUL.

    Args:
        value: A value that `normalise` returned.
        sort_keys: Whether equal values have equal texts, whatever the order of their keys.
    """
    encode = _encode_sorted if sort_keys else _encode
    text = encode(value)
    if _QUOTED_TAG in text:
        text = encode(_wrap(value))
    if not is_clean(text):
        # Only a lone surrogate can cause this. Every store accepts it as an escape sequence.
        text = json.dumps(json.loads(text), separators=(",", ":"))
    return text


def loads(text: str) -> Any:
    """Read text that `dumps` wrote."""
    value = json.loads(text)
    return _unwrap(value) if _QUOTED_TAG in text else value


def shown(value: Any) -> str:
    """Return the text that represents a datetime, date, bytes, Decimal or UUID in JSON."""
    return _TAGGED[type(value)][1](value)


def is_clean(text: str) -> bool:
    """Return whether every store accepts the text, that is, it contains no NUL or lone surrogate."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return False
    return "\0" not in text


def _tag(value: Any) -> dict[str, str]:
    name, write, _ = _TAGGED[type(value)]
    return {TAG: name, "value": write(value)}


# `json.dumps` would make an encoder for each call.
_encode, _encode_sorted = (
    json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=_tag, sort_keys=sort_keys).encode
    for sort_keys in (False, True)
)


def _wrap(value: Any) -> Any:
    if isinstance(value, dict):
        wrapped = {key: _wrap(item) for key, item in value.items()}
        return {TAG: "dict", "value": wrapped} if TAG in value else wrapped
    if isinstance(value, list):
        return [_wrap(item) for item in value]
    return value


def _unwrap(value: Any) -> Any:
    """Undo `_tag` and `_wrap` from the outside in, so that the user's `$type` keys are never taken for tags."""
    if isinstance(value, list):
        return [_unwrap(item) for item in value]
    if not isinstance(value, dict):
        return value
    name = value.get(TAG)
    if name == "dict":
        return {key: _unwrap(item) for key, item in value["value"].items()}
    if name in _RESTORE:
        return _RESTORE[name](value["value"])
    return {key: _unwrap(item) for key, item in value.items()}
