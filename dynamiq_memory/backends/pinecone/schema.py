"""Finding an index, or creating it, and checking that it is of the right kind."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dynamiq_memory.backends.pinecone.client import Caller
from dynamiq_memory.backends.pinecone.errors import CLIENT_ERRORS, status_of
from dynamiq_memory.exceptions import BackendError, ConfigurationError, DynamiqMemoryError

_READY_SECONDS = 300.0
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0
_NOT_FOUND, _CONFLICT = 404, 409
_FAILED = ("InitializationFailed", "Terminating", "Disabled")


@dataclass(frozen=True, slots=True)
class Opened:
    """An index that is ready.

    Attributes:
        host: Where it is.
        dimension: How many numbers its vectors have.
        metric: How they are compared.
        serverless: Whether it is serverless, and lists ids.
    """

    host: str
    dimension: int
    metric: str
    serverless: bool


def open_index(
    client: Any,
    caller: Caller,
    name: str,
    *,
    create: Callable[[], dict[str, Any]] | None,
    metric: str,
) -> Opened:
    """Find an index, or create it, and wait until it is ready.

    Args:
        client: A client.
        caller: Repeats requests and translates errors.
        name: The index's name.
        create: What `create_index` needs to know beside the name; None if it is not to be created.
        metric: The metric that it must have.

    Raises:
        BackendError: It is not there, or does not become ready.
        ConfigurationError: It is of another kind.
    """
    found = _described(client, caller, name)
    if found is None:
        if create is None:
            raise BackendError(
                f"{caller.where} does not exist: create it, correct index_name, or open it with "
                "create_if_not_exist=True"
            )
        arguments = create()

        def make() -> None:
            try:
                client.create_index(name=name, timeout=-1, **arguments)
            except CLIENT_ERRORS as error:
                if status_of(error) != _CONFLICT:  # another process was faster
                    raise

        caller.repeat(make)
        found = _described(client, caller, name)
    deadline, wait = time.monotonic() + _READY_SECONDS, _FIRST_WAIT
    while found is None or not found.status["ready"]:
        if found is not None and str(found.status["state"]) in _FAILED:
            raise BackendError(f"{caller.where} is of no use, its state is {found.status['state']}: delete it")
        if time.monotonic() > deadline:
            raise BackendError(f"{caller.where} is not ready after {_READY_SECONDS:.0f} seconds: try again later")
        time.sleep(wait)
        wait = min(wait * 2, _LONGEST_WAIT)
        found = _described(client, caller, name)
    return _checked(found, caller.where, metric)


def _described(client: Any, caller: Caller, name: str) -> Any:
    def describe() -> Any:
        try:
            return client.describe_index(name)
        except CLIENT_ERRORS as error:
            if status_of(error) == _NOT_FOUND:
                return None
            raise

    return caller.repeat(describe)


def _checked(found: Any, where: str, metric: str) -> Opened:
    try:
        kind = getattr(found, "vector_type", None) or "dense"
        if kind != "dense":
            raise ConfigurationError(f"{where} holds {kind} vectors: use an index for dense ones")
        dimension, held = int(found.dimension), str(found.metric)
        serverless = _part(found.spec, "pod") is None
    except (AttributeError, TypeError, ValueError) as error:
        if isinstance(error, DynamiqMemoryError):
            raise
        raise ConfigurationError(
            f"{where} is not an index of vectors with one dimension and metric ({error}): give another index_name"
        ) from error
    if held != metric:
        raise ConfigurationError(
            f"{where} compares by {held!r}, not by metric={metric!r}, and that cannot be changed: open it with "
            f"metric={held!r}, or give another index_name and copy the messages there (get_all, then add_many)"
        )
    return Opened(str(found.host), dimension, held, serverless)


def _part(spec: Any, name: str) -> Any:
    return spec.get(name) if isinstance(spec, dict) else getattr(spec, name, None)
