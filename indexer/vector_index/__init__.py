"""The vector index: unit vectors in inverted lists, searched as they are or through a filter."""
