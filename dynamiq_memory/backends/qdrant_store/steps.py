"""What an operation asks for, step by step: written once, carried out synchronously or asynchronously.

An operation is a generator that yields steps and is sent their results.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from dynamiq_memory.messages import Message

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ask:
    """A call of the client's, on the collection. Each can be repeated: twice has the effect of once.

    Attributes:
        method: The client's method.
        arguments: What it is given besides the collection's name.
    """

    method: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class EmbedMessages:
    """Embed the texts of messages."""

    messages: Sequence[Message]


@dataclass(frozen=True, slots=True)
class EmbedQuery:
    """Embed a query."""

    query: str


Step = Ask | EmbedMessages | EmbedQuery
Operation = Generator[Step, Any, T]
