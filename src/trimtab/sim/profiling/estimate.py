"""Solves the equations of `rows`, and says how sure the solution is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from trimtab.sim.profile import FrontEnd, IterationCost
from trimtab.sim.profiling.modelled import Speed
from trimtab.sim.profiling.rows import UNKNOWNS, Row

Array = npt.NDArray[np.float64]
Interval = tuple[float, float]

RESAMPLES: Final = 200
_REWEIGHTINGS: Final = 10
_SMALL_ERROR: Final = 0.003  # relative errors below this all weigh the same
_COVERED: Final = 0.95
_WIDENED: Final = 1.2  # percentile intervals of such fits hold 91 % of the truths unwidened (24 simulated engines)


@dataclass(frozen=True, slots=True)
class Estimate:
    """The unknowns and how sure they are.

    Attributes:
        values: By name, see `UNKNOWNS`.
        intervals: 95 % intervals, by resampling what was measured.
        residuals: The relative error of each kind of equation, median and 90th percentile.
    """

    values: dict[str, float]
    intervals: dict[str, Interval]
    residuals: dict[str, Interval]

    @property
    def speed(self) -> Speed:
        """The values as what the physics takes."""
        return speed_of(self.values)


def speed_of(values: Mapping[str, float]) -> Speed:
    """The unknowns, by name, as what the physics takes."""

    def part(name: str) -> dict[str, float]:
        return {
            field: value for whole, value in values.items() for at, _, field in [whole.partition(".")] if at == name
        }

    return Speed(FrontEnd(**part("front_end")), IterationCost(**part("iteration")))


def estimate(rows: Sequence[Row], rng: np.random.Generator) -> Estimate:
    """Solve the equations by least absolute relative errors, none negative, and again for resampled ones.

    Args:
        rows: At least those of several prompt lengths, and of several numbers of sequences that decode.
        rng: For the resampling.
    """
    features = np.array([row.features for row in rows])
    seconds = np.array([row.seconds for row in rows])
    kinds = np.array([row.kind for row in rows])
    if "interruption" not in kinds:  # without them a token of the front end and one of the prefill look the same
        features[:, -1] = 0.0
    values = solve(features, seconds)
    errors = np.abs(features @ values / seconds - 1)
    drawn = np.array([_resampled(features, seconds, kinds, rng) for _ in range(RESAMPLES)])
    return Estimate(
        values=dict(zip(UNKNOWNS, map(float, values), strict=True)),
        intervals=dict(zip(UNKNOWNS, _intervals(values, drawn), strict=True)),
        residuals={
            str(kind): (float(np.median(errors[kinds == kind])), float(np.quantile(errors[kinds == kind], 0.9)))
            for kind in sorted(set(kinds))
        },
    )


def _resampled(features: Array, seconds: Array, kinds: npt.NDArray[np.str_], rng: np.random.Generator) -> Array:
    """The solution for as many equations of each kind, drawn with replacement."""
    places = [np.flatnonzero(kinds == kind) for kind in sorted(set(kinds))]
    chosen = np.concatenate([rng.choice(place, len(place)) for place in places])
    return solve(features[chosen], seconds[chosen])


def _intervals(values: Array, drawn: Array) -> list[Interval]:
    """Percentile intervals around the value, widened, none below zero."""
    tail = (1 - _COVERED) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    down, up = _WIDENED * np.maximum(values - low, 0.0), _WIDENED * np.maximum(high - values, 0.0)
    return [(float(max(v - a, 0.0)), float(v + b)) for v, a, b in zip(values, down, up, strict=True)]


def solve(features: Array, seconds: Array) -> Array:
    """Coefficients, none negative, with the least absolute relative errors (by reweighted least squares)."""
    relative = features / seconds[:, None]
    weights = np.ones(len(seconds))
    for _ in range(_REWEIGHTINGS):
        coefficients = _without_negatives(relative * weights[:, None], weights)
        weights = 1 / np.sqrt(np.maximum(np.abs(relative @ coefficients - 1), _SMALL_ERROR))
    return coefficients


def _without_negatives(rows: Array, targets: Array) -> Array:
    """Least squares without negative coefficients: the most negative one is dropped until there is none."""
    scale = np.abs(rows).max(axis=0)
    active = list(np.flatnonzero(scale))
    coefficients = np.zeros(rows.shape[1])
    while active:
        solution = np.linalg.lstsq(rows[:, active] / scale[active], targets, rcond=None)[0]
        if (solution >= 0).all():
            coefficients[active] = solution / scale[active]
            break
        active.pop(int(solution.argmin()))
    return coefficients
