"""The operator's own step, in simulated time, through the ports."""

import asyncio
from dataclasses import replace

import pytest

from tests.sim.test_world import fates, kind
from trimtab.decide.queueing import Bounds
from trimtab.model.decision import Action, Mode, Outcome, Precedence, Want
from trimtab.model.knob import Bounds as KnobBounds
from trimtab.model.pool import PoolSeen, PoolSpec, Scaling, Target
from trimtab.model.reason import Reason, ReasonCode
from trimtab.sim.control import SimulatedWorkload, run_pool
from trimtab.sim.engine import SimulatedClock, Simulation
from trimtab.sim.ledger import Fate
from trimtab.sim.world import POOL, PoolWorld
from trimtab.workload.request import TraceRequest

SPEC = PoolSpec(
    ref=POOL,
    uid="1",
    created_at="2026-01-01T00:00:00Z",
    generation=1,
    target=Target("apps/v1", "Deployment", "chat"),
    owned=True,
    mode=Mode.ENFORCE,
    scaling=Scaling.FIXED,
    replicas=3,
)
REASON = Reason(ReasonCode.REPLICAS_FROM_SPEC, POOL)


def a_world(replicas: int, start_seconds: float = 0.0) -> tuple[PoolWorld, SimulatedWorkload]:
    pool = PoolWorld(Simulation(), bounds=Bounds(max_seconds_without_endpoint=1e9))
    return pool, SimulatedWorkload(pool, kind(capacity=1, start_seconds=start_seconds), replicas)


def seen_by(workload: SimulatedWorkload) -> PoolSeen:
    return asyncio.run(workload.snapshot())


def an_action(value: int, decided_on: str = "1", valid_until: float = 100.0) -> Action:
    return Action(SPEC.knob, None, value, Precedence.SLO, "test", REASON, decided_on, valid_until)


def test_the_production_step_moves_the_replicas_to_what_the_spec_says() -> None:
    pool, workload = a_world(1, start_seconds=30.0)
    pool.simulation.spawn(run_pool(SimulatedClock(pool.simulation), workload, workload, SPEC, period_seconds=10.0))
    pool.simulation.run(until=20.0)
    assert workload.desired == 3
    assert pool.ready_servers == 0, "they take their time to start"
    pool.simulation.run(until=40.0)
    assert pool.ready_servers == 3


def test_a_policy_scales_on_what_it_sees() -> None:
    pool, workload = a_world(1)
    spec = replace(SPEC, scaling=Scaling.WAITING_TIME, replicas=None, bounds=KnobBounds(1, 4))

    def one_per_waiting_request(seen: PoolSeen) -> list[Want]:
        assert seen.workload is not None
        wanted = 1 + pool.queue.waiting
        return [Want(spec.knob, wanted, Precedence.SLO, "test", REASON)] if wanted > seen.workload.desired else []

    clock = SimulatedClock(pool.simulation)
    pool.feed(TraceRequest(5.0, 4, 10) for _ in range(3))
    pool.simulation.spawn(run_pool(clock, workload, workload, spec, one_per_waiting_request, period_seconds=1.0))
    pool.simulation.run(until=30.0)
    assert fates(pool) == [Fate.FINISHED] * 3
    assert workload.desired == 3
    assert list(pool.ledger.dispatched_at) == [5.0, 5.0, 5.0], "its step at 5 s sees two that wait"


def test_scaling_down_drains_the_youngest() -> None:
    pool, workload = a_world(3)
    pool.simulation.run(until=1.0)
    workload.scale(1)
    assert list(pool.servers) == ["replica-0000"]
    workload.scale(2)
    assert list(pool.servers) == ["replica-0000", "replica-0003"]


def test_a_snapshot_counts_what_is_there() -> None:
    pool, workload = a_world(2, start_seconds=1.0)
    before = seen_by(workload)
    pool.simulation.run(until=2.0)
    after = seen_by(workload)
    assert before.workload is not None
    assert after.workload is not None
    assert (before.at, before.workload.desired, before.workload.ready) == (0.0, 2, 0)
    assert (after.at, after.workload.desired, after.workload.ready) == (2.0, 2, 2)


@pytest.mark.parametrize(
    ("action", "outcome", "replicas"),
    [
        (an_action(4), Outcome.APPLIED, 4),
        (an_action(4, decided_on="0"), Outcome.STALE, 2),
        (an_action(4, valid_until=1.0), Outcome.STALE, 2),
    ],
)
def test_an_action_is_carried_out_only_on_what_it_was_decided_on(
    action: Action, outcome: Outcome, replicas: int
) -> None:
    pool, workload = a_world(2)
    pool.simulation.run(until=2.0)
    assert asyncio.run(workload.apply(action)).outcome is outcome
    assert workload.desired == replicas
