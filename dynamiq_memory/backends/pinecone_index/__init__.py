"""The parts of the Pinecone backend."""
