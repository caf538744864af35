"""The error of a filter that cannot be read."""

from indexer.errors import InvalidInputError


def refused(message: str) -> InvalidInputError:
    """The error of a filter, ready to be raised.

    Args:
        message: What was found and what to write; text of the caller's in it is quoted.
    """
    return InvalidInputError(f"Filter: {message}", kind="invalid-filter")
