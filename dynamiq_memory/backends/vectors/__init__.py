"""What the stores of vectors share."""

from dynamiq_memory.backends.vectors.embedding import MessageEmbedder

__all__ = ["MessageEmbedder"]
