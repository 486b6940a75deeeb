"""The smallest world in which the order of service matters: jobs, and slots that serve them at unit speed.

A job takes a time of its own, whatever else is served beside it, and is never interrupted. One slot is an engine
without batching; several are continuous batching as far as order goes; `serve_batches` is static batching, where a
batch ends with its longest job. This is the simulator of the specification's ssjf.md §3.6 [design]; how batch size
changes the speed of a real engine is the business of `trimtab.sim.serving`.

Every policy is a key per job, lowest first, fixed at arrival (`trimtab.decide.queueing.ssjf`). Jobs are numbered in
order of arrival and numbers break ties.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from math import inf

import numpy as np
from numpy.typing import NDArray

from trimtab.decide.queueing.ssjf import PAPER, Guard, key
from trimtab.sim.streams import stream

Floats = NDArray[np.float64]

ANSWER_SHARES = (0.0, 0.05, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99, 1.0)
ANSWER_TOKENS = (2.0, 9.0, 41.0, 140.0, 294.0, 397.0, 447.0, 502.0, 511.0)
"""Answer lengths of one chat model: these shares of 85,482 published answers are not longer than this [measured]."""

MAX_TOKENS = 512
"""What the jobs here may generate at most; every prediction is capped at it."""


def synthetic_lengths(rng: np.random.Generator, jobs: int) -> Floats:
    """Draw answer lengths, in whole tokens, shape `(jobs,)`: chat answers of one model, 2 to 511 tokens, mean 179.

    The inverse distribution function is linear between the percentiles of `ANSWER_TOKENS`.
    """
    return np.round(np.interp(rng.random(jobs), ANSWER_SHARES, ANSWER_TOKENS))


def noisy_predictions(lengths: Floats, noise: Floats, sigma: float, max_tokens: int = MAX_TOKENS) -> Floats:
    """Return predictions that are off by a log-normal factor: `sigma` 1 ranks as well as the published predictor.

    Args:
        lengths: True tokens, shape `(jobs,)`.
        noise: Standard normal numbers, shape `(jobs,)`; the same ones for every sigma make predictors comparable.
        sigma: Standard deviation of the logarithm of the factor; 0 is the oracle.
        max_tokens: Cap of every prediction.
    """
    return np.minimum(lengths * np.exp(sigma * noise), max_tokens)


def binned(predictions: Floats, edges: Sequence[float], middles: Sequence[float]) -> Floats:
    """Return what a classifier with these bins would say instead: the middle of each prediction's bin.

    Args:
        predictions: Tokens, shape `(jobs,)`.
        edges: Where the bins are cut; a bin contains its left edge.
        middles: What each of the `len(edges) + 1` bins stands for.
    """
    return np.array([middles[bisect_right(edges, tokens)] for tokens in predictions])


def gamma_arrivals(rng: np.random.Generator, jobs: int, rate: float, variation: float = 1.0) -> Floats:
    """Draw arrival times in seconds, shape `(jobs,)`, whose gaps have the mean `1 / rate`.

    Args:
        rng: Where the gaps come from.
        jobs: How many arrive.
        rate: Per second.
        variation: Standard deviation over mean of the gaps; 1 is a Poisson process, more is burstier.
    """
    shape = 1.0 / variation**2
    return np.cumsum(rng.gamma(shape, 1.0 / (shape * rate), jobs))


@dataclass(frozen=True, slots=True)
class Jobs:
    """Jobs in order of arrival; arrays of the shape `(jobs,)`.

    Attributes:
        arrived: When each comes, in seconds, ascending.
        lengths: True tokens of its answer.
        noise: Standard normal numbers, from which predictors of any quality make their errors.
    """

    arrived: Floats
    lengths: Floats
    noise: Floats

    @property
    def seconds(self) -> Floats:
        """What each takes in a slot."""
        return PAPER.fixed_seconds + PAPER.seconds_per_token * self.lengths

    def predicted(self, sigma: float) -> Floats:
        """Return predictions of this quality; see `noisy_predictions`."""
        return noisy_predictions(self.lengths, self.noise, sigma)

    def keys(self, predicted: Floats, aging_factor: float) -> Floats:
        """Return each job's place in the order, by the production key."""
        pairs = zip(self.arrived.tolist(), predicted.tolist(), strict=True)
        return np.array([key(at, PAPER.of(tokens), aging_factor) for at, tokens in pairs])


def draw_jobs(seed: int, jobs: int, rate: float, variation: float = 1.0) -> Jobs:
    """Draw jobs of the synthetic lengths; seeds share nothing, and settings of one seed all that they can."""
    return Jobs(
        gamma_arrivals(stream(seed, "jobs", "arrivals"), jobs, rate, variation),
        synthetic_lengths(stream(seed, "jobs", "lengths"), jobs),
        stream(seed, "jobs", "noise").standard_normal(jobs),
    )


@dataclass(frozen=True, slots=True)
class Served:
    """What became of the jobs, in order of their arrival; all arrays have the shape `(jobs,)`, times are seconds.

    Attributes:
        arrived: When each came.
        began: When it was given a slot.
        ended: When it was done.
    """

    arrived: Floats
    began: Floats
    ended: Floats

    @property
    def completion(self) -> Floats:
        """The time from each job's arrival to its end."""
        return self.ended - self.arrived

    def time_until(self, share: float) -> float:
        """Return when this share of the jobs was done; in order of ends it is job `int(share * (jobs - 1))`."""
        last = int(share * (len(self.ended) - 1))
        return float(np.partition(self.ended, last)[last])


def serve(
    arrived: Floats,
    seconds: Floats,
    keys: Floats,
    *,
    slots: int = 1,
    guard: Guard | None = None,
    estimates: Floats | None = None,
) -> Served:
    """Serve jobs one per slot; a free slot takes the waiting job with the lowest key.

    Args:
        arrived: When each job comes, ascending, shape `(jobs,)`.
        seconds: What each takes in a slot, shape `(jobs,)`.
        keys: Its place in the order, shape `(jobs,)`.
        slots: How many jobs are served at once.
        guard: When the job that has waited longest goes first instead.
        estimates: What each job is expected to take, for the guard; shape `(jobs,)`.
    """
    line = _Line(arrived.tolist(), keys.tolist(), guard, None if estimates is None else estimates.tolist())
    durations: list[float] = seconds.tolist()
    began = np.empty(len(durations))
    free_at = [-inf] * slots
    at = -inf
    for _ in durations:
        at = line.look(max(at, heappop(free_at)))  # a slot may have been free before those who wait came
        job = line.take(at)
        began[job] = at
        heappush(free_at, at + durations[job])
    return Served(arrived, began, began + seconds)


def serve_batches(
    arrived: Floats,
    seconds: Floats,
    keys: Floats,
    *,
    size: int,
    longest_wait: float,
) -> Served:
    """Serve jobs in batches that begin together and end with their longest job.

    A free engine begins when `size` jobs wait, or when the first of those that wait has done so for `longest_wait`
    seconds; it then takes those with the lowest keys. The same rule for every policy: letting only first come, first
    served wait for a full batch would flatter the others.

    Args:
        arrived: When each job comes, ascending, shape `(jobs,)`.
        seconds: What each takes alone, shape `(jobs,)`.
        keys: Its place in the order, shape `(jobs,)`.
        size: Most jobs of a batch.
        longest_wait: How long an engine lets the first job wait for others.
    """
    jobs = len(arrived)
    line = _Line(arrived.tolist(), keys.tolist())
    durations: list[float] = seconds.tolist()
    began, ended = np.empty(jobs), np.empty(jobs)
    free_at, served = -inf, 0
    while served < jobs:
        at = line.look(free_at)
        full = line.arrival_of(served + size - 1)  # when there are `size` that were not served
        at = line.look(max(at, min(full, line.oldest_arrival() + longest_wait)))
        batch = [line.take(at) for _ in range(min(size, len(line)))]
        began[batch] = at
        free_at = at + max(durations[job] for job in batch)
        ended[batch] = free_at
        served += len(batch)
    return Served(arrived, began, ended)


class _Line:
    """Jobs that wait, in order of their keys, and those still to come."""

    __slots__ = ("_arrived", "_came", "_estimates", "_gone", "_guard", "_keys", "_oldest", "_waiting", "waiting")

    def __init__(
        self, arrived: list[float], keys: list[float], guard: Guard | None = None, estimates: list[float] | None = None
    ) -> None:
        assert guard is None or estimates is not None, "a guard needs estimates"
        self._arrived = arrived
        self._keys = keys
        self._guard = guard
        self._estimates = estimates
        self._waiting: list[tuple[float, int]] = []
        self._gone = bytearray(len(arrived))
        self._oldest = 0  # nobody before it waits
        self._came = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def look(self, at: float) -> float:
        """Let everybody come who does by `at`, or by the next arrival if nobody waits; returns that time."""
        arrived, came = self._arrived, self._came
        if not self._waiting and arrived[came] > at:
            at = arrived[came]
        while came < len(arrived) and arrived[came] <= at:
            heappush(self._waiting, (self._keys[came], came))
            came += 1
        self._came = came
        return at

    def take(self, at: float) -> int:
        """Take out the job that goes first at this time."""
        if self._guard is not None and self._estimates is not None:
            oldest = self._first()
            if self._guard.takes(at - self._arrived[oldest], self._estimates[oldest]):
                self._waiting.remove((self._keys[oldest], oldest))
                heapify(self._waiting)
                return self._leave(oldest)
        return self._leave(heappop(self._waiting)[1])

    def oldest_arrival(self) -> float:
        """When the one that has waited longest came."""
        return self._arrived[self._first()]

    def arrival_of(self, job: int) -> float:
        """When a job comes, or the end of time if there is none."""
        return self._arrived[job] if job < len(self._arrived) else inf

    def _first(self) -> int:
        while self._gone[self._oldest]:
            self._oldest += 1
        return self._oldest

    def _leave(self, job: int) -> int:
        self._gone[job] = True
        return job
