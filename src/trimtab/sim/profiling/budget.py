"""How many tokens an iteration takes, from the gaps that long prompts tear into other answers.

Every iteration that computes a part of a prompt is a long gap. All parts but the last one are as large as the budget
allows, so a prompt of p tokens that came in k parts says that the budget is from p / k to p / (k - 1); the budget that
agrees with most prompts is taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

import numpy as np
import numpy.typing as npt

from trimtab.sim.profiling.target import Seen

_LONG_GAP: Final = 0.15  # of the longest gap's excess: what is below is not a part of the prompt, or too small a part
_GRID: Final = 64
_CLEARLY: Final = 0.25  # of the prompts: a budget below the longest prompt must agree with so many more than none
_NOISE: Final = 3.0  # times what usual gaps vary: what is below is no long gap
_AS_GOOD: Final = 0.03  # of the prompts: a rounder budget may agree with so many fewer


@dataclass(frozen=True, slots=True)
class Budget:
    """Tokens that one iteration computes at most.

    Attributes:
        tokens: The power of two that agrees best, unless others agree clearly better.
        low: The least that agrees as well.
        high: The most; None where every prompt fitted into one iteration.
    """

    tokens: int
    low: int
    high: int | None


@dataclass(frozen=True, slots=True)
class _Prompt:
    tokens: int
    decoding: int
    parts: int

    def agrees(self, budget: int) -> bool:
        """Whether it would have come in as many parts as it did; a small last part may have gone unseen."""
        room = budget - self.decoding
        if room < 1:
            return False
        parts = ceil(self.tokens / room)
        last = self.tokens - (parts - 1) * room
        return parts == self.parts or (last < 2 * _LONG_GAP * room and parts == self.parts + 1)


def estimate_budget(interrupted: Sequence[tuple[list[Seen], list[Seen]]]) -> Budget | None:
    """The budget, by the prompts that interrupted others; None where none did."""
    prompts = [p for others, intruders in interrupted for i in intruders if (p := _prompt(i, others)) is not None]
    if not prompts:
        return None
    longest = max(prompt.tokens for prompt in prompts)
    prompts = [prompt for prompt in prompts if prompt.tokens > longest / 3]  # short ones agree with everything
    grid = range(_GRID, longest + 2 * _GRID, _GRID)
    scores = {budget: float(np.mean([prompt.agrees(budget) for prompt in prompts])) for budget in grid}
    best = max(scores.values())
    if best < scores[grid[-1]] + _CLEARLY:  # that every prompt came in one part explains about as much
        return Budget(int(2 ** np.ceil(np.log2(longest))), longest, None)
    good = [budget for budget, score in scores.items() if score >= best - _AS_GOOD]
    round_ones = [budget for budget in good if budget & (budget - 1) == 0]
    middle = float(np.median(good))
    tokens = min(round_ones, key=lambda budget: abs(np.log2(budget / middle))) if round_ones else int(middle)
    return Budget(tokens, min(good), max(good))


def _prompt(intruder: Seen, others: Sequence[Seen]) -> _Prompt | None:
    decoding = [s for s in others if s.first_at < intruder.sent_at and s.last_at > intruder.first_at]
    if not decoding:
        return None
    gaps = np.concatenate([np.diff(other.pieces) for other in decoding])
    usual, high = (float(value) for value in np.quantile(gaps, [0.5, 0.8]))
    parts = [_parts(np.array(other.pieces), intruder, usual, _NOISE * (high - usual)) for other in decoding]
    return _Prompt(intruder.prompt_tokens, len(decoding), round(float(np.median(parts))))


def _parts(pieces: npt.NDArray[np.float64], intruder: Seen, usual: float, noise: float) -> int:
    """How many gaps, while the prompt was computed, are long; one of them is, if only a little."""
    # The answers' pieces of the iteration that ended the prompt came with the intruder's first one.
    last = int(np.abs(pieces - intruder.first_at).argmin())
    excess = np.diff(pieces[: last + 1])[pieces[1 : last + 1] > intruder.sent_at] - usual
    return max(1, int((excess > max(_LONG_GAP * excess.max(), noise)).sum())) if excess.size else 1
