"""Ways of doing the same, timed in turns, so that a disturbance meets all of them."""

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence

Rates = dict[str, list[float]]
"""What each way does in a second, round by round."""


def say(what: str) -> None:
    """Tell how far the work has come."""
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def in_turns(ways: Mapping[str, Callable[[], float]], rounds: int) -> Rates:
    """Ask each way for its rate, one after the other, several times.

    Every second round goes backwards, so that none always follows the same one.
    """
    rates: Rates = {name: [] for name in ways}
    for number in range(rounds):
        for name in list(ways)[:: 1 if number % 2 == 0 else -1]:
            rates[name].append(ways[name]())
            say(f"  round {number + 1} of {rounds}, {name}: {rates[name][-1]:.2f} a second")
    return rates


def median(values: Sequence[float], digits: int = 4) -> float:
    """Their median, for people."""
    return round(statistics.median(values), digits)


def ratio(faster: Sequence[float], slower: Sequence[float]) -> float:
    """Median of the ratios of each round."""
    return median([one / other for one, other in zip(faster, slower, strict=True)], 2)


def rounded(rates: Rates) -> Rates:
    """The same, for people."""
    return {name: [round(rate, 3) for rate in of_way] for name, of_way in rates.items()}
