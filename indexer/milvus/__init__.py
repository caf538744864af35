"""The vectors of a generation on a Milvus server instead of in files; all else stays as it is."""
