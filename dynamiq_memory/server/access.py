"""What a request may access: one memory, or a single user's part of it if its key is for one user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Path, Request

from dynamiq_memory.backends.base import MemoryBackend
from dynamiq_memory.exceptions import FilterError
from dynamiq_memory.filters import parse
from dynamiq_memory.messages import LATEST, SESSION_KEY, USER_KEY, Message, MessageRole
from dynamiq_memory.server.errors import ProblemError
from dynamiq_memory.server.keys import APIKey
from dynamiq_memory.server.metrics import Metrics
from dynamiq_memory.server.partition import MEMORY_ID_PATTERN, Partition
from dynamiq_memory.server.settings import Settings

# Stores compare each message with each condition.
MAX_FILTER_KEYS = 100
MAX_FILTER_VALUES = 10_000


@dataclass(frozen=True, slots=True)
class Service:
    """The parts that all requests of an application share.

    Attributes:
        store: The store with the messages.
        settings: The limits.
        metrics: The counters.
    """

    store: MemoryBackend
    settings: Settings
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class Access:
    """The memory that a request names and may access.

    Attributes:
        memory_id: The memory's id.
        memory: The memory. Handlers reach the store only through it.
        service: The limits and counters.
    """

    memory_id: str
    memory: Partition
    service: Service

    def filters(
        self, filters: dict[str, Any] | None, user_id: str | None = None, session_id: str | None = None
    ) -> dict[str, Any]:
        """Combine a filter with the ids in the request, and check the result.

        Raises:
            FilterError: The filter is malformed or too large.
            OtherUserError: It names a user other than the key's.
        """
        ids = {USER_KEY: user_id, SESSION_KEY: session_id}
        combined = (filters or {}) | {key: value for key, value in ids.items() if value is not None}
        values = sum(len(value) if isinstance(value, list | dict) else 1 for value in combined.values())
        if len(combined) > MAX_FILTER_KEYS or values > MAX_FILTER_VALUES:
            raise FilterError(
                f"a filter may have {MAX_FILTER_KEYS:,} keys and {MAX_FILTER_VALUES:,} values, not {len(combined):,} "
                f"keys and {values:,} values: send several requests"
            )
        self.memory.check_filter(parse(combined))
        return combined

    def beginning(self) -> Message:
        """Return an anchor before the first message."""
        metadata = {} if self.memory.user_id is None else {USER_KEY: self.memory.user_id}
        return Message(role=MessageRole.USER, id="-", timestamp=-LATEST, metadata=metadata)


def _access(
    request: Request,
    memory_id: Annotated[str, Path(pattern=MEMORY_ID_PATTERN, description="The memory.")],
) -> Access:
    service: Service = request.app.state.service
    key: APIKey | None = request.scope["state"].get("key")
    if key is not None and memory_id not in key.memory_ids:
        raise ProblemError(403, "OtherMemory", "this key is not valid for this memory")
    only_memory_id = service.settings.memory_id
    if only_memory_id is not None and memory_id != only_memory_id:
        raise ProblemError(404, "NotFound", "this memory does not exist")
    memory = Partition(service.store, memory_id if only_memory_id is None else None, key.user_id if key else None)
    return Access(memory_id, memory, service)


RequestAccess = Annotated[Access, Depends(_access)]
