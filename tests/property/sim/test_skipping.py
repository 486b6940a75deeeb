"""Making many iterations at once gives the times of making them one after the other, in random worlds.

`TRIMTAB_WORLDS` sets how many worlds are tried (1,000); each is the same in every run.
"""

import os
from collections import Counter
from dataclasses import dataclass, field, replace
from random import Random

import pytest

from tests.sim.reference import NaiveSequence, ReferenceEngine
from trimtab.sim.profile import IterationCost
from trimtab.sim.serving import EngineConfig, Phase, Sequence, ServingEngine, Step, Work

WORLDS = int(os.environ.get("TRIMTAB_WORLDS", "1000"))
PER_TEST = 25
BLOCK_SIZE = 4

# What a client sees of its request, and when.
Seen = tuple[Phase, int, int, int, float | None, float | None, float | None]


@dataclass(frozen=True)
class Client:
    """One request, when it comes, and when its client leaves (None: never)."""

    comes: float
    work: Work
    leaves: float | None


@dataclass(frozen=True)
class World:
    """An engine and who comes to it."""

    config: EngineConfig
    cost: IterationCost
    clients: list[Client]

    def events(self) -> list[tuple[float, int, bool]]:
        """Comings (False) and leavings (True) by client, in order of time."""
        comings = [(client.comes, index, False) for index, client in enumerate(self.clients)]
        leavings = [(c.leaves, index, True) for index, c in enumerate(self.clients) if c.leaves is not None]
        return sorted(comings + leavings)


def random_world(seed: int) -> World:
    """A world in which everything happens: preemption, priorities, hits, adapters, clients that leave."""
    random = Random(seed)
    seqs = random.choice([1, 2, 4, 8, 24])
    longest = random.choice([20, 60, 200])
    blocks = random.randint(2 * longest // BLOCK_SIZE + 2, (2 + seqs) * longest // BLOCK_SIZE + 2)
    config = EngineConfig(
        kv_blocks=blocks,
        block_size=BLOCK_SIZE,
        max_num_seqs=seqs,
        max_num_batched_tokens=random.randint(seqs, random.choice([seqs + 4, 2 * longest])),
        scheduling_policy=random.choice(["fcfs", "priority"]),
        prefix_caching=random.random() < 0.7,
        max_loras=2,
    )
    cost = IterationCost(0.01, 1e-4, 1e-5, random.choice([0.0, 1e-6, 1e-4]), 1e-8)
    span = random.choice([0.1, 1.0, 10.0])
    adapters = random.random() < 0.2
    clients = [a_client(random, longest, span, adapters=adapters) for _ in range(random.randint(1, 40))]
    return World(*with_extras(seed, config, cost), clients)


def with_extras(seed: int, config: EngineConfig, cost: IterationCost) -> tuple[EngineConfig, IterationCost]:
    """What only some engines do, in some of the worlds."""
    if seed % 3 == 0:
        cost = replace(cost, mixed=0.003, mixed_floor=0.02, split_decodes=2, unsplit_context_token=5e-7)
        cost = replace(cost, per_longest_token=1e-5)
    if seed % 4 == 1:
        config = replace(config, async_scheduling=True)
    if seed % 5 < 3 and config.prefix_caching:
        config = replace(config, host_kv_blocks=(8, 40, 400)[seed % 3], host_kv_answers=seed % 2 == 0)
        cost = replace(cost, per_host_block=(0.000173, 0.010731, 0.0)[seed % 7 % 3], per_stored_token=1e-6)
    return config, cost


def a_client(random: Random, longest: int, span: float, *, adapters: bool) -> Client:
    prompt, output = random.randint(1, longest), random.randint(1, longest)
    family = random.randint(0, 4)
    known = random.choice([prompt, prompt, prompt + output]) // BLOCK_SIZE
    parts = random.randint(0, known)  # where it leaves the text of its family
    own = random.randint(10, 1000) * 100_000
    hashes = tuple(family * 1000 + i if i < parts else own + i for i in range(known)) if family else ()
    comes = random.uniform(0, span)
    return Client(
        comes=comes,
        work=Work(
            prompt_tokens=prompt,
            output_tokens=output,
            priority=random.randint(-2, 2),
            block_hashes=hashes,
            adapter=random.choice(["a", "b", "c", ""]) if adapters else "",
        ),
        leaves=comes + random.expovariate(1) if random.random() < 0.15 else None,
    )


@dataclass
class Life:
    """What became of a world's requests."""

    seen: list[Seen]
    preemptions: int
    iterations: int
    steps: int
    finishes: Counter[int] = field(default_factory=Counter)


def one_by_one(world: World) -> Life:
    """The naive engine, one iteration after the other."""
    target = ReferenceEngine(world.config, world.cost)
    sequences: dict[int, NaiveSequence] = {}
    events = world.events()[::-1]
    now, iterations = 0.0, 0

    def happen(until: float) -> None:
        while events and events[-1][0] <= until:
            at, client, leaves = events.pop()
            if leaves:
                target.abort(sequences[client])
            else:
                sequences[client] = target.add(world.clients[client].work, at)

    while True:
        happen(now)
        iteration = target.next_iteration(now)
        if iteration is None:
            if not events:
                break
            now = events[-1][0]
            continue
        now = iteration.end
        iterations += 1
        happen(now)
        target.complete(iteration)
    assert target.cache.used == 0
    return Life([seen(sequences[i]) for i in range(len(sequences))], target.preemptions, iterations, iterations)


def skipping(world: World) -> Life:
    """The production engine, as few steps as it can make."""
    target = ServingEngine(world.config, world.cost)
    life = Life([], 0, 0, 0)
    sequences: dict[int, Sequence] = {}
    names: dict[Sequence, int] = {}
    step: Step | None = None
    now = 0.0
    for at, client, leaves in [*world.events(), (float("inf"), -1, False)]:
        while step is not None and step.end < at:
            now = end_of(step, now)
            life.finishes.update(names[sequence] for sequence in target.finish(step))
            check_books(target)
            step = target.next_step(now)
            life.steps += 1
        if client < 0:
            break
        if leaves:
            step = None if step is None else target.interrupt(step, at)
            check_books(target)
            target.abort(sequences[client])
        else:
            work = world.clients[client].work
            if step is not None and not target.goes_on(step, work, at):
                step = target.interrupt(step, at)
            sequences[client] = target.add(work, at)
            names[sequences[client]] = client
        if step is None:
            step = target.next_step(at)
    assert target.cache.used == 0
    life.seen = [seen(sequences[i]) for i in range(len(sequences))]
    life.preemptions, life.iterations = target.preemptions, target.iterations
    return life


def end_of(step: Step, now: float) -> float:
    assert step.end > step.start >= now or step.start == now, "time goes on"
    assert step.end == pytest.approx(step.end_of(step.iterations), abs=1e-12)
    return step.end


def check_books(target: ServingEngine) -> None:
    holders = [*target.running, *target.loading]
    shared = Counter(key for sequence in holders for key in sequence.held if key >= 0)
    own = sum(s.blocks - sum(key >= 0 for key in s.held) for s in holders)
    assert len(shared) + own == target.cache.used, "each held block is counted once, shared or not"
    assert all(not s.held and not s.blocks for s in target.waiting if s not in target.loading)
    assert target.host is None or len(target.host) <= target.host.capacity


def seen(sequence: Sequence | NaiveSequence) -> Seen:
    return (
        sequence.phase,
        sequence.produced,
        sequence.cached_tokens,
        sequence.preemptions,
        sequence.admitted_at,
        sequence.first_token_at,
        sequence.last_token_at,
    )


def same_time(ours: float | None, theirs: float | None) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    return abs(ours - theirs) <= 1e-9


@pytest.mark.parametrize("start", range(0, WORLDS, PER_TEST))
def test_times_are_those_of_the_reference(start: int) -> None:
    for seed in range(start, min(start + PER_TEST, WORLDS)):
        world = random_world(seed)
        expected, got = one_by_one(world), skipping(world)
        assert (got.preemptions, got.iterations) == (expected.preemptions, expected.iterations), seed
        for index, (theirs, ours) in enumerate(zip(expected.seen, got.seen, strict=True)):
            assert ours[:4] == theirs[:4], (seed, index)
            assert all(map(same_time, ours[4:], theirs[4:])), (seed, index, ours, theirs)


def test_the_worlds_hold_what_they_are_for() -> None:
    lives = [skipping(random_world(seed)) for seed in range(PER_TEST)]
    phases = Counter(life[0] for each in lives for life in each.seen)
    assert min(phases[Phase.FINISHED], phases[Phase.ABORTED]) > 5
    assert sum(each.preemptions for each in lives) > 50
    assert sum(life[2] > 0 for each in lives for life in each.seen) > 20, "prefix hits"
    assert sum(each.steps for each in lives) < sum(each.iterations for each in lives) / 2, "it skips"


def test_every_request_ends_exactly_once() -> None:
    for seed in range(PER_TEST):
        world = random_world(seed)
        life = skipping(world)
        for index, client in enumerate(world.clients):
            phase, produced = life.seen[index][:2]
            assert life.finishes[index] == (phase is Phase.FINISHED)
            assert phase is Phase.FINISHED or (phase is Phase.ABORTED and client.leaves is not None)
            assert (produced == client.work.output_tokens) == (phase is Phase.FINISHED)
