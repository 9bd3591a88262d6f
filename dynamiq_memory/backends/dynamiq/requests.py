"""Requests as steps of a plan: what decides over them is written once, for synchronous and asynchronous clients."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """A request to the server; its step's result is the JSON of the answer, or None if it has none.

    Attributes:
        method: The HTTP method.
        path: The path below the memory, such as "/items".
        params: What goes into the URL.
        body: What is sent as JSON.
        repeatable: Whether it can be sent again when its answer is lost.
        accept: Statuses whose answer's JSON is a result, although they are errors.
    """

    method: str
    path: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    repeatable: bool = True
    accept: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Work:
    """What takes this process a while; off the event loop, if there is one."""

    do: Callable[[], Any]


Exchange = Generator[Request | Work, Any, T]
