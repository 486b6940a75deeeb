"""Output lengths like those of a chat model, from nine quantiles of a measured distribution."""

import numpy as np
from numpy.typing import NDArray

SHARES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
TOKENS = (2.0, 9.0, 41.0, 140.0, 294.0, 397.0, 447.0, 502.0, 511.0)
MEAN, DEVIATION, SKEWNESS = 179.1, 145.3, 0.558


def lengths(numbers: np.random.Generator, *shape: int) -> NDArray[np.float64]:
    """Draw lengths in tokens; the inverse of the distribution is linear between the quantiles."""
    return np.interp(numbers.random(shape), SHARES, TOKENS)
