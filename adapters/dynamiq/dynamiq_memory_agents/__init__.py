"""dynamiq-memory for agents of the `dynamiq` package: `Agent(memory=AgentMemory(memory=Memory(…)))`."""

from __future__ import annotations

from dynamiq_memory_agents.memory import AgentMemory

__version__ = "0.1.0"

__all__ = ["AgentMemory", "__version__"]
