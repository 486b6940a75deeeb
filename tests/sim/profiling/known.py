"""Engines whose costs are known, so that a fit can be compared with the truth."""

import asyncio
from dataclasses import dataclass
from math import log

import numpy as np

from trimtab.sim.iteration import EngineConfig
from trimtab.sim.profile import FrontEnd, IterationCost
from trimtab.sim.profiling.load import Limits
from trimtab.sim.profiling.modelled import ModelledTarget, Speed
from trimtab.sim.profiling.rows import UNKNOWNS
from trimtab.sim.profiling.session import Engine, Result, Told, conclude
from trimtab.sim.profiling.survey import Gauges

SLOW = IterationCost(0.012, 4e-5, 1.5e-4, 3e-8, 2e-9, mixed=0.002)
OVERLAPPING = IterationCost(0.002, 6e-6, 5e-5, 4e-8, 2e-9, weights=0.012, arithmetic=4e-5)
FRONT = FrontEnd(0.006, 5e-6)


def known_engine(
    *,
    noise: float = 0.0,
    seed: int = 0,
    cost: IterationCost = SLOW,
    front: FrontEnd = FRONT,
    sequences: int = 16,
    budget: int = 2048,
) -> ModelledTarget:
    """An engine whose every iteration takes its time times a log-normal factor with a mean of 1."""
    rng = np.random.default_rng([seed, 99])
    config = EngineConfig(kv_blocks=4096, max_num_seqs=sequences, max_num_batched_tokens=budget, prefix_caching=False)
    return ModelledTarget(config, Speed(front, cost), jitter=lambda: float(np.exp(rng.normal(-(noise**2) / 2, noise))))


def told(**changes: object) -> Told:
    return Told(model="m", **({"seconds": 60.0, "concurrency": 24} | changes))  # type: ignore[arg-type]


def measured(target: ModelledTarget, *, seed: int = 0, max_model_len: int = 8192, **changes: object) -> Result:
    """Measure for a simulated minute."""
    asked = told(**changes)
    limits = Limits(max_model_len, None, asked.concurrency, asked.seconds)
    engine = Engine("m", "", limits, Gauges(), target.config.block_size, target.config.kv_blocks, ())
    return asyncio.run(conclude(target, engine, asked, seed, lambda *_: None))


@dataclass(frozen=True)
class Truth:
    """The unknowns of an engine, by name."""

    values: dict[str, float]

    @classmethod
    def of(cls, target: ModelledTarget) -> "Truth":
        parts = {"front_end": target.speed.front_end, "iteration": target.speed.cost}
        return cls({name: getattr(parts[name.split(".")[0]], name.split(".")[1]) for name in UNKNOWNS})

    def covered(self, result: Result) -> dict[str, bool]:
        """Whether each interval holds its truth."""
        intervals = result.fit.estimate.intervals
        return {name: intervals[name][0] <= value <= intervals[name][1] for name, value in self.values.items()}

    def log_errors(self, result: Result) -> dict[str, float]:
        values = result.fit.estimate.values
        return {name: log(values[name] / value) for name, value in self.values.items()}
