"""The ports of a simulated pool, and the production step that runs on them.

The operator's step for a pool sees a workload and moves its replicas. Here the workload is a set of simulated servers;
the step, its decisions and its actions are the operator's own.
"""

from collections.abc import Callable, Iterable

from trimtab.decide import pools
from trimtab.model.decision import Action, Applied, Outcome, Want
from trimtab.model.pool import Pods, PoolSeen, PoolSpec, PoolState, Workload
from trimtab.ports import Actuator, Clock, Telemetry
from trimtab.sim.world import PoolWorld, ServerKind


class SimulatedWorkload:
    """The servers of a pool as a workload with replicas: the `Telemetry` and the `Actuator` port of a pool.

    Args:
        world: Where the servers are.
        kind: What each of them is.
        replicas: How many there are at the beginning.
    """

    def __init__(self, world: PoolWorld, kind: ServerKind, replicas: int) -> None:
        self._world = world
        self._kind = kind
        self._version = 0
        self._named = 0
        self.scale(replicas)

    @property
    def desired(self) -> int:
        """Replicas that were asked for last."""
        return len(self._world.serving_names())

    def scale(self, replicas: int) -> None:
        """Add servers, which take their time to start, or drain the youngest."""
        self._version += 1
        for _ in range(self.desired, replicas):
            self._world.add_server(f"replica-{self._named:04}", self._kind)
            self._named += 1
        for name in self._world.serving_names()[replicas:]:
            self._world.drain(name)

    async def snapshot(self) -> PoolSeen:
        """Return what the operator would see of the workload now."""
        world = self._world
        ready, total = world.ready_servers, len(world.servers)
        workload = Workload(str(self._version), desired=self.desired, current=total, ready=ready, ours=True)
        return PoolSeen(world.simulation.now, workload, pods=Pods(total=total, ready=ready))

    async def apply(self, action: Action) -> Applied:
        """Move the replicas, unless somebody else has since the action was decided or its time ran out."""
        if self._world.simulation.now > action.valid_until:
            return Applied(action, Outcome.STALE, "its time ran out")
        if action.decided_on != str(self._version):
            return Applied(action, Outcome.STALE, f"the workload is at version {self._version}")
        self.scale(action.value)
        return Applied(action, Outcome.APPLIED, resource_version=str(self._version))


async def run_pool(
    clock: Clock,
    telemetry: Telemetry[PoolSeen],
    actuator: Actuator[Action, Applied],
    spec: PoolSpec,
    policy: Callable[[PoolSeen], Iterable[Want]] | None = None,
    *,
    period_seconds: float,
) -> None:
    """Observe, step and act, for ever.

    Args:
        clock: the time.
        telemetry: what is seen of the pool.
        actuator: what turns its knobs.
        spec: what is asked of the pool.
        policy: what a policy beyond the pool's own scaling wants of its replicas.
        period_seconds: from one step to the next.
    """
    state, config = PoolState(), pools.PoolConfig()
    while True:
        seen = await telemetry.snapshot()
        decision = pools.step(config, state, spec, seen, policy(seen) if policy else ())
        state = decision.state
        for action in decision.actions:
            await actuator.apply(action)
        await clock.sleep(period_seconds)
