"""How many prompt tokens an iteration takes, from the gaps that a long prompt tears into other answers.

Every iteration that computes a part of the prompt is a long gap. All parts but the last one are as large as the budget
allows, so the longest gap's share of all of them is the budget's share of the prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from trimtab.sim.profiling.target import Seen

_LONG_GAP: Final = 0.1  # of the longest gap's excess: what is below is not a part of the prompt
_ROUNDING: Final = 0.2


@dataclass(frozen=True, slots=True)
class Budget:
    """Tokens that one iteration computes at most.

    Attributes:
        tokens: The power of two nearest to what was seen, else what was seen.
        low: The least that was seen.
        high: The most; None where every prompt fitted into one iteration.
    """

    tokens: int
    low: int
    high: int | None


def estimate_budget(interrupted: Sequence[tuple[list[Seen], list[Seen]]]) -> Budget | None:
    """The budget, by the longest prompts that interrupted others; None where none did."""
    longest = max((each.prompt_tokens for _, intruders in interrupted for each in intruders), default=0)
    shares = [
        (share, each.prompt_tokens)
        for others, intruders in interrupted
        for each in intruders
        if each.prompt_tokens >= 0.9 * longest and (share := _largest_part(each, others)) is not None
    ]
    if not shares:
        return None
    parts = [share * prompt for share, prompt in shares]
    middle = float(np.median(parts))
    low, high = round(min(parts)), round(max(parts))
    if np.median([share for share, _ in shares]) > 1 - _LONG_GAP:
        return Budget(_power_of_two_above(middle), round(middle), None)
    return Budget(_rounded(middle), low, high)


def _largest_part(intruder: Seen, others: Sequence[Seen]) -> float | None:
    """The largest part of a prompt that one iteration computed."""
    decoding = [s for s in others if s.first_at < intruder.sent_at and s.last_at > intruder.first_at]
    gaps = [_gaps(other, intruder) for other in decoding]
    gaps = [each for each in gaps if len(each)]
    if not gaps:
        return None
    usual = float(np.median([np.median(np.diff(other.pieces)) for other in decoding]))
    shares = []
    for each in gaps:
        excess = np.maximum(each - usual, 0.0)
        if excess.max() <= usual * _LONG_GAP:
            continue
        parts = excess[excess > _LONG_GAP * excess.max()]
        shares.append(float(parts.max() / parts.sum()))
    return float(np.median(shares)) if shares else None


def _gaps(other: Seen, intruder: Seen) -> np.ndarray:
    pieces = np.array(other.pieces)
    inside = (pieces[1:] > intruder.sent_at) & (pieces[:-1] < intruder.first_at - 1e-4)
    return np.diff(pieces)[inside]


def _power_of_two_above(tokens: float) -> int:
    return int(2 ** np.ceil(np.log2(tokens * (1 - _LONG_GAP))))


def _rounded(tokens: float) -> int:
    nearest = int(2 ** np.round(np.log2(tokens)))
    return nearest if abs(nearest / tokens - 1) <= _ROUNDING else round(tokens)
