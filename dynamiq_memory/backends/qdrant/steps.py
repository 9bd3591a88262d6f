"""The step of Qdrant's plans: a call of the client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dynamiq_memory.backends.plans import Step


@dataclass(frozen=True, slots=True)
class Ask(Step[Any]):
    """A call of the client, on the collection. Each can be repeated: twice has the effect of once.

    Attributes:
        method: The client's method.
        arguments: Its arguments after the collection's name.
    """

    method: str
    arguments: Mapping[str, Any]
