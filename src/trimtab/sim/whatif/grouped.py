"""The pool under the queue that plans groups of requests (QLM), which the plain queue of the gateway does not run."""

from collections.abc import Sequence

from trimtab.decide.queueing.mean_length import MeanLengths
from trimtab.decide.queueing.models_queue import Level as PlannedLevel
from trimtab.sim.engine import Simulation
from trimtab.sim.ledger import Ledger
from trimtab.sim.models_runs import QLM
from trimtab.sim.models_world import Arrival as PlannedArrival
from trimtab.sim.models_world import MachineKind, ModelKind, ModelsWorld
from trimtab.sim.whatif.case import Case
from trimtab.sim.whatif.draw import Arrival, Speed


def simulate_groups(case: Case, replicas: int, requests: Sequence[Arrival], speed: Speed) -> Ledger:
    """Serve requests to the last one; nobody is refused, because this queue bounds no waits."""
    simulation = Simulation()
    kind = ModelKind.of(speed.of(case.profile), swap_seconds=0.0, config=case.config)
    machine = MachineKind(min(case.capacity, case.config.max_num_seqs), {case.model: kind})
    world = ModelsWorld(
        simulation,
        QLM,
        {level.name: PlannedLevel(level.deadline_seconds) for level in case.levels},
        {f"server-{number:04}": (machine, case.model) for number in range(replicas)},
        MeanLengths(case.profile.output_length.median_tokens),
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
    return world.ledger
