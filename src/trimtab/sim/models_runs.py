"""Runs of the several-model queue: one workload under several policies, and what became of its requests."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from trimtab.decide.queueing import edf, late_last, per_model, swap_batching
from trimtab.decide.queueing.fixed_batch import FixedBatch
from trimtab.decide.queueing.mean_length import MeanLengths
from trimtab.decide.queueing.models_queue import Level
from trimtab.decide.queueing.policy import Policy
from trimtab.decide.queueing.qlm import Qlm
from trimtab.sim.engine import Simulation
from trimtab.sim.experiment import Cell, Row
from trimtab.sim.ledger import Fate
from trimtab.sim.models_workload import LONGEST_ANSWER, MEAN_ANSWER, MEAN_PROMPT
from trimtab.sim.models_world import Arrival, MachineKind, ModelKind, ModelsWorld
from trimtab.sim.profile import IterationCost, load_profile
from trimtab.sim.serving import EngineConfig

PROFILE = "llama-2-70b-a100-tp8"
SLOTS = 16
"""Requests that a machine carries at once."""
HOUR = 3600.0

FCFS = Policy("FCFS per model", per_model.plan, by_level=False, evicts=False)
EDF = Policy("EDF", edf.plan)
LATE_LAST = Policy("EDF late last", late_last.plan, late_last=True)
SWAP_BATCHING = Policy("EDF swap batching", swap_batching.plan)
FIXED_BATCH = Policy(
    "fixed-latency batches", FixedBatch(LONGEST_ANSWER / MEAN_ANSWER), evicts=False, static_batches=True
)
QLM = Policy(
    "QLM", Qlm(), late_last=True, foresight=True, on_timer=True, makes_room=True, prepares=True,
    reserve=0.2, tardiness=0.1, judge_start=True, switch_seconds=3.0,
)  # fmt: skip
BASELINES = (FCFS, EDF, LATE_LAST, SWAP_BATCHING, FIXED_BATCH)
POLICIES = (*BASELINES, QLM)


@dataclass(frozen=True, slots=True)
class Site:
    """Machines and promises.

    Attributes:
        machines: Each with its kind and the model that it holds at first, by name.
        levels: The service levels by name.
        mean_answer: Of the requests that come, in tokens.
        lengths: What the queue knows of answer lengths when it starts; None: their true mean, and it learns.
    """

    machines: Mapping[str, tuple[MachineKind, str | None]]
    levels: Mapping[str, Level]
    mean_answer: float = MEAN_ANSWER
    lengths: Callable[[], MeanLengths] | None = None

    def capacity(self) -> float:
        """About how many requests per second all machines serve without a swap."""
        return sum(_requests_per_second(kind, self.mean_answer) for kind, _ in self.machines.values())

    def known_lengths(self) -> MeanLengths:
        """What the queue knows of answer lengths at the start of a run."""
        return MeanLengths(self.mean_answer) if self.lengths is None else self.lengths()


@lru_cache(maxsize=32)
def kind(
    models: tuple[str, ...], swap_seconds: float, slowdown: float = 1.0, mean_answer: float = MEAN_ANSWER
) -> MachineKind:
    """A machine of the shipped profile that can hold each of some models of equal size.

    Args:
        models: Their names.
        swap_seconds: What it takes to make one resident.
        slowdown: How many times as long everything takes on it.
        mean_answer: Of the requests that it serves, in tokens.
    """
    profile = load_profile(PROFILE)
    config = replace(EngineConfig.of(profile), max_num_seqs=SLOTS)
    model = ModelKind(config, slowed(profile.iteration, slowdown), swap_seconds)
    return MachineKind(SLOTS, dict.fromkeys(models, model), MEAN_PROMPT + mean_answer / 2)


def slowed(cost: IterationCost, times: float) -> IterationCost:
    """The cost of iterations on a machine that takes so many times as long for everything."""
    return replace(
        cost,
        base=cost.base * times,
        per_prefill_token=cost.per_prefill_token * times,
        per_decode_sequence=cost.per_decode_sequence * times,
        per_context_token=cost.per_context_token * times,
        per_attention_pair=cost.per_attention_pair * times,
    )


def machines(
    count: int, models: Sequence[str], swap_seconds: float, mean_answer: float = MEAN_ANSWER
) -> dict[str, tuple[MachineKind, str | None]]:
    """Equal machines which hold the models by turns."""
    return {
        f"machine-{number:02}": (kind(tuple(models), swap_seconds, 1.0, mean_answer), models[number % len(models)])
        for number in range(count)
    }


def compare(policies: Sequence[Policy], site: Site, arrivals: Sequence[Arrival], until: float) -> list[Row]:
    """Run the same arrivals under each policy; `until` is the horizon in seconds."""
    return [run(policy, site, arrivals, until) for policy in policies]


def run(policy: Policy, site: Site, arrivals: Sequence[Arrival], until: float) -> dict[str, Cell]:
    """Run arrivals under a policy up to a horizon, at which requests without a first token count as missed.

    Returns:
        `policy`; `attained`, `worst` and one column per level: requests whose first token was in time, in %, None
        for a level without requests; `goodput`:
        of those, how many had their whole answer, per second; `finished` in %; `swaps` per hour and machine; `busy` and
        `swapping`: machine time spent computing and changing models, in %; `evictions` per request; `p99`: of the time
        to first token of the first level, in seconds, the horizon for those without.
    """
    world = ModelsWorld(Simulation(), policy, site.levels, site.machines, site.known_lengths())
    world.feed(arrivals)
    world.simulation.run(until)
    world.note_open()
    ledger = world.ledger
    waits = np.where(np.isnan(ledger.ttft()), until, ledger.ttft())
    level = np.array([arrival.level for arrival in arrivals])
    promised = np.array([site.levels[name].ttft_seconds for name in level])
    kept = ledger.ttft() <= promised  # never where there is no first token, however much time is left
    finished = ledger.column("fate") == Fate.FINISHED
    classes = {name: 100.0 * float(kept[level == name].mean()) for name in site.levels if (level == name).any()}
    first = waits[level == next(iter(site.levels))]
    total = until * len(site.machines)
    return {
        "policy": policy.name,
        "attained": 100.0 * float(kept.mean()),
        "worst": min(classes.values()),
        **{_column(name): classes.get(name) for name in site.levels},
        "goodput": float((kept & finished).sum()) / until,
        "finished": 100.0 * float(finished.mean()),
        "swaps": world.swaps / total * HOUR,
        "busy": 100.0 * sum(world.busy_seconds(name) for name in site.machines) / total,
        "swapping": 100.0 * world.swap_seconds / total,
        "evictions": world.evictions / len(arrivals),
        "p99": float(np.quantile(first, 0.99)) if len(first) else None,
        **{f"share_{name}": 100.0 * share for name, share in _shares(world, site).items()},
    }


def _shares(world: ModelsWorld, site: Site) -> dict[str, float]:
    """The part of all requests that each machine ended up with."""
    server = world.ledger.column("server")
    return {name: float((server == number).mean()) for number, name in enumerate(site.machines)}


def _column(level: str) -> str:
    return level.replace("-", "_")


def _requests_per_second(machine: MachineKind, mean_answer: float) -> float:
    speed = replace(machine, believed=1.0).instance("", None).speeds[min(machine.models)]
    return 1.0 / (mean_answer / speed.tokens_per_second + MEAN_PROMPT * speed.seconds_per_prompt_token)
