"""Requests to the server, as steps of a plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from dynamiq_memory.backends.plans import Step

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Request(Step[T_co]):
    """A request about the memory; its result is what `read` returns.

    Attributes:
        method: The HTTP method.
        path: The path below the memory, such as "/items".
        read: Reads the JSON of the response (None if it has no body). If it raises, another API has responded.
        params: The parameters in the URL.
        body: The JSON to send.
        repeatable: Whether it can be sent again when its response is lost.
        accept: Error statuses to read like any other response; one without JSON is read as None.
    """

    method: str
    path: str
    read: Callable[[Any], T_co]
    params: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    repeatable: bool = True
    accept: tuple[int, ...] = ()


def no_result(_: Any) -> None:
    """Read a response that does not matter."""
