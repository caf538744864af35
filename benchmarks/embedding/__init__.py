"""How fast images become embeddings: ``python -m benchmarks.embedding``."""
