"""Conservation laws in random worlds, looked at after every event.

Every request ends exactly once, no token is produced twice, KV blocks balance, time never goes back: for a pool behind
its queue, for clients that wait for their answers, and for machines that several models share.
"""

from collections import Counter
from functools import partial
from random import Random

import pytest

from tests.property.sim.watching import Tokens, Watched, check_ends, check_servers
from trimtab.decide.queueing import Bounds, edf, late_last, swap_batching
from trimtab.decide.queueing.mean_length import MeanLengths
from trimtab.decide.queueing.models_queue import Level
from trimtab.decide.queueing.policy import Policy
from trimtab.sim.clients import ClosedLoop, Turn, take_turns
from trimtab.sim.ledger import Fate
from trimtab.sim.models_world import Arrival, MachineKind, ModelKind, ModelsWorld
from trimtab.sim.profile import FrontEnd, IterationCost
from trimtab.sim.serving import EngineConfig
from trimtab.sim.world import PoolWorld, ServerKind
from trimtab.workload.request import BLOCK_TOKENS, TraceRequest

WORLDS = 150
PER_TEST = 25
BLOCK = 64
SEEDS = range(0, WORLDS, PER_TEST)


def random_config(random: Random, longest: int) -> EngineConfig:
    seqs = random.choice([1, 2, 4, 8])
    caching = random.random() < 0.7
    return EngineConfig(
        kv_blocks=random.randint(longest // BLOCK + 2, (1 + seqs) * longest // BLOCK + 3),
        block_size=BLOCK,
        max_num_seqs=seqs,
        max_num_batched_tokens=random.randint(seqs, 2 * longest),
        prefix_caching=caching,
        host_kv_blocks=random.choice([0, 20]) if caching else 0,
        async_scheduling=random.random() < 0.3,
    )


def random_cost(random: Random) -> IterationCost:
    return IterationCost(0.01, 1e-4, 1e-5, random.choice([0.0, 1e-6, 1e-4]), 1e-9)


def random_kind(random: Random, longest: int) -> ServerKind:
    return ServerKind(
        random_config(random, longest),
        random_cost(random),
        capacity=random.choice([0, 1, 6]),
        start_seconds=random.choice([0.0, 0.5]),
        front_end=FrontEnd(random.choice([0.0, 0.01]), *random.choice([(0.0, 0.0), (1e-5, 0.005)])),
    )


def random_request(random: Random, at: float, longest: int) -> TraceRequest:
    tokens = random.randint(1, longest)
    whole = -(-tokens // BLOCK_TOKENS)
    family = random.randint(0, 3)
    shared = random.randint(0, whole)
    blocks = tuple(family * 100 + n if n < shared else random.randint(1000, 10**6) for n in range(whole))
    return TraceRequest(at, tokens, random.randint(1, 60), blocks if family else ())


class Pool:
    """A pool with everything that can happen to it, and what was told of its requests."""

    def __init__(self, seed: int) -> None:
        random = Random(seed)
        self.longest = random.choice([400, 1500])
        self.simulation = Watched()
        self.told: Counter[int] = Counter()
        self.random = random
        bounds = Bounds(max_requests=random.choice([3, 1000]), max_waiting_seconds=random.choice([0.3, 1e6]))
        self.world = PoolWorld(self.simulation, bounds=bounds, listener=self.hear)
        self.servers = [
            self.world.add_server(f"s{n}", random_kind(random, self.longest)) for n in range(random.randint(1, 3))
        ]
        tokens = Tokens()
        self.simulation.checks += [
            lambda: check_servers(self.servers, self.simulation.now),
            lambda: tokens.check(s for server in self.servers for s in server.engine.running),
            self.check_counts,
        ]

    def hear(self, number: int, fate: Fate) -> None:
        assert fate is not Fate.OPEN
        self.told[number] += 1

    def check_counts(self) -> None:
        """Who has arrived waits, is carried, or has ended; nobody is in two places, or in none."""
        open_ones = sum(fate == Fate.OPEN for fate in self.world.ledger.fate)
        assert self.world.queue.waiting + len(self.world._open) == open_ones
        assert len(self.world._requests) == self.world.queue.waiting

    def fill(self) -> None:
        """Requests, clients that leave, servers that come and go."""
        random, span = self.random, self.random.choice([0.2, 2.0])
        count = random.randint(1, 40)
        times = sorted(random.uniform(0, span) for _ in range(count))
        self.world.feed(random_request(random, at, self.longest) for at in times)
        for number, at in enumerate(times):
            if random.random() < 0.2:
                self.simulation.at(at + random.expovariate(2), partial(self.leave, number))
        if random.random() < 0.5:
            self.simulation.at(random.uniform(0, 2 * span), self.grow)
        if random.random() < 0.5:
            self.simulation.at(random.uniform(0, 2 * span), partial(self.world.drain, "s0"))
            self.simulation.at(2 * span, self.grow)

    def leave(self, number: int) -> None:
        self.world.leave(number)

    def grow(self) -> None:
        name = f"s{len(self.servers)}"
        self.servers.append(self.world.add_server(name, random_kind(self.random, self.longest)))


def run_pool(seed: int) -> Pool:
    pool = Pool(seed)
    pool.fill()
    pool.simulation.run()
    return pool


@pytest.mark.parametrize("start", SEEDS)
def test_a_pool_behind_its_queue(start: int) -> None:
    for seed in range(start, start + PER_TEST):
        pool = run_pool(seed)
        ledger = pool.world.ledger
        check_ends(ledger, {Fate.FINISHED, Fate.REFUSED, Fate.TOO_LONG, Fate.LEFT})
        assert pool.told == Counter(dict.fromkeys(range(len(ledger)), 1)), "each end is told once"
        assert all(server.engine.cache.used == 0 for server in pool.servers), seed
        assert not pool.world.queue.waiting


def test_the_pools_hold_what_they_are_for() -> None:
    pools = [run_pool(seed) for seed in range(PER_TEST * 2)]
    fates = Counter(Fate(fate) for pool in pools for fate in pool.world.ledger.fate)
    assert all(fates[fate] > 5 for fate in (Fate.FINISHED, Fate.REFUSED, Fate.LEFT)), fates
    assert sum(sum(pool.world.ledger.preemptions) for pool in pools) > 20
    assert sum(sum(pool.world.ledger.cached_tokens) for pool in pools) > 1000
    assert sum(server.engine.host_hits for pool in pools for server in pool.servers) > 0


@pytest.mark.parametrize("start", SEEDS)
def test_clients_that_wait_for_their_answers(start: int) -> None:
    """Each turn is sent once, in its order, and no client has two requests open; also where the queue refuses some."""
    for seed in range(start, start + PER_TEST):
        pool = Pool(seed)
        random = pool.random
        conversations = [
            [
                Turn(number, random.randint(1, pool.longest - 60), random.randint(1, 40), random.choice([0.0, 0.1]))
                for _ in range(random.randint(1, 4))
            ]
            for number in range(random.randint(1, 12))
        ]
        clients = random.randint(1, 6)
        loop = ClosedLoop(
            pool.simulation,
            take_turns(conversations, clients),
            partial(_say, pool),
        )
        pool.world._listener = partial(_both, pool, loop)
        pool.simulation.checks.append(partial(_at_most, pool, clients))
        loop.start()
        pool.simulation.run()
        check_ends(pool.world.ledger, {Fate.FINISHED, Fate.REFUSED, Fate.TOO_LONG})
        sent = Counter(turn for _, turn in loop.sent.values())
        assert sent == Counter(turn for turns in conversations for turn in turns), seed
        assert len(pool.world.ledger) == sum(map(len, conversations)) == sum(pool.told.values())
        for turns in conversations:
            order = [turn for _, (_, turn) in sorted(loop.sent.items()) if turn.conversation == turns[0].conversation]
            assert order == turns


def _say(pool: Pool, turn: Turn) -> int:
    return pool.world.submit(turn.request(pool.simulation.now))


def _both(pool: Pool, loop: ClosedLoop, number: int, fate: Fate) -> None:
    pool.hear(number, fate)
    loop.ended(number, fate)


def _at_most(pool: Pool, clients: int) -> None:
    assert sum(fate == Fate.OPEN for fate in pool.world.ledger.fate) <= clients


POLICIES = (
    Policy("edf", edf.plan),
    Policy("late last", late_last.plan, late_last=True, foresight=True),
    Policy("swap batching", swap_batching.plan, evicts=False, on_timer=True),
    Policy("static", edf.plan, static_batches=True, evicts=False, balances=False),
    Policy("one by one", edf.plan, group_batches=0.0, mega_tokens=None),
)


def random_models(seed: int) -> tuple[ModelsWorld, Watched]:
    random = Random(seed)
    longest = 1000
    kinds = [
        MachineKind(
            slots=random.choice([1, 4]),
            models={
                name: ModelKind(
                    EngineConfig(kv_blocks=random.randint(18, 60), block_size=BLOCK, max_num_seqs=4,
                                 max_num_batched_tokens=512),
                    random_cost(random),
                    random.choice([0.0, 0.5, 5.0]),
                )
                for name in ("m0", "m1", "m2")[: random.randint(1, 3)]
            },
        )
        for _ in range(random.randint(1, 3))
    ]  # fmt: skip
    levels = {"fast": Level(0.5), "slow": Level(30.0, 0.5)}
    machines = {f"machine-{n}": (kind, random.choice([None, *kind.models])) for n, kind in enumerate(kinds)}
    simulation = Watched()
    world = ModelsWorld(simulation, random.choice(POLICIES), levels, machines, MeanLengths(30.0))
    known = sorted({model for kind in kinds for model in kind.models})
    span = random.choice([0.5, 5.0])
    world.feed(
        Arrival(
            at, random.choice(known), random.choice(["fast", "slow"]), random.randint(1, longest), random.randint(1, 60)
        )
        for at in sorted(random.uniform(0, span) for _ in range(random.randint(1, 30)))
    )
    return world, simulation


class Stays:
    """Tokens of a request over all its stays in machines: each stay begins where the one before it ended."""

    def __init__(self, world: ModelsWorld) -> None:
        self._world = world
        self._seen: dict[int, int] = {}

    def check(self) -> None:
        for number, progress in self._world._requests.items():
            here = progress.sequence.produced if progress.sequence is not None else 0
            total = progress.produced + here
            assert self._seen.get(number, 0) <= total <= progress.arrival.output_tokens
            self._seen[number] = total
            if progress.sequence is not None:
                work = progress.sequence.work
                assert work.prompt_tokens == progress.arrival.input_tokens + progress.produced
                assert work.output_tokens == progress.arrival.output_tokens - progress.produced


def run_models(seed: int) -> ModelsWorld:
    world, simulation = random_models(seed)
    stays = Stays(world)
    simulation.checks += [
        lambda: check_servers(world._servers.values(), simulation.now),
        stays.check,
        lambda: _nobody_lost(world),
    ]
    simulation.run(until=10_000.0)
    return world


def _nobody_lost(world: ModelsWorld) -> None:
    open_ones = sum(fate == Fate.OPEN for fate in world.ledger.fate)
    carried = sum(progress.sequence is not None for progress in world._requests.values())
    assert len(world._requests) == open_ones == world.queue.waiting + carried


@pytest.mark.parametrize("start", SEEDS)
def test_machines_that_share_models(start: int) -> None:
    for seed in range(start, start + PER_TEST):
        world = run_models(seed)
        check_ends(world.ledger, {Fate.FINISHED, Fate.TOO_LONG})
        assert not world.queue.waiting
        assert all(server.engine.cache.used == 0 for server in world._servers.values()), seed


def test_the_shared_machines_hold_what_they_are_for() -> None:
    worlds = [run_models(seed) for seed in range(PER_TEST * 2)]
    assert sum(world.swaps for world in worlds) > 20
    assert sum(world.evictions for world in worlds) > 5
    assert sum(sum(world.ledger.preemptions) for world in worlds) > 5
