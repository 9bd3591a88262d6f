"""Context managers for objects with `close` and `aclose`."""

from __future__ import annotations

from abc import abstractmethod
from typing import Self


class Closing:
    """An object that closes itself at the end of a `with` or `async with` block."""

    @abstractmethod
    def close(self) -> None:
        """Release all resources."""

    @abstractmethod
    async def aclose(self) -> None:
        """Release all resources."""

    def __enter__(self) -> Self:
        """Return the object itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the object."""
        self.close()

    async def __aenter__(self) -> Self:
        """Return the object itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the object."""
        await self.aclose()
