"""Time-ordered unique ids."""

from __future__ import annotations

import sys

if sys.version_info >= (3, 14):
    from uuid import uuid7
else:
    from uuid6 import uuid7


def new_id() -> str:
    """Return a new UUIDv7 (RFC 9562) as text. Ids sort by their time of creation, to the millisecond."""
    return str(uuid7())
