"""Messages on the Dynamiq platform, or on the memory service of this package."""

from dynamiq_memory.backends.dynamiq.backend import Dynamiq

__all__ = ["Dynamiq"]

Dynamiq.__module__ = __name__
