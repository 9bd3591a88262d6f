"""What PostgreSQL filters messages by: a column of JSONB beside the metadata, which are kept as text.

JSONB keeps no order of keys and takes no NUL, so it holds only what a filter can be about: for each key its string,
number or boolean. Numbers are exact there, as in Python.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dynamiq_memory._json import is_clean

# Present, and equal to nothing that a filter can name.
_PRESENT = "{}"


def filterable(metadata: Mapping[str, Any]) -> str:
    """The JSON of what filters can find of metadata.

    Args:
        metadata: A prepared message's metadata; what is null counts as absent.
    """
    items = ((key, value) for key, value in metadata.items() if value is not None and is_clean(key))
    return "{" + ",".join(f"{json.dumps(key)}:{json_literal(value)}" for key, value in items) + "}"


def json_literal(value: Any) -> str:
    """A value as JSON whose number is exactly Python's."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value) if is_clean(value) else _PRESENT
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        # The shortest text of a large float is another number.
        return str(int(value)) if value.is_integer() else repr(value)
    return _PRESENT
