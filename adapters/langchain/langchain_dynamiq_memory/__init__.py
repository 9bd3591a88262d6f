"""LangChain over dynamiq-memory: middleware for agents, and a chat history for chains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dynamiq_memory import MissingDependencyError
from langchain_dynamiq_memory.chain import with_message_history
from langchain_dynamiq_memory.history import DynamiqChatMessageHistory

if TYPE_CHECKING:
    from langchain_dynamiq_memory.middleware import DynamiqMemoryMiddleware

__version__ = "0.1.0"

__all__ = ["DynamiqChatMessageHistory", "DynamiqMemoryMiddleware", "with_message_history"]


def __getattr__(name: str) -> Any:
    if name != "DynamiqMemoryMiddleware":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from langchain_dynamiq_memory.middleware import DynamiqMemoryMiddleware  # noqa: PLC0415 - needs an extra
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"langchain", "langgraph"}:
            raise
        raise MissingDependencyError(
            "DynamiqMemoryMiddleware needs langchain: pip install 'langchain-dynamiq-memory[agents]'"
        ) from error
    return DynamiqMemoryMiddleware


def __dir__() -> list[str]:
    return __all__
