"""Small engines and a run to the end, for the tests of the physics."""

from collections.abc import Callable, Iterable

from trimtab.sim.profile import IterationCost
from trimtab.sim.serving import EngineConfig, Iteration, Sequence, ServingEngine, Work

# One second per iteration and nothing else, so that times are counts.
TICK = IterationCost(1.0, 0.0, 0.0, 0.0, 0.0)


def engine(*, cost: IterationCost = TICK, **limits: object) -> ServingEngine:
    """An engine with 64 usable blocks of 4 tokens, unless told otherwise."""
    settings = {"kv_blocks": 65, "block_size": 4, "max_num_seqs": 8, "max_num_batched_tokens": 32, **limits}
    return ServingEngine(EngineConfig(**settings), cost)  # type: ignore[arg-type]


def add_all(target: ServingEngine, works: Iterable[Work], now: float = 0.0) -> list[Sequence]:
    """Queue several requests at once."""
    return [target.add(work, now) for work in works]


def run(
    target: ServingEngine, now: float = 0.0, each: Callable[[Iteration, list[Sequence]], None] | None = None
) -> float:
    """Run until there is nothing to do; returns the time."""
    while (iteration := target.next_iteration(now)) is not None:
        now = iteration.end
        progressed = target.complete(iteration)
        if each is not None:
            each(iteration, progressed)
    return now
