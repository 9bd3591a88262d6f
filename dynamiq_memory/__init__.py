"""Conversation memory for AI agents.

`Memory` stores every message of a conversation and returns the right ones on the next turn: the most recent, the most
relevant, or both, always within a user and a session. The messages are stored in a backend of your choice (see
`dynamiq_memory.backends`).
"""

from dynamiq_memory.backends.base import Capabilities, MemoryBackend
from dynamiq_memory.conversation.dating import Dates
from dynamiq_memory.conversation.openai import to_openai
from dynamiq_memory.conversation.placement import Placement
from dynamiq_memory.conversation.saving import MemorySaveMode, select_to_save
from dynamiq_memory.conversation.strategies import Explanation, MemoryRetrievalStrategy, Pick, Reason
from dynamiq_memory.conversation.tokens import count_tokens_approximately, token_counter
from dynamiq_memory.conversation.windows import Window
from dynamiq_memory.exceptions import (
    BackendAuthenticationError,
    BackendConnectionError,
    BackendError,
    ConfigurationError,
    DynamiqMemoryError,
    FilterError,
    InvalidArgumentError,
    MessageError,
    MessageTooLargeError,
    MissingDependencyError,
    PartialWriteError,
)
from dynamiq_memory.forgetting import Erasure, Receipt
from dynamiq_memory.formatting import FormatType
from dynamiq_memory.integrations.references import register_memory
from dynamiq_memory.memory import Memory
from dynamiq_memory.messages import Message, MessageRole, Session

__version__ = "0.1.0"

__all__ = [
    "BackendAuthenticationError",
    "BackendConnectionError",
    "BackendError",
    "Capabilities",
    "ConfigurationError",
    "Dates",
    "DynamiqMemoryError",
    "Erasure",
    "Explanation",
    "FilterError",
    "FormatType",
    "InvalidArgumentError",
    "Memory",
    "MemoryBackend",
    "MemoryRetrievalStrategy",
    "MemorySaveMode",
    "Message",
    "MessageError",
    "MessageRole",
    "MessageTooLargeError",
    "MissingDependencyError",
    "PartialWriteError",
    "Pick",
    "Placement",
    "Reason",
    "Receipt",
    "Session",
    "Window",
    "count_tokens_approximately",
    "register_memory",
    "select_to_save",
    "to_openai",
    "token_counter",
]

# Errors and reprs name what users import. Memory keeps its module's name, which its descriptions contain.
for _name in __all__:
    if isinstance(_public := globals()[_name], type) and _public is not Memory:
        _public.__module__ = __name__
