"""What a request may reach: one memory, and of that one user's part if its key says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Path, Request

from dynamiq_memory.backends.base import MemoryBackend
from dynamiq_memory.filters import parse
from dynamiq_memory.messages import LATEST, USER_KEY, Message, MessageRole
from dynamiq_memory.server.errors import ProblemError
from dynamiq_memory.server.keys import Key
from dynamiq_memory.server.metrics import Metrics
from dynamiq_memory.server.partition import MEMORY_ID_PATTERN, Partition, of_user
from dynamiq_memory.server.settings import Settings


@dataclass(frozen=True, slots=True)
class Service:
    """What an application is made of.

    Attributes:
        store: Where the messages live.
        settings: The limits.
        metrics: What counts.
    """

    store: MemoryBackend
    settings: Settings
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class Access:
    """The memory that a request has asked for and may reach.

    Attributes:
        memory_id: Its id.
        memory: The memory; there is no other way to the store.
        service: The limits and counters.
    """

    memory_id: str
    memory: Partition
    service: Service

    def filters(
        self, filters: dict[str, Any] | None, user_id: str | None = None, session_id: str | None = None
    ) -> dict[str, Any]:
        """Check a filter, with the ids that the request names beside it.

        Raises:
            FilterError: It is none.
            OtherUserError: It asks for another user than the key is for.
        """
        both = of_user(filters, user_id, session_id)
        self.memory.check_filter(parse(both))
        return both

    def beginning(self) -> Message:
        """An anchor before every message."""
        own = {} if self.memory.user_id is None else {USER_KEY: self.memory.user_id}
        return Message(role=MessageRole.USER, id="-", timestamp=-LATEST, metadata=own)


def _access(
    request: Request,
    memory_id: Annotated[str, Path(pattern=MEMORY_ID_PATTERN, description="The memory.")],
) -> Access:
    service: Service = request.app.state.service
    key: Key | None = request.scope["state"].get("key")
    if key is not None and memory_id not in key.memory_ids:
        raise ProblemError(403, "OtherMemory", "this key does not open this memory")
    only = service.settings.memory_id
    if only is not None and memory_id != only:
        raise ProblemError(404, "NotFound", "there is no such memory here")
    memory = Partition(service.store, None if only is not None else memory_id, key.user_id if key else None)
    return Access(memory_id, memory, service)


Accessed = Annotated[Access, Depends(_access)]
