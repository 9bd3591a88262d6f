"""The parts of the Qdrant backend."""
