"""Backends with a synchronous and an asynchronous client, for which each operation is a plan."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from dynamiq_memory.backends._embedding import Embed, EmbedQuery, MessageEmbedder
from dynamiq_memory.backends.base import MemoryBackend
from dynamiq_memory.backends.operations import Operation, Search
from dynamiq_memory.backends.plans import Compute, Plan, Step, Wait, arun, run
from dynamiq_memory.exceptions import DynamiqMemoryError, PartialWriteError

if TYPE_CHECKING:
    from dynamiq_memory.backends._loops import ClientPerLoop

T = TypeVar("T")


class PlannedBackend(MemoryBackend):
    """A backend that performs operations with plans, which are run by a synchronous or an asynchronous client.

    A store implements `_plan`, which returns the plan of an operation, and `_ask` and `_aask`, which send one request
    of a plan. This class handles embedding, waiting, computing and retries of failed requests.
    """

    request_errors: tuple[type[Exception], ...] = ()
    """The client's exceptions for failed requests, which are passed to `_wait_before_retry`."""
    _embedder: MessageEmbedder | None = None
    _per_loop: ClientPerLoop[Any] | None = None
    """The asynchronous clients. Without them, asynchronous callers use threads."""

    @property
    def _is_asynchronous(self) -> bool:
        """Whether there is an asynchronous client."""
        return self._per_loop is not None

    def _plan(self, operation: Operation[Any]) -> Plan[Any]:
        """Return the plan of an operation. The default plans use Read, Write and Delete."""
        return operation.default_plan(self)

    @abstractmethod
    def _ask(self, request: Any) -> Any:
        """Send a request of a plan and return its result."""

    async def _aask(self, request: Any) -> Any:
        """Send a request of a plan and return its result. By default, this uses a thread."""
        return await self._in_thread(self._ask, request)

    def _wait_before_retry(self, error: Exception, attempt: int) -> float:  # noqa: ARG002
        """Return the seconds to wait before retrying a request that failed `attempt` times. By default, never retry.

        Raises:
            DynamiqMemoryError: The request must not be retried; the error is raised inside the plan.
        """
        raise self._translate(error) from error

    @property
    def _fits_in_a_url(self) -> bool:
        """Whether a URL can describe how the backend ranks."""
        return self._has_default_ranking and (self._embedder is None or self._embedder.given_name is not None)

    def _perform(self, operation: Operation[T]) -> T:
        result: T = self._run(self._plan_of(operation))
        return result

    async def _aperform(self, operation: Operation[T]) -> T:
        if not self._is_asynchronous:
            return await super()._aperform(operation)
        result: T = await self._arun(self._beginning(operation), given=operation)
        return result

    def _beginning(self, operation: Operation[Any]) -> Plan[Any]:
        return (yield from self._plan_of(operation))

    def _plan_of(self, operation: Operation[Any]) -> Plan[Any]:
        if isinstance(operation, Search) and self._only_stop_words(operation.query):
            return operation.default_plan(self)
        return self._plan(operation)

    def _run(self, plan: Plan[T]) -> T:
        return run(plan, self._step)

    async def _arun(self, plan: Plan[T], given: Any = None) -> T:
        return await arun(plan, self._astep, given=given)

    def _step(self, step: Step[Any]) -> Any:
        match step:
            case Operation():
                return self._perform(step)
            case Embed(messages):
                return [None] * len(messages) if self._embedder is None else self._embedder.embed(messages)
            case EmbedQuery(query):
                return None if self._embedder is None else self._embedder.embed_query(query)
            case Compute(work):
                return work()
            case Wait(seconds):
                return time.sleep(seconds)
        attempt = 0
        while True:
            attempt += 1
            try:
                return self._ask(step)
            except self.request_errors as error:
                wait = self._wait_before_retry(error, attempt)
            time.sleep(wait)

    async def _astep(self, step: Step[Any]) -> Any:
        match step:
            case Operation():
                return await self._aperform(step)
            case Embed(messages):
                return [None] * len(messages) if self._embedder is None else await self._embedder.aembed(messages)
            case EmbedQuery(query):
                return None if self._embedder is None else await self._embedder.aembed_query(query)
            case Compute(work):
                return await self._in_thread(work)
            case Wait(seconds):
                return await asyncio.sleep(seconds)
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._aask(step)
            except self.request_errors as error:
                wait = self._wait_before_retry(error, attempt)
            await asyncio.sleep(wait)

    async def aclose(self) -> None:
        """Release all resources that the backend opened; see `close`."""
        if self._per_loop is not None:
            await self._per_loop.aclose()
        await super().aclose()

    def _close(self) -> None:
        if self._per_loop is not None:
            self._per_loop.close()
        if self._embedder is not None:
            self._embedder.close()


def stored_in_batches(
    batches: Sequence[list[T]], store: Callable[[list[T]], Plan[Any] | Step[Any]], id_of: Callable[[T], str]
) -> Plan[None]:
    """Store messages in batches, in a store without transactions.

    Args:
        batches: The batches, which are stored one after the other.
        store: Stores a batch.
        id_of: Returns the id of a message in a batch.

    Raises:
        PartialWriteError: A batch failed after some messages had been stored.
    """
    stored: list[str] = []
    for batch in batches:
        try:
            yield from store(batch)
        except DynamiqMemoryError as error:
            if isinstance(error, PartialWriteError):
                stored += error.stored_ids
            if not stored:
                raise
            raise PartialWriteError(
                f"{error}. {len(stored)} of {sum(map(len, batches))} messages are stored: adding the same messages "
                "again is safe",
                stored,
            ) from error
        stored += map(id_of, batch)
