"""Counts tokens as a model's own tokenizer does."""

from functools import cache
from pathlib import Path

import mistral_common
from mistral_common.tokens.tokenizers.tekken import Tekkenizer


@cache
def _tokenizer() -> Tekkenizer:
    # Mistral AI's tokenizer "Tekken", whose vocabulary comes with the package. It never joins
    # digits, so that answers full of numbers cost it more than most others.
    file = Path(mistral_common.__file__).parent / "data" / "tekken_240911.json"
    return Tekkenizer.from_file(file)


def count_tokens(text: str) -> int:
    """Tokens of a text, without those that begin or end a message."""
    return len(_tokenizer().encode(text, bos=False, eos=False))
