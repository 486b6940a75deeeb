"""Quantiles of very many values in a small space."""

import math
from collections import Counter

_STEPS_PER_E = 50
_SMALLEST = 1e-6


class LogHistogram:
    """Counts positive values in buckets that each span 2 %, so that a quantile is off by at most 1 %."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self.total = 0

    def add(self, value: float) -> None:
        """Count one value; what is below a millionth counts as a millionth."""
        self._counts[math.floor(math.log(max(value, _SMALLEST)) * _STEPS_PER_E)] += 1
        self.total += 1

    def percentile(self, percent: float) -> float:
        """Return the middle of the bucket that holds the nearest-rank percentile; NaN when nothing was counted."""
        rank = max(1, math.ceil(percent / 100 * self.total))
        for bucket in sorted(self._counts):
            rank -= self._counts[bucket]
            if rank <= 0:
                return math.exp((bucket + 0.5) / _STEPS_PER_E)
        return math.nan
