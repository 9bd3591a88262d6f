"""Context managers for what has `close` and `aclose`."""

from __future__ import annotations

from abc import abstractmethod
from typing import Self


class Closing:
    """Closes itself at the end of a `with` or `async with` block."""

    @abstractmethod
    def close(self) -> None:
        """Release what was opened."""

    @abstractmethod
    async def aclose(self) -> None:
        """Release what was opened."""

    def __enter__(self) -> Self:
        """Return the object itself; leaving the block closes it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    async def __aenter__(self) -> Self:
        """Return the object itself; leaving the block closes it."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await self.aclose()
