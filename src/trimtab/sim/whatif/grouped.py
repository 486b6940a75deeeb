"""The pool under the queue that plans groups of requests (QLM), which the plain queue of the gateway does not run."""

from collections.abc import Sequence
from math import exp

import numpy as np

from trimtab.decide.queueing.mean_length import MeanLengths
from trimtab.decide.queueing.models_queue import Level as PlannedLevel
from trimtab.sim.engine import Simulation
from trimtab.sim.ledger import Fate, Ledger
from trimtab.sim.models_runs import QLM
from trimtab.sim.models_world import Arrival as PlannedArrival
from trimtab.sim.models_world import MachineKind, ModelKind, ModelsWorld
from trimtab.sim.profile import OutputLength
from trimtab.sim.whatif.case import Case
from trimtab.sim.whatif.draw import Arrival, Speed


def simulate_groups(case: Case, replicas: int, requests: Sequence[Arrival], speed: Speed) -> Ledger:
    """Serve requests to the last one. This queue bounds no waits: who waits longer than allowed is marked after.

    Such a request counts as refused, although a machine has served it, which makes an overload last a little longer.
    """
    simulation = Simulation()
    kind = ModelKind.of(speed.of(case.profile), swap_seconds=0.0, config=case.config)
    machine = MachineKind(min(case.capacity, case.config.max_num_seqs), {case.model: kind})
    world = ModelsWorld(
        simulation,
        QLM,
        {level.name: PlannedLevel(level.deadline_seconds, level.weight) for level in case.levels},
        {f"server-{number:04}": (machine, case.model) for number in range(replicas)},
        MeanLengths(_mean_tokens(case.profile.output_length)),
    )
    world.feed(
        PlannedArrival(
            arrival.request.at_seconds,
            case.model,
            arrival.level,
            arrival.request.input_tokens,
            arrival.request.output_tokens,
        )
        for arrival in requests
    )
    simulation.run()
    _refuse_late(world.ledger, case.bounds.max_waiting_seconds)
    return world.ledger


def _mean_tokens(lengths: OutputLength) -> float:
    """Return the mean of a log-normal distribution of answer lengths."""
    return lengths.median_tokens * exp(lengths.log_sigma**2 / 2)


def _refuse_late(ledger: Ledger, longest_wait: float) -> None:
    waits = ledger.column("first_token_at") - ledger.column("arrived_at")
    for number in np.flatnonzero(waits > longest_wait).tolist():
        ledger.fate[number] = Fate.REFUSED
