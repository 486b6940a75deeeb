"""How well a fit predicts what was not fitted: the same clients and requests, played through the serving physics."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

import numpy as np

from trimtab.sim.iteration import EngineConfig
from trimtab.sim.profiling.modelled import ModelledTarget, Speed
from trimtab.sim.profiling.target import Ask, Seen

_DROPPED: Final = 0.1  # of the requests, at each end: the load builds up, and runs out


@dataclass(frozen=True, slots=True)
class Judged:
    """One figure of a phase.

    Attributes:
        metric: What it is.
        quantile: Which part of the requests, 0.5 or 0.9; None for a figure of all of them.
        measured: In seconds, or tokens per second.
        predicted: By the fit.
    """

    metric: str
    quantile: float | None
    measured: float
    predicted: float

    @property
    def error(self) -> float:
        """How far the prediction is off, relative to what was measured."""
        return self.predicted / self.measured - 1


_METRICS: Final[dict[str, Callable[[Seen], float | None]]] = {
    "time to first token": lambda seen: seen.ttft,
    "time between tokens": lambda seen: seen.time_between_tokens,
    "end to end": lambda seen: seen.e2e,
}


def judge(seen: Sequence[Seen], clients: int, config: EngineConfig, speed: Speed) -> list[Judged]:
    """Compare what was seen with what the fit makes of the same requests.

    Args:
        seen: What so many clients saw, in the order of sending.
        clients: How many.
        config: The engine's limits.
        speed: The fit.
    """
    asks = [Ask(each.prompt_tokens, each.output_tokens) for each in seen]
    predicted = ModelledTarget(config, speed).play(asks, clients, inf)
    measured, predicted = _steady(seen), _steady(predicted)
    figures = [
        Judged(metric, quantile, _quantile(measured, value, quantile), _quantile(predicted, value, quantile))
        for metric, value in _METRICS.items()
        for quantile in (0.5, 0.9)
    ]
    figures.append(Judged("output tokens per second", None, _throughput(measured), _throughput(predicted)))
    return figures


def _steady(seen: Sequence[Seen]) -> list[Seen]:
    """Without the first and the last tenth."""
    edge = int(len(seen) * _DROPPED)
    return list(seen[edge : len(seen) - edge])


def _quantile(seen: Sequence[Seen], value: Callable[[Seen], float | None], quantile: float) -> float:
    return float(np.quantile([v for each in seen if (v := value(each)) is not None], quantile))


def _throughput(seen: Sequence[Seen]) -> float:
    """Tokens of these answers over the time in which they came."""
    seconds = max(each.last_at for each in seen) - min(each.sent_at for each in seen)
    return sum(each.output_tokens for each in seen) / seconds
