"""The keys of LlamaIndex's chat stores and our sessions.

`"user/session"` is a user's session, `"session"` a session without a user. In a user's id, `%` is written as `%25` and
`/` as `%2F`, and nothing else is escaped, so that no other spelling names the same user. A session without a user whose
name contains a slash begins with one: `"/a/b"`.
"""

from __future__ import annotations

import re

from dynamiq_memory import InvalidArgumentError, Memory
from dynamiq_memory.backends import Session

_ESCAPED = {"%": "%25", "/": "%2F"}
_NO_ESCAPE = re.compile("%(?!25|2F)")


def session_of(memory: Memory, key: str) -> Memory:
    """Return the memory of the session that a key names.

    Raises:
        InvalidArgumentError: The key is wrong. (A client may have chosen it.)
        ConfigurationError: The memory's default filters exclude the session.
    """
    if not isinstance(key, str) or not key or key == "/":
        raise InvalidArgumentError(f"key must be 'session' or 'user/session', not {key!r}")
    user, slash, session = key.partition("/")
    if slash and _NO_ESCAPE.search(user):
        raise InvalidArgumentError(
            f"key {key!r}: in the user's id, write % as %25 and / as %2F, and escape nothing else"
        )
    if slash and not user and "/" not in session:
        raise InvalidArgumentError(
            f"key {key!r} has no user before the slash: write {session!r} for a session without a user"
        )
    user_id = (_unescaped(user) or None) if slash else None
    return memory.scoped(session if slash else key, user_id)


def key_of(session: Session, memory: Memory) -> str | None:
    """Return the key of a session; None for messages without a session, which no key can name."""
    if session.session_id is None:
        return None
    if session.user_id is None or session.user_id == memory.filters.get("user_id"):
        return f"/{session.session_id}" if "/" in session.session_id else session.session_id
    return f"{_escaped(session.user_id)}/{session.session_id}"


def _escaped(user: str) -> str:
    return re.sub("[%/]", lambda match: _ESCAPED[match[0]], user)


def _unescaped(user: str) -> str:
    return user.replace(_ESCAPED["/"], "/").replace(_ESCAPED["%"], "%")
