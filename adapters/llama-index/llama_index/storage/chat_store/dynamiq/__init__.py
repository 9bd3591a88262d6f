"""LlamaIndex chat stores over dynamiq-memory."""

from llama_index.core.storage.chat_store.loading import RECOGNIZED_CHAT_STORES

from llama_index.storage.chat_store.dynamiq.async_store import DynamiqAsyncChatStore
from llama_index.storage.chat_store.dynamiq.base import DynamiqChatStore

# So that a ChatMemoryBuffer with our store comes back from its JSON.
RECOGNIZED_CHAT_STORES[DynamiqChatStore.class_name()] = DynamiqChatStore  # type: ignore[assignment]

__all__ = ["DynamiqAsyncChatStore", "DynamiqChatStore"]
