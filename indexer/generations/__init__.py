"""Published builds of the vector index."""
