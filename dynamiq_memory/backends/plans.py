"""Logic written once for synchronous and asynchronous callers.

A plan is a generator that yields steps and receives their results. Iterating over a step yields it, so that
`yield from` returns its result with the right type:

    def newest(filter: Filter) -> Plan[Message | None]:
        found = yield from Read(filter, limit=1)  # list[Message]
        return found[0] if found else None

    run(newest(filter), backend.execute)
    await arun(newest(filter), backend.aexecute)

`run` and `arun` carry out a plan by performing each step with the given function. If a step fails, its exception is
raised inside the plan, at the `yield from`, as if the plan had called the client itself. This includes cancellation and
interrupts: `try … finally` in a plan works as it does in a coroutine.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Never, TypeVar

from dynamiq_memory.backends._threads import in_thread
from dynamiq_memory.backends._weights import LARGE, weigh

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Step(Generic[T_co]):
    """A step of a plan; T_co is the type of its result."""

    __slots__ = ()

    def __iter__(self) -> Generator[Step[Any], Any, T_co]:
        """Yield the step from a plan and return its result."""
        result: T_co = yield self
        return result


@dataclass(frozen=True, slots=True)
class Compute(Step[T_co]):
    """Run a long computation, in a thread if it would block an event loop.

    Attributes:
        work: The function to call. Its result is the result of the step.
    """

    work: Callable[[], T_co]


@dataclass(frozen=True, slots=True)
class Wait(Step[None]):
    """Wait.

    Attributes:
        seconds: Seconds to wait.
    """

    seconds: float


Plan = Generator[Step[Any], Any, T]


def run(plan: Plan[T], perform: Callable[[Any], Any]) -> T:
    """Carry out a plan.

    Args:
        plan: The plan.
        perform: Performs one step and returns its result.
    """
    with closing(plan):  # a traceback may keep the plan alive, and what it holds
        proceed = partial(plan.send, None)
        try:
            while True:
                step = proceed()
                try:
                    proceed = partial(plan.send, perform(step))
                except BaseException as error:  # noqa: BLE001 - raised again inside the plan
                    proceed = partial(plan.throw, error)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        finally:
            del proceed  # an error, its traceback and this frame would be a cycle


async def arun(plan: Plan[T], perform: Callable[[Any], Awaitable[Any]], *, given: Any = None, light: bool = False) -> T:
    """Carry out a plan asynchronously.

    The parts of the plan between its steps run in the event loop's thread. After results that are so large that
    working on them would hold up the loop, they run in another thread.

    Args:
        plan: The plan.
        perform: Performs one step and returns an awaitable for its result.
        given: The data of the first steps of the plan. Results of steps are added.
        light: Whether the plan hardly works on results, however large.
    """
    weight = 0 if light else weigh(given)
    with closing(plan):
        proceed = partial(plan.send, None)
        try:
            while True:
                step = proceed() if weight < LARGE else (await _proceed_in_thread(plan, proceed))()
                try:
                    result = await perform(step)
                except BaseException as error:  # noqa: BLE001 - raised again inside the plan
                    proceed = partial(plan.throw, error)
                else:
                    weight += 0 if light else weigh(result)
                    proceed = partial(plan.send, result)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        finally:
            del proceed  # an error, its traceback and this frame would be a cycle


async def _proceed_in_thread(plan: Plan[Any], proceed: Callable[[], Any]) -> Callable[[], Any]:
    """Proceed to the next step of a plan, and return a function that returns it, or raises what the plan raised."""
    while True:
        try:
            return await in_thread(_outcome, proceed)
        except BaseException as error:  # noqa: BLE001 - a cancellation, raised again inside the plan
            proceed = partial(plan.throw, error)


def _outcome(proceed: Callable[[], Any]) -> Callable[[], Any]:
    try:
        step = proceed()
    except BaseException as error:  # noqa: BLE001 - raised again by the caller; a future takes no StopIteration
        return partial(_raise, error)
    return lambda: step


def _raise(error: BaseException) -> Never:
    raise error
