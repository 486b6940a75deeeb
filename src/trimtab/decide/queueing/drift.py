"""Whether predicted lengths are good enough to order by: the gate between shortest-first and first come, first served.

A predictor that ranks at random would only reshuffle the queue, and shortest-first on top of it would starve unlucky
requests for nothing. The gate of ssjf.md §3.5 therefore watches how well the last predictions ranked what happened.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from trimtab.decide.queueing.bounded import Bounded
from trimtab.decide.queueing.lengths import Outcome
from trimtab.decide.queueing.rank import kendall_tau

Order = Literal["ssjf", "fcfs"]


@dataclass(frozen=True, slots=True)
class DriftPolicy:
    """When predictions are trusted.

    There is no hysteresis: the order follows tau across `threshold` in both directions. Over 2,000 completions the
    standard error of tau is about 0.015, and an order changes at most once in `every` completions, so a predictor near
    the threshold may switch now and then; either order is then about as good as the other.

    Attributes:
        threshold: the least Kendall tau for shortest-first.
        window: completions that are looked at, the most recent ones.
        every: completions between two looks.
        least: completions before the first look; until then first come, first served.
        most: models and applications that are followed; the one that was silent longest is forgotten.
    """

    threshold: float = 0.3
    window: int = 2_000
    every: int = 100
    least: int = 200
    most: int = 1_000


class DriftGuard:
    """Follows one predictor on one model and application, advanced in place by its one owner."""

    __slots__ = ("_lengths", "_policy", "_predicted", "_since_look", "order", "tau")

    def __init__(self, policy: DriftPolicy | None = None) -> None:
        self._policy = policy or DriftPolicy()
        self._predicted: deque[float] = deque(maxlen=self._policy.window)
        self._lengths: deque[int] = deque(maxlen=self._policy.window)
        self._since_look = 0
        self.order: Order = "fcfs"
        """What to order by now."""
        self.tau: float | None = None
        """Kendall tau at the last look; None before the first."""

    def observe(self, outcome: Outcome) -> Order:
        """Count a request that ended, and return what to order by from now on.

        Outcomes without a prediction, and those whose true length is unknown, change nothing: a request that was cut
        off at its limit would otherwise be judged by where it was cut.
        """
        if outcome.predicted is None or not outcome.exact:
            return self.order
        self._predicted.append(outcome.predicted.p50)
        self._lengths.append(outcome.tokens)
        self._since_look += 1
        if len(self._lengths) >= self._policy.least and self._since_look >= self._policy.every:
            self._look()
        return self.order

    def _look(self) -> None:
        self._since_look = 0
        self.tau = kendall_tau(self._predicted, self._lengths)
        self.order = gate(self.tau, self._policy)


def gate(tau: float, policy: DriftPolicy | None = None) -> Order:
    """Return "ssjf" where tau is at least the threshold."""
    return "ssjf" if tau >= (policy or DriftPolicy()).threshold else "fcfs"


class DriftGuards:
    """One guard for each model and application: predictions may be good for one and useless for another."""

    __slots__ = ("_guards",)

    def __init__(self, policy: DriftPolicy | None = None) -> None:
        policy = policy or DriftPolicy()
        self._guards: Bounded[tuple[str, str], DriftGuard] = Bounded(policy.most, lambda: DriftGuard(policy))

    def order(self, model: str, tenant: str) -> Order:
        """Return what to order a request of this model and application by."""
        guard = self._guards.get((model, tenant))
        return guard.order if guard else "fcfs"

    def observe(self, model: str, tenant: str, outcome: Outcome) -> Order:
        """Count a request that ended."""
        return self._guards.touch((model, tenant)).observe(outcome)

    @property
    def taus(self) -> Mapping[tuple[str, str], float | None]:
        """Kendall tau at the last look, by model and application."""
        return {key: guard.tau for key, guard in self._guards.items()}
