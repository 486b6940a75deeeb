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
_PRODUCTS: Final = ("iteration.weights", "iteration.arithmetic", "iteration.sharpness")
_STEP: Final = 1.35  # from one knee to the next
_KNEES: Final = tuple(24 * _STEP**step for step in range(15))  # to 1,600 tokens
_SHARPNESSES: Final = (1.5, 2.0, 3.0)
_CLEARLY: Final = 0.85
_SMALL_ERROR: Final = 0.003  # relative errors below this all weigh the same
_COVERED: Final = 0.95
_WIDENED: Final = 1.2  # percentile intervals of such fits hold 91 % of the truths unwidened (24 simulated engines)


@dataclass(frozen=True, slots=True)
class Estimate:
    """The unknowns and how sure they are.

    Attributes:
        values: By name, see `UNKNOWNS`; with those of the products with the weights, if they show a knee.
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

    Reading the weights and computing with them overlap on engines that are fast at the latter. Whether they do is
    tried: the knee between the two, and how sharp it is, are chosen from a grid, and kept if the errors are clearly
    smaller than with neither.

    Args:
        rows: At least those of several prompt lengths, and of several numbers of sequences that decode.
        rng: For the resampling.
    """
    equations = _Equations.of(rows)
    knee = _best_knee(equations)
    values = equations.solve(knee)
    errors = equations.errors(knee, values)
    nearby = [None] if knee is None else [_Knee(knee.tokens * by, knee.sharpness) for by in (1 / _STEP, 1.0, _STEP)]
    drawn = np.array([_named(*_best(equations.resampled(rng), nearby)) for _ in range(RESAMPLES)])
    named = _named(knee, values)
    names = (*UNKNOWNS, *_PRODUCTS) if knee else UNKNOWNS
    kinds = equations.kinds
    return Estimate(
        values=dict(zip(names, map(float, named), strict=False)),
        intervals=dict(zip(names, _intervals(named, drawn), strict=False)),
        residuals={
            str(kind): (float(np.median(errors[kinds == kind])), float(np.quantile(errors[kinds == kind], 0.9)))
            for kind in sorted(set(kinds))
        },
    )


@dataclass(frozen=True, slots=True)
class _Knee:
    """Where arithmetic takes as long as reading the weights, in tokens, and how sharp the knee is."""

    tokens: float
    sharpness: float


@dataclass(frozen=True, slots=True)
class _Equations:
    """Rows as arrays.

    Attributes:
        features: Shape `(rows, unknowns)`.
        seconds: Shape `(rows,)`.
        kinds: Shape `(rows,)`.
        counts: Iterations by row, shape `(rows, sizes)`.
        tokens: Their tokens, shape `(rows, sizes)`.
    """

    features: Array
    seconds: Array
    kinds: npt.NDArray[np.str_]
    counts: Array
    tokens: Array

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "_Equations":
        features = np.array([row.features for row in rows])
        kinds = np.array([row.kind for row in rows])
        if "interruption" not in kinds:  # a token of the front end and one of the prefill look the same without them
            features[:, -2:] = 0.0
        most = max(len(row.sizes) for row in rows)
        sizes = np.array([[*row.sizes, *[(0.0, 0.0)] * (most - len(row.sizes))] for row in rows])
        return cls(features, np.array([row.seconds for row in rows]), kinds, sizes[..., 0], sizes[..., 1])

    def columns(self, knee: _Knee | None) -> Array:
        """The features, and what is paid for products with the weights."""
        if knee is None:
            return self.features
        products = (1 + (self.tokens / knee.tokens) ** knee.sharpness) ** (1 / knee.sharpness)
        return np.column_stack([self.features, (self.counts * products).sum(axis=1)])

    def solve(self, knee: _Knee | None) -> Array:
        """Return the unknowns."""
        return solve(self.columns(knee), self.seconds)

    def errors(self, knee: _Knee | None, values: Array) -> Array:
        """Return the relative errors of the rows."""
        errors: Array = np.abs(self.columns(knee) @ values / self.seconds - 1)
        return errors

    def resampled(self, rng: np.random.Generator) -> "_Equations":
        """As many equations of each kind, drawn with replacement."""
        places = [np.flatnonzero(self.kinds == kind) for kind in sorted(set(self.kinds))]
        chosen = np.concatenate([rng.choice(place, len(place)) for place in places])
        parts = (self.features, self.seconds, self.kinds, self.counts, self.tokens)
        return _Equations(*(part[chosen] for part in parts))


def _best(equations: _Equations, knees: Sequence[_Knee | None]) -> tuple[_Knee | None, Array]:
    """The knee with the smallest errors, and the unknowns."""
    solutions = [(knee, equations.solve(knee)) for knee in knees]
    return min(solutions, key=lambda solution: float(np.mean(equations.errors(*solution))))


def _best_knee(equations: _Equations) -> _Knee | None:
    """The best knee of the grid, if it explains clearly more than none."""
    without = float(np.mean(equations.errors(None, equations.solve(None))))
    knee, values = _best(equations, [_Knee(tokens, sharpness) for tokens in _KNEES for sharpness in _SHARPNESSES])
    explained = float(np.mean(equations.errors(knee, values)))
    return knee if explained < _CLEARLY * without and explained < without - _SMALL_ERROR / 2 else None


def _named(knee: _Knee | None, values: Array) -> Array:
    """The unknowns in the order of `UNKNOWNS` and `_PRODUCTS`."""
    if knee is None:
        return values
    return np.array([*values, values[-1] / knee.tokens, knee.sharpness])


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
