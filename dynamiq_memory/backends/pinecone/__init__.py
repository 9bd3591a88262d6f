"""Messages in a Pinecone index."""

from dynamiq_memory.backends.pinecone.backend import Pinecone
from dynamiq_memory.backends.pinecone.schema import PineconeIndexType, PineconeSimilarityMetric

__all__ = ["Pinecone", "PineconeIndexType", "PineconeSimilarityMetric"]

for _public in (Pinecone, PineconeIndexType, PineconeSimilarityMetric):
    _public.__module__ = __name__
