"""Search in vectors, filtered and not: what the harness's adapter and its companions share."""
