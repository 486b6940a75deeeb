"""Least squares for profiles of engines: plain arrays in, plain arrays out; nothing is simulated here."""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
_REWEIGHTINGS: Final = 12
_SMALL_ERROR: Final = 0.003  # relative errors below this all weigh the same


def solve(features: Array, seconds: Array) -> Array:
    """Coefficients, none negative, with the least absolute relative errors (by reweighted least squares).

    Absolute, not squared: a step that something else disturbed is an outlier.

    Args:
        features: One row for each measured step, shape (steps, coefficients).
        seconds: What each step took, shape (steps,).
    """
    relative = features / seconds[:, None]
    weights = np.ones(len(seconds))
    coefficients = np.zeros(features.shape[1])
    for _ in range(_REWEIGHTINGS):
        coefficients = _least_squares(relative * weights[:, None], weights)
        weights = 1 / np.sqrt(np.maximum(np.abs(relative @ coefficients - 1), _SMALL_ERROR))
    return coefficients


def _least_squares(rows: Array, targets: Array) -> Array:
    """Least squares without negative coefficients: the most negative one is dropped until there is none."""
    scale = np.abs(rows).max(axis=0) + 1e-300
    active = list(range(rows.shape[1]))
    while True:
        solution = np.linalg.lstsq(rows[:, active] / scale[active], targets, rcond=None)[0]
        if (solution >= 0).all() or len(active) == 1:
            break
        active.pop(int(solution.argmin()))
    coefficients = np.zeros(rows.shape[1])
    coefficients[active] = solution / scale[active]
    return coefficients


def fit_positive(misfits: Callable[[Array], Array], guess: Array, spread: Array) -> Array:
    """Positive parameters near a guess that explain measurements best.

    Args:
        misfits: Of parameters, the relative errors of all measurements, each divided by the error that is usual for it.
        guess: What the parameters are held to be without these measurements.
        spread: By how much, relatively, they may well differ from the guess.

    Returns:
        The parameters with the least sum of squares of what separates them from the guess, and of misfits; beyond the
        usual error a misfit counts linearly, so that outliers do not rule.
    """
    from scipy.optimize import least_squares  # noqa: PLC0415 - only fits need it, and it takes long to import

    def residuals(logarithms: Array) -> Array:
        errors = misfits(np.exp(logarithms))
        softened = np.sign(errors) * np.sqrt(2 * (np.hypot(1.0, errors) - 1))
        return np.concatenate([(logarithms - np.log(guess)) / spread, softened])

    logarithms: Array = least_squares(residuals, np.log(guess)).x
    return np.exp(logarithms)


def slope(x: Array, y: Array) -> float:
    """Slope of the line with the least absolute relative errors through (x, y), its intercept not negative."""
    return float(solve(np.column_stack([np.ones(len(x)), x]), y)[1])
