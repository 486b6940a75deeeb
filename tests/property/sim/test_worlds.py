"""A pool of one engine with room for everybody gives the times of the naive engine, through queue and events."""

from dataclasses import replace
from math import isnan

import pytest

from tests.property.sim.test_skipping import World, one_by_one, random_world, same_time
from trimtab.sim.engine import Simulation
from trimtab.sim.ledger import Fate
from trimtab.sim.serving import Phase, Work
from trimtab.sim.world import PoolWorld, ServerKind
from trimtab.workload.request import TraceRequest

FATES = {Phase.FINISHED: Fate.FINISHED, Phase.ABORTED: Fate.LEFT}


def plain(world: World) -> World:
    """The world with requests as traces have them, in the order of their arrival."""
    clients = sorted(world.clients, key=lambda client: client.comes)
    works = [Work(client.work.prompt_tokens, client.work.output_tokens) for client in clients]
    return replace(world, clients=[replace(c, work=work) for c, work in zip(clients, works, strict=True)])


def as_pool(world: World) -> PoolWorld:
    pool = PoolWorld(Simulation())
    pool.add_server("only", ServerKind(world.config, world.cost, capacity=1000))
    pool.feed(TraceRequest(c.comes, c.work.prompt_tokens, c.work.output_tokens) for c in world.clients)
    for number, client in enumerate(world.clients):
        if client.leaves is not None:
            pool.simulation.at(client.leaves, lambda number=number: pool.leave(number) and None)  # type: ignore[misc]
    pool.simulation.run()
    return pool


def known(time: float) -> float | None:
    return None if isnan(time) else time


@pytest.mark.parametrize("start", range(0, 200, 25))
def test_a_pool_of_one_is_the_naive_engine(start: int) -> None:
    for seed in range(start, start + 25):
        world = plain(random_world(seed))
        ledger = as_pool(world).ledger
        for number, (phase, produced, _, preemptions, admitted_at, first_at, last_at) in enumerate(
            one_by_one(world).seen
        ):
            assert ledger.fate[number] == FATES[phase], (seed, number)
            assert (ledger.produced[number], ledger.preemptions[number]) == (produced, preemptions), (seed, number)
            assert same_time(known(ledger.admitted_at[number]), admitted_at), (seed, number)
            assert same_time(known(ledger.first_token_at[number]), first_at), (seed, number)
            if phase is Phase.FINISHED:
                assert same_time(ledger.ended_at[number], last_at), (seed, number)
