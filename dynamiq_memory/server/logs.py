"""Logs: one line of JSON per event, without content, the ids of users, sessions and memories, or the secrets of keys.

Requests name the public id of their key, as `keys list` shows it, so that an operator can find and revoke it.
"""

from __future__ import annotations

import contextvars
import datetime as dt
import json
import logging
import sys
from typing import Any

_OURS = ("dynamiq_memory", "uvicorn")

request_id: contextvars.ContextVar[str | None] = contextvars.ContextVar("dynamiq_memory_request_id", default=None)


class JSONFormatter(logging.Formatter):
    """Formats a record and its `fields` as a line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage() if record.name.startswith(_OURS) else str(record.msg).partition("\n")[0],
        }
        if request_id.get() is not None:
            line["request_id"] = request_id.get()
        line |= getattr(record, "fields", {})
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = f"{record.exc_info[0].__module__}.{record.exc_info[0].__qualname__}"
        return json.dumps(line, default=str)


def configure(level: str) -> None:
    """Log to standard error.

    Args:
        level: "debug", "info", "warning" or "error".
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONFormatter())
    # JSONFormatter omits the arguments of other libraries' log messages, since they may be user content.
    logging.getLogger().handlers = [handler]
    for name in ("dynamiq_memory", "uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers = [handler] if name != "uvicorn.error" else []
        logger.propagate = name == "uvicorn.error"
        logger.setLevel(level.upper())
