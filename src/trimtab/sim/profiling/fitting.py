"""From measurements to a fit: the equations of every phase but the saturated one, solved."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trimtab.sim.profiling.budget import Budget, estimate_budget
from trimtab.sim.profiling.estimate import Estimate, estimate
from trimtab.sim.profiling.measure import Measurements
from trimtab.sim.profiling.rows import Row, decoding_row, first_token_row, interruption_row


@dataclass(frozen=True, slots=True)
class Fit:
    """What the measurements amount to.

    Attributes:
        estimate: What takes how long.
        rows: The equations.
        budget: Tokens that an iteration computes at most.
        budget_seen: What was seen of it; None if nothing was, so that `budget` is what was assumed or told.
    """

    estimate: Estimate
    rows: tuple[Row, ...]
    budget: int
    budget_seen: Budget | None


def fit(seen: Measurements, rng: np.random.Generator, *, told: int | None, assumed: int) -> Fit:
    """Fit a profile.

    Args:
        seen: What was measured.
        rng: For resampling.
        told: The budget of an iteration, where it is known.
        assumed: What it is taken to be where nothing is known.
    """
    budget_seen = estimate_budget(seen.interrupted)
    budget = told or (budget_seen.tokens if budget_seen else assumed)
    rows = tuple(_rows(seen, budget))
    return Fit(estimate(rows, rng), rows, budget, budget_seen)


def _rows(seen: Measurements, budget: int) -> Sequence[Row]:
    rows: list[Row | None] = [first_token_row(each, budget) for each in seen.idle]
    rows += [decoding_row([each]) for each in seen.idle if each.output_tokens > 1]
    rows += [decoding_row(burst) for burst in seen.bursts if burst]
    rows += [interruption_row(each, others, budget) for others, intruders in seen.interrupted for each in intruders]
    return [row for row in rows if row is not None]
