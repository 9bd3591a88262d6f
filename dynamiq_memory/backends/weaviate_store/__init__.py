"""The parts of the Weaviate backend."""
