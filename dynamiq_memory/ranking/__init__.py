"""Keyword ranking for stores that cannot rank, or cannot rank within a scope; fusion with other rankings."""

from dynamiq_memory.ranking.bm25 import BM25, InvertedIndex
from dynamiq_memory.ranking.scores import Score
from dynamiq_memory.ranking.tokenizer import Tokenize, Tokenizer

__all__ = ["BM25", "InvertedIndex", "Score", "Tokenize", "Tokenizer"]
