"""Speculative shortest job first: requests whose answers are predicted to be short go first, but nobody waits for ever.

A request's key is its arrival plus `aging_factor` times the time that its predicted answer takes. The key is fixed at
admission, so a heap keeps the order. A later request overtakes an earlier one only if it arrives within
`aging_factor * seconds_per_token * tokens predicted for the earlier one`: the window is finite and nothing starves. An
aging factor of 0 is first come, first served; an infinite one is the pure order by predicted length, which starves.

Sources: the order and the guard are those of SSJF (Qiu et al., arXiv 2404.08509) [paper]; the key with aging is ours
[design], the specification's ssjf.md §3.4.
"""

from dataclasses import dataclass
from math import isinf

from trimtab.decide.queueing.request import Request

AGING_FACTOR = 10.0
"""Keeps most of the pure order's gain in the mean with a fraction of its worst case [design]."""


@dataclass(frozen=True, slots=True)
class ServiceTime:
    """How long an engine takes for an answer: a constant and a time per token. The defaults are the paper's [paper].

    Attributes:
        fixed_seconds: What every answer costs, whatever its length.
        seconds_per_token: What each token of it costs.
    """

    fixed_seconds: float = 0.1
    seconds_per_token: float = 0.02

    def of(self, tokens: float) -> float:
        """Return the seconds that an answer of so many tokens takes."""
        return self.fixed_seconds + self.seconds_per_token * tokens


PAPER = ServiceTime()


def key(arrived_at: float, estimated_seconds: float, aging_factor: float = AGING_FACTOR) -> float:
    """Return a request's place in the order: the lowest goes first.

    Args:
        arrived_at: In seconds of any clock.
        estimated_seconds: What its answer is predicted to take.
        aging_factor: At least 0; infinite for the pure order by estimate.
    """
    return estimated_seconds if isinf(aging_factor) else arrived_at + aging_factor * estimated_seconds


def priority(
    arrived_at: float, estimated_seconds: float, aging_factor: float = AGING_FACTOR, *, since: float = 0.0
) -> int:
    """Return the key in whole tenths of a second after `since`, for engines with a static integer priority.

    Lower goes first. The aging factor must be finite.
    """
    return int((arrived_at - since) * 10 + aging_factor * estimated_seconds * 10)


@dataclass(frozen=True, slots=True)
class SsjfOrder:
    """The order as a `PoolQueue` takes it.

    Attributes:
        aging_factor: Weight of the predicted time against the arrival; `agingFactor` of a pool's queue.
        service: How long the pool's engines take for an answer.
        typical_tokens: What a request without a prediction is taken for. Where the drift guard withholds predictions,
            all requests have this one and are served as they come, without jumping ahead of those that have waited.
    """

    aging_factor: float = AGING_FACTOR
    service: ServiceTime = PAPER
    typical_tokens: float = 256.0

    def __call__(self, request: Request) -> float:
        """Rank a request; equal ranks keep the order of their keys, i.e. of arrival."""
        predicted = request.predicted_tokens
        tokens = self.typical_tokens if predicted is None else predicted
        return key(request.arrived_at, self.service.of(tokens), self.aging_factor)


@dataclass(frozen=True, slots=True)
class Guard:
    """When the longest-waiting request goes first whatever its key is: the paper's code's rule against starvation.

    There the true execution time is used even where lengths are predicted; here it is the estimate, which is all that
    a queue can know. The paper does not evaluate this guard. A finite aging factor needs none.

    Attributes:
        longest_wait_seconds: Beyond this wait it always goes first.
        multiple: And beyond so many times its own estimated time.
    """

    longest_wait_seconds: float = 100.0
    multiple: float = 10.0

    def takes(self, waited_seconds: float, estimated_seconds: float) -> bool:
        """Whether the longest-waiting request goes first now."""
        return waited_seconds > self.longest_wait_seconds or waited_seconds > self.multiple * estimated_seconds
