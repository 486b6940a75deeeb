"""How well one order agrees with another."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ranks = NDArray[np.int64]


def kendall_tau(predicted: ArrayLike, true: ArrayLike) -> float:
    """Return (concordant - discordant) / all pairs, where a pair that ties on either side counts 0.

    This is the tau of ssjf.md §2: unlike the usual tau-b it does not leave ties out of the denominator, so that a
    predictor which cannot tell requests apart scores 0, not "undefined". Costs O(n log n).

    Args:
        predicted: one number per request, without NaN.
        true: one number per request, in the same order.

    Returns:
        A number between -1 and 1; 0 for fewer than two requests.
    """
    a, b = _ranks(predicted), _ranks(true)
    if a.size != b.size:
        raise ValueError(f"{a.size} predictions for {b.size} lengths")
    pairs = _pairs(a.size)
    if not pairs:
        return 0.0
    b_in_order = b[np.lexsort((b, a))]
    discordant = _inversions(b_in_order)
    both = a * (b.max() + 1) + b
    tied = _ties(a) + _ties(b) - _ties(both)
    return (pairs - tied - 2 * discordant) / pairs


def _ranks(values: ArrayLike) -> Ranks:
    return np.unique(np.asarray(values, dtype=np.float64), return_inverse=True)[1].astype(np.int64).reshape(-1)


def _pairs(count: int) -> int:
    return count * (count - 1) // 2


def _ties(values: Ranks) -> int:
    counts = np.unique(values, return_counts=True)[1]
    return int((counts * (counts - 1) // 2).sum())


def _inversions(ranks: Ranks) -> int:
    """Count pairs in which the larger rank comes first, one bit of the ranks at a time.

    Two ranks differ first at one bit; the pair is an inversion exactly if the one with that bit set comes first. Going
    from the highest bit down, ranks that agree so far stand together in their first order.
    """
    total = 0
    for bit in range(int(ranks.max()).bit_length() - 1, -1, -1):
        is_set = (ranks >> bit) & 1
        set_before = np.cumsum(is_set) - is_set
        agreed = ranks >> (bit + 1)
        group_start = np.searchsorted(agreed, agreed)
        total += int((set_before - set_before[group_start])[is_set == 0].sum())
        ranks = ranks[np.argsort(ranks >> bit, kind="stable")]
    return total
