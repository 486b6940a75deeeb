"""Workloads of the several-model queue: who asks for which model, under which service level, and when.

Lengths are synthetic, because prompts and answers of the paper's data may not be redistributed: answers follow the
piecewise-linear distribution of the specification's qlm.md §6 (mean 179 tokens), prompts a log-normal one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import merge

import numpy as np
from numpy.typing import NDArray

from trimtab.sim.models_world import Arrival
from trimtab.sim.slots import ANSWER_SHARES, ANSWER_TOKENS
from trimtab.sim.streams import stream

MEAN_ANSWER = 179.1
"""Tokens of the mean answer."""
LONGEST_ANSWER = 511
"""Tokens of the longest answer, which a scheduler for the worst case counts on."""
_MEDIAN_PROMPT, _PROMPT_SIGMA, _PROMPT_BOUNDS = 245.0, 0.8, (16, 2000)
MEAN_PROMPT = 335.0
"""Tokens of the mean prompt."""


@dataclass(frozen=True, slots=True)
class Demand:
    """The requests of one service level.

    Attributes:
        share: Of all requests.
        job_size: How many requests arrive at once and ask for the same model, on average; 1 for single requests.
        mega_share: Of its requests have a very long prompt.
    """

    share: float
    job_size: float = 1.0
    mega_share: float = 0.0


@dataclass(frozen=True, slots=True)
class Workload:
    """Who asks for what.

    Attributes:
        models: How popular each is.
        demands: By service level.
        mega_tokens: The length of a very long prompt.
        answer_times: How many times as long as usual answers are.
    """

    models: Mapping[str, float]
    demands: Mapping[str, Demand]
    mega_tokens: int = 6000
    answer_times: float = 1.0

    def arrivals(self, seed: int, requests: int, rate: float) -> list[Arrival]:
        """Draw about so many requests, at `rate` requests per second on average, in the order of arrival.

        Jobs arrive as a Poisson process for each level; a level's job sizes are Poisson around their mean. The streams
        of a level do not depend on the rate, so that at another rate the same requests come closer together.
        """
        until = requests / rate
        return list(
            merge(
                *(self._level(seed, level, rate, until) for level in self.demands),
                key=lambda arrival: arrival.at_seconds,
            )
        )

    def _level(self, seed: int, level: str, rate: float, until: float) -> Sequence[Arrival]:
        demand = self.demands[level]
        most = max(8, int(3 * until * rate * demand.share / demand.job_size) + 50)
        gaps = stream(seed, level, "gaps").exponential(1.0, most)
        at = np.cumsum(gaps) * (demand.job_size / (rate * demand.share))
        at = at[at < until]
        sizes = 1 + stream(seed, level, "job sizes").poisson(demand.job_size - 1.0, most)[: len(at)]
        names, popularity = list(self.models), np.array(list(self.models.values()))
        asked = stream(seed, level, "models").choice(len(names), most, p=popularity / popularity.sum())[: len(at)]
        times, models = np.repeat(at, sizes), np.repeat(asked, sizes)
        prompts, answers = self._prompts(seed, level, len(times)), self._answers(seed, level, len(times))
        return [
            Arrival(float(t), names[m], level, int(p), int(a))
            for t, m, p, a in zip(times, models, prompts, answers, strict=True)
        ]

    def _prompts(self, seed: int, level: str, count: int) -> NDArray[np.int64]:
        drawn = stream(seed, level, "prompts").lognormal(np.log(_MEDIAN_PROMPT), _PROMPT_SIGMA, count)
        prompts = np.clip(drawn, *_PROMPT_BOUNDS).astype(np.int64)
        mega = stream(seed, level, "mega prompts").random(count) < self.demands[level].mega_share
        return np.where(mega, self.mega_tokens, prompts)

    def _answers(self, seed: int, level: str, count: int) -> NDArray[np.int64]:
        drawn = np.interp(stream(seed, level, "answers").random(count), ANSWER_SHARES, ANSWER_TOKENS)
        answers: NDArray[np.int64] = np.maximum((drawn * self.answer_times).astype(np.int64), 1)
        return answers
