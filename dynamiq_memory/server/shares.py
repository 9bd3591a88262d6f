"""Shares of the service: no client takes it away from the others."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from starlette.types import Message, Receive

from dynamiq_memory.server.errors import RETRY, ProblemError

_DISCONNECT = "http.disconnect"
# Received of a request that waits. A client that sends more is missed only when the request has its turn.
_RECEIVED_BYTES = 65_536


class Shares:
    """Handles some requests of each client at once; its others wait for their turn.

    Args:
        at_once: Maximum number of a client's requests that are handled at once.
        waiting: Maximum number of a client's requests that wait.
        seconds: Maximum time that a request waits.
    """

    def __init__(self, at_once: int, waiting: int, seconds: float) -> None:
        """Start without clients."""
        self._at_once = at_once
        self._most = at_once + waiting
        self._seconds = seconds
        self._queues: dict[str, _Queue] = {}

    @asynccontextmanager
    async def turn(self, client: str, inbox: Inbox) -> AsyncIterator[None]:
        """Wait for a request's turn, and hold the client's place until the request is done.

        Args:
            client: The client's key or address.
            inbox: The body that the request's client sends.

        Raises:
            ProblemError: Too many requests of the client wait, this one waited too long, or its client is gone.
        """
        queue = self._queues.setdefault(client, _Queue(asyncio.Semaphore(self._at_once)))
        if queue.requests >= self._most:
            detail = f"{queue.requests:,} requests of yours wait: send this one again later, and fewer at once"
            raise ProblemError(429, "TooManyRequests", detail, RETRY)
        queue.requests += 1
        try:
            await self._wait(queue, inbox)
            try:
                yield
            finally:
                queue.places.release()
        finally:
            queue.requests -= 1
            if not queue.requests:
                del self._queues[client]

    async def _wait(self, queue: _Queue, inbox: Inbox) -> None:
        if not queue.places.locked():
            await queue.places.acquire()
            return
        try:
            async with asyncio.timeout(self._seconds) as timeout:
                with inbox.watched(timeout):
                    await queue.places.acquire()
        except TimeoutError:
            if inbox.client_is_gone:
                raise ProblemError(400, "Disconnected", "the client disconnected") from None
            detail = (
                f"the request waited {self._seconds:g} seconds for {self._at_once} others of yours to end: send fewer "
                "at once, or start the service with a higher --max-concurrent"
            )
            raise ProblemError(429, "TooManyRequests", detail, RETRY) from None


class Inbox:
    """What a request's client sends, some of which is received while the request waits.

    Args:
        receive: The server's function.
    """

    def __init__(self, receive: Receive) -> None:
        """Receive nothing yet."""
        self._receive = receive
        self._received: deque[Message] = deque()

    @property
    def client_is_gone(self) -> bool:
        """Whether the client has disconnected while the request waited."""
        return any(message["type"] == _DISCONNECT for message in self._received)

    async def receive(self) -> Message:
        """Return what was received while the request waited, then what the server receives."""
        return self._received.popleft() if self._received else await self._receive()

    @contextmanager
    def watched(self, deadline: asyncio.Timeout) -> Iterator[None]:
        """End a deadline when the client disconnects. Of a long body, only the first part is received."""
        watch = asyncio.create_task(self._watch(deadline))
        try:
            yield
        finally:
            watch.cancel()

    async def _watch(self, deadline: asyncio.Timeout) -> None:
        size = 0
        while size < _RECEIVED_BYTES:
            message = await self._receive()
            self._received.append(message)
            if message["type"] == _DISCONNECT:
                if not deadline.expired():
                    deadline.reschedule(asyncio.get_running_loop().time())
                return
            size += len(message.get("body", b""))


@dataclass(slots=True)
class _Queue:
    """The requests of a client: the places for those that are handled, and the number of all."""

    places: asyncio.Semaphore
    requests: int = 0


class Limit:
    """Stops a request if its response does not start in time, or its client is gone.

    Args:
        body: The body, which has been read already.
        receive: The server's function, for what comes after the body.
        seconds: Maximum time until the response starts.
    """

    def __init__(self, body: bytes, receive: Receive, seconds: float) -> None:
        """Start no timer yet."""
        self._body: bytes | None = body
        self._receive = receive
        self._timeout = asyncio.timeout(seconds)
        self._gone = asyncio.Event()

    @property
    def client_is_gone(self) -> bool:
        """Whether the client has disconnected."""
        return self._gone.is_set()

    async def receive(self) -> Message:
        """Return the body, then wait until the client disconnects."""
        body, self._body = self._body, None
        if body is not None:
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": _DISCONNECT}

    def started(self) -> None:
        """Stop the timer, since the response starts."""
        if not self.client_is_gone:
            self._end(None)

    @contextmanager
    def _watching(self) -> Iterator[None]:
        watch = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watch.cancel()

    @asynccontextmanager
    async def applied(self) -> AsyncIterator[None]:
        """Cancel what runs inside as described.

        Raises:
            LimitError: It was cancelled.
        """
        try:
            async with self._timeout:
                with self._watching():
                    yield
        except TimeoutError as error:
            if not self._timeout.expired():
                raise
            raise LimitError from error

    async def _watch(self) -> None:
        while (await self._receive())["type"] != _DISCONNECT:
            pass
        self._gone.set()
        self._end(asyncio.get_running_loop().time())

    def _end(self, time: float | None) -> None:
        if not self._timeout.expired():
            self._timeout.reschedule(time)


class LimitError(Exception):
    """A request was stopped by its `Limit`."""
