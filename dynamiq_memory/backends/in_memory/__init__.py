"""Messages in this process."""

from dynamiq_memory.backends.in_memory.backend import InMemory

__all__ = ["InMemory"]

InMemory.__module__ = __name__
