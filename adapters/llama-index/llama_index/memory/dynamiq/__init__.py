"""LlamaIndex memory over dynamiq-memory."""

from llama_index.memory.dynamiq.base import DynamiqMemory

__all__ = ["DynamiqMemory"]
