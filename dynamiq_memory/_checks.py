"""Checks of arguments that all backends share."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dynamiq_memory.exceptions import ConfigurationError, InvalidArgumentError
from dynamiq_memory.filters import Filter, parse
from dynamiq_memory.messages import SESSION_KEY, USER_KEY, check_identifier

E = TypeVar("E", bound=Enum)

# Of a longer question, half of this from its beginning and half from its end: what is asked about a long text that is
# pasted comes before it or after it (docs/retrieval.md).
_LONGEST_QUERY = 1_000
_CUT_AT_END, _CUT_AT_START = re.compile(r"(?<!\S)\S{1,64}\Z"), re.compile(r"\A\S{1,64}(?!\S)")
# More than any store holds, and within the 64 bits of a driver's integer.
_LARGEST_LIMIT = 2**62


def check_whole_number(name: str, value: object, least: int = 1, most: float = math.inf) -> int:
    """Check a setting that is a whole number.

    Args:
        name: The setting's name, for the error.
        value: The value to check; a bool is not a number.
        least: Minimum value.
        most: Maximum value.

    Raises:
        ConfigurationError: The value is not a whole number, or out of range.
    """
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return value
    range_ = f"of {least:,} or more" if most == math.inf else f"from {least:,} to {most:,}"
    raise ConfigurationError(f"{name} must be a whole number {range_}, not {value!r}")


def check_seconds(name: str, value: object, *, zero: bool = False) -> float:
    """Check a setting in seconds.

    Args:
        name: The setting's name, for the error.
        value: The value to check.
        zero: Whether 0 is allowed.

    Raises:
        ConfigurationError: The value is not a finite number, or too small.
    """
    if (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and (0 < value < math.inf or (zero and not value))
    ):
        return value
    raise ConfigurationError(f"{name} must be {'0 seconds or more' if zero else 'more than 0 seconds'}, not {value!r}")


def check_timezone(value: object) -> dt.tzinfo:
    """Check a time zone: an IANA name such as "Europe/Brussels", "UTC+01:00", or a `tzinfo`.

    Raises:
        ConfigurationError: It is neither, or this machine does not know the name.
    """
    if isinstance(value, dt.tzinfo):
        return value
    error = ConfigurationError(
        "timezone must be a name such as 'Europe/Brussels' that this machine knows (pip install tzdata), 'UTC+01:00', "
        f"or a tzinfo; not {value!r}"
    )
    if not isinstance(value, str):
        raise error
    offset = value.removeprefix("UTC")
    try:
        if offset != value and offset:  # as str() names a datetime.timezone
            return dt.datetime.strptime(offset, "%z").tzinfo or dt.UTC
        return ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise error from None


def check_share(name: str, value: object) -> float:
    """Check a setting that is a share of a whole.

    Raises:
        ConfigurationError: The value is not a number from 0 to 1.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    raise ConfigurationError(f"{name} must be from 0 to 1, not {value!r}")


def check_choice(kind: type[E], value: str, name: str, error: type[InvalidArgumentError]) -> E:
    """Return the member of an enumeration of strings that a value names.

    Raises:
        InvalidArgumentError: There is none; the error is of the given type.
    """
    try:
        return kind(value)
    except ValueError:
        raise error(f"{name} {value!r} is unknown: use one of {', '.join(each.value for each in kind)}") from None


def check_name(option: str, name: object, pattern: re.Pattern[str], hint: str) -> str:
    """Check the name of a table, collection or index.

    Args:
        option: The option that sets it, for the error.
        name: The name to check.
        pattern: All valid names.
        hint: Says which names are valid.

    Raises:
        ConfigurationError: The name is not valid.
    """
    if isinstance(name, str) and pattern.fullmatch(name):
        return name
    raise ConfigurationError(f"{option}={name!r} cannot be used: {hint}")


def check_limit(limit: int | None) -> int | None:
    """Check a limit.

    Raises:
        InvalidArgumentError: The limit is neither None nor a whole number of 1 or more.
    """
    if limit is None:
        return None
    if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0:
        return min(limit, _LARGEST_LIMIT)
    raise InvalidArgumentError(f"limit must be a whole number of 1 or more, or None; not {limit!r}")


def check_neighbours(count: int) -> int:
    """Check a number of neighbours to read.

    Raises:
        InvalidArgumentError: The number is not a whole number of 0 or more.
    """
    if isinstance(count, int) and not isinstance(count, bool) and count >= 0:
        return min(count, _LARGEST_LIMIT)
    raise InvalidArgumentError(f"the number of neighbours must be a whole number of 0 or more, not {count!r}")


def check_query(query: str | None) -> str | None:
    """Check a query.

    Returns:
        The query, or None if it is blank; of a long one, its beginning and its end.

    Raises:
        InvalidArgumentError: The query is neither a string nor None.
    """
    if query is not None and not isinstance(query, str):
        raise InvalidArgumentError(f"query must be a string or None, not {type(query).__name__}")
    if query is None or not (stripped := query.strip()):
        return None
    if len(stripped) <= _LONGEST_QUERY:
        return query
    half = _LONGEST_QUERY // 2
    return "\n".join([_CUT_AT_END.sub("", stripped[:half]), _CUT_AT_START.sub("", stripped[-half:])])


def replacement_filter(filters: Mapping[str, Any]) -> tuple[Filter, dict[str, str]]:
    """Check the filters of a replacement.

    Returns:
        The filter, and the user and session ids that it fixes to one value.

    Raises:
        InvalidArgumentError: It fixes neither id.
    """
    filter = parse(filters)
    scope: dict[str, str] = {}
    for key in (USER_KEY, SESSION_KEY):
        allowed = filter.scope(key)
        if allowed is not None and len(allowed) == 1 and allowed[0] is not None:
            scope[key] = allowed[0]
    if not scope:
        raise InvalidArgumentError(
            "replace needs filters that fix user_id or session_id to one value; without them, it would replace other "
            "users' messages"
        )
    return filter, scope


def deletion_filter(session_id: str | None, user_id: str | None, filters: Mapping[str, Any] | None) -> Filter:
    """Build the filter of a deletion.

    Raises:
        InvalidArgumentError: Neither session_id nor user_id is given.
    """
    if session_id is None and user_id is None:
        raise InvalidArgumentError("delete needs session_id, user_id or both; clear() deletes everything")
    scope = {
        key: check_identifier(value, key)
        for key, value in ((SESSION_KEY, session_id), (USER_KEY, user_id))
        if value is not None
    }
    return Filter(parse(scope).conditions + parse(filters).conditions)
