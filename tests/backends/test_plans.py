"""The engine that runs plans."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from dynamiq_memory.backends.plans import Plan, Step, arun, run


@dataclass(frozen=True, slots=True)
class Double(Step[int]):
    number: int


class Resource:
    """An object that an error refers to."""


Perform = Callable[[Double], int]


def synchronously(plan: Plan[Any], perform: Perform) -> Any:
    return run(plan, perform)


def asynchronously(plan: Plan[Any], perform: Perform) -> Any:
    async def perform_later(step: Double) -> int:
        await asyncio.sleep(0)
        return perform(step)

    return asyncio.run(arun(plan, perform_later))


@pytest.fixture(params=[synchronously, asynchronously])
def carry_out(request: pytest.FixtureRequest) -> Any:
    return request.param


def doubled(step: Double) -> int:
    return 2 * step.number


def test_a_plan_gets_the_results_of_its_steps_and_of_other_plans(carry_out: Any) -> None:
    def inner(number: int) -> Plan[int]:
        return (yield from Double(number)) + 1

    def outer() -> Plan[list[int]]:
        first = yield from inner(1)
        second = yield from Double(first)
        return [first, second]

    assert carry_out(outer(), doubled) == [3, 6]


def test_an_error_is_raised_where_the_plan_waits(carry_out: Any) -> None:
    ended = []

    def plan() -> Plan[int]:
        try:
            return (yield from Double(1))
        except LookupError:
            return (yield from Double(2))
        finally:
            ended.append(True)

    def fails_once(step: Double) -> int:
        if step.number == 1:
            raise LookupError
        return doubled(step)

    assert carry_out(plan(), fails_once) == 4
    assert ended == [True]


def test_a_cancelled_plan_ends_as_a_coroutine_does() -> None:
    ended = []

    def plan() -> Plan[int]:
        try:
            return (yield from Double(1))
        finally:
            ended.append(True)

    async def never(_: Double) -> int:
        return await asyncio.Future()

    async def cancel() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(arun(plan(), never), 0.01)

    asyncio.run(cancel())
    assert ended == [True]


def test_an_error_that_leaves_a_plan_keeps_nothing_alive() -> None:
    def plan() -> Plan[int]:
        return (yield from Double(1))

    def fails(_: Double) -> int:
        raise LookupError(Resource())

    gc.disable()
    try:
        try:
            run(plan(), fails)
        except LookupError as error:
            resource = weakref.ref(error.args[0])
        assert resource() is None
    finally:
        gc.enable()
