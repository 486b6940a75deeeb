"""How long a request will wait, from how many wait ahead of it: no prediction of single lengths is needed.

Under continuous batching an engine that is full yields output tokens at a nearly constant rate, so the wait behind n
requests is the sum of n output lengths over that rate. A sum of many is nearly normal whatever its terms are.

Source: the outline is QLM's (SoCC 2024) [secondary], the equations are [recalled]; several groups, bounds and the
correction for few requests are [design].
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heapify, heapreplace
from math import sqrt
from typing import NamedTuple

import numpy as np

from trimtab.decide.queueing.plan import Plan, Problem, runs

P99 = 2.33
"""How many deviations above the mean a normal wait lies in one of a hundred cases."""

_ENOUGH = 50  # lengths that were seen before they are believed


@dataclass(frozen=True, slots=True)
class LengthStats:
    """What is known of the output lengths of a model or class, in tokens.

    Attributes:
        mean: The average.
        deviation: The standard deviation.
        count: How many were seen.
        skewness: The third standardized moment; 0 for a symmetric distribution, 2 for an exponential one.
    """

    mean: float
    deviation: float
    count: int = 0
    skewness: float = 0.0

    @classmethod
    def of(cls, tokens: Sequence[float], prior: "LengthStats") -> "LengthStats":
        """Return the moments of the lengths that were seen; the prior as long as they are fewer than 50."""
        if len(tokens) < _ENOUGH:
            return prior
        seen = np.asarray(tokens, dtype=float)
        mean, deviation = float(seen.mean()), float(seen.std())
        skewness = float(((seen - mean) ** 3).mean()) / deviation**3 if deviation else 0.0
        return cls(mean, deviation, len(tokens), skewness)


@dataclass(frozen=True, slots=True)
class Ahead:
    """Requests that are served first.

    Attributes:
        requests: How many.
        mean_tokens: Their average output length.
        deviation_tokens: Its standard deviation.
        tokens_per_second: The rate at which the engine serves them when it is full.
    """

    requests: float
    mean_tokens: float
    deviation_tokens: float
    tokens_per_second: float


class Wait(NamedTuple):
    """A waiting time as a distribution, in seconds."""

    mean: float
    deviation: float

    def bound(self, deviations: float = P99) -> float:
        """Return a wait that is exceeded only in the tail beyond so many deviations."""
        return self.mean + deviations * self.deviation


def behind(groups: Iterable[Ahead], swap_seconds: float = 0.0) -> Wait:
    """Return the wait behind groups that are served first, and the model swaps between them."""
    mean, variance = swap_seconds, 0.0
    for ahead in groups:
        mean += ahead.requests * ahead.mean_tokens / ahead.tokens_per_second
        variance += ahead.requests * (ahead.deviation_tokens / ahead.tokens_per_second) ** 2
    return Wait(mean, sqrt(variance))


def starts_behind_few(
    residual_tokens: Sequence[float], expected_tokens: Iterable[float], seconds_per_token: float
) -> tuple[float, ...]:
    """Return when each request of a short queue starts: each takes the slot that is free first.

    With fewer requests ahead than about two batches the wait depends on which requests are about to end, which the
    rate does not know.

    Args:
        residual_tokens: What is left of each slot's request; 0 for a free slot. At least one slot.
        expected_tokens: The output length of each request that waits, in order.
        seconds_per_token: The time of a decoding step.
    """
    free = [tokens * seconds_per_token for tokens in residual_tokens]
    heapify(free)
    starts = []
    for tokens in expected_tokens:
        starts.append(free[0])
        heapreplace(free, free[0] + tokens * seconds_per_token)
    return tuple(starts)


def wait_in_queue(
    position: int, lengths: LengthStats, seconds_per_token: float, slots: int, residual_tokens: Sequence[float] = ()
) -> Wait:
    """Return how long a request at a position of a full engine's queue waits, by whichever estimate holds there.

    Args:
        position: 1 for the next to start.
        lengths: Of the requests that wait.
        seconds_per_token: The time of a decoding step of a full batch.
        slots: How many requests run together.
        residual_tokens: What is left of each running request, where that is predicted request by request. One average
            for all of them would say that the first slot is free only after that average, so leave it out then.
    """
    steady = behind([Ahead(position, lengths.mean, lengths.deviation, slots / seconds_per_token)])
    if not residual_tokens or position >= 2 * slots:
        return steady
    starts = starts_behind_few(residual_tokens, [lengths.mean] * position, seconds_per_token)
    return Wait(starts[-1], steady.deviation)


def deviations(requests: float, skewness: float, normal: float = P99) -> float:
    """Return how many deviations above its mean a sum of lengths has its bound: more for few and skewed ones.

    The first term of the Cornish-Fisher expansion. It adds nothing in the limit, and nothing for symmetric lengths.

    Args:
        requests: How many lengths are added; below one counts as one.
        skewness: Of one length.
        normal: The deviations that a normal sum would have.
    """
    return normal + (normal**2 - 1) * max(skewness, 0.0) / (6 * sqrt(max(requests, 1.0)))


class Violation(NamedTuple):
    """A job of a plan that is expected to miss its deadline.

    Attributes:
        job: Its index.
        machine: Where it is planned.
        expected: When it ends, or starts where the problem judges that, on average.
        bound: The same with the margin.
    """

    job: int
    machine: int
    expected: float
    bound: float


def predicted_violations(problem: Problem, plan: Plan, margin: float = P99) -> tuple[Violation, ...]:
    """Return the jobs whose bound lies behind their deadline, walking each queue from its head.

    Jobs that cost nothing when they are late are left out: no plan is needed for them.

    Args:
        problem: What is planned.
        plan: The order.
        margin: How many deviations the bound lies above the mean.
    """
    found, variance, last = [], 0.0, -1
    for machine, run in runs(problem, plan):
        ahead = variance if machine == last else 0.0
        job = problem.jobs[run.job]
        variance, last = ahead + job.deviation**2, machine
        expected = run.start if problem.judge_start else run.end
        bound = expected + margin * sqrt(ahead if problem.judge_start else variance)
        if bound > job.deadline_in and (job.weight or job.late_penalty):
            found.append(Violation(run.job, machine, expected, bound))
    return tuple(found)
