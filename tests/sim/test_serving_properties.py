"""Conservation: over random worlds every request ends once, no token is made twice, blocks balance, time goes on."""

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sim.engines import engine
from trimtab.sim.profile import IterationCost
from trimtab.sim.serving import Iteration, Phase, Sequence, ServingEngine, Work

COST = IterationCost(0.01, 1e-4, 1e-5, 1e-7, 1e-9)
BLOCK_SIZE = 4


@dataclass(frozen=True)
class Arrival:
    """A request, when it comes, and after how many tokens its client leaves (None: never)."""

    at: float
    work: Work
    leaves_after: int | None


@dataclass
class World:
    """A run and what was seen in it."""

    target: ServingEngine
    sequences: list[Sequence] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    finishes: Counter[int] = field(default_factory=Counter)
    iterations: list[Iteration] = field(default_factory=list)
    token_times: dict[int, list[float]] = field(default_factory=dict)


@st.composite
def works(draw: st.DrawFn) -> Work:
    """A request with one of three shared prefixes, or none."""
    prompt = draw(st.integers(1, 40))
    output = draw(st.integers(1, 24))
    family = draw(st.integers(0, 3))
    hashes = tuple(family * 1000 + index for index in range((prompt + output) // BLOCK_SIZE)) if family else ()
    return Work(
        prompt_tokens=prompt,
        output_tokens=output,
        priority=draw(st.integers(-2, 2)),
        block_hashes=hashes,
        adapter=draw(st.sampled_from(["", "", "a", "b", "c"])),
    )


arrivals = st.lists(
    st.builds(Arrival, st.floats(0, 1), works(), st.none() | st.integers(0, 10)), min_size=1, max_size=12
)
limits = st.fixed_dictionaries(
    {
        "kv_blocks": st.integers(17, 40),
        "max_num_seqs": st.integers(1, 6),
        "max_num_batched_tokens": st.integers(6, 40),
        "scheduling_policy": st.sampled_from(["fcfs", "priority"]),
        "prefix_caching": st.booleans(),
        "max_loras": st.integers(1, 2),
    }
)


def play(limit: dict[str, object], coming: list[Arrival]) -> World:
    """Run the world to its end, checking the books after every step."""
    world = World(engine(cost=COST, block_size=BLOCK_SIZE, **limit))
    target = world.target
    pending = sorted(coming, key=lambda arrival: arrival.at)
    now = 0.0
    while True:
        while pending and pending[0].at <= now:
            arrival = pending.pop(0)
            world.arrivals.append(arrival)
            world.sequences.append(target.add(arrival.work, arrival.at))
        iteration = target.next_iteration(now)
        if iteration is None:
            assert target.num_running == target.num_waiting == 0, "an engine with work never stands still"
            if not pending:
                return world
            now = pending[0].at
            continue
        assert iteration.end > iteration.start >= now
        check_books(target)
        check_budget(target, iteration)
        world.iterations.append(iteration)
        now = iteration.end
        for sequence in target.complete(iteration):
            index = world.sequences.index(sequence)
            world.token_times.setdefault(index, []).append(now)
            world.finishes[index] += sequence.phase is Phase.FINISHED
        for sequence, arrival in zip(world.sequences, world.arrivals, strict=True):
            if arrival.leaves_after is not None and sequence.produced >= arrival.leaves_after:
                target.abort(sequence)
        check_books(target)
        assert all(sequence.decodes for sequence in target.running[:-1]), "only the last one computes its prompt"


def check_books(target: ServingEngine) -> None:
    running = target.running
    shared = {key for sequence in running for key in sequence.held if key >= 0}
    own = sum(sequence.blocks - sum(key >= 0 for key in sequence.held) for sequence in running)
    assert len(shared) + own == target.cache.used, "each held block is counted once, shared or not"
    assert target.cache.used + target.cache.free == target.cache.capacity
    for sequence in running:
        assert sequence.computed <= sequence.blocks * BLOCK_SIZE
        assert sequence.computed <= sequence.known_tokens
    assert not any(sequence.held or sequence.blocks or sequence.computed for sequence in target.waiting)


def check_budget(target: ServingEngine, iteration: Iteration) -> None:
    config = target.config
    assert 0 < iteration.total_tokens <= config.max_num_batched_tokens
    assert len(iteration.tokens) <= target.num_running <= config.max_num_seqs
    assert iteration.total_tokens == sum(iteration.tokens.values())
    adapters = {sequence.work.adapter for sequence in target.running} - {""}
    assert len(adapters) <= config.max_loras


@settings(max_examples=300, deadline=None)
@given(limits, arrivals)
def test_every_request_ends_exactly_once_and_blocks_balance(limit: dict[str, object], coming: list[Arrival]) -> None:
    world = play(limit, coming)
    assert world.target.cache.used == 0
    for index, sequence in enumerate(world.sequences):
        assert sequence.phase in {Phase.FINISHED, Phase.ABORTED}
        assert world.finishes[index] == (sequence.phase is Phase.FINISHED)
        if world.arrivals[index].leaves_after is None:
            assert sequence.phase is Phase.FINISHED


@settings(max_examples=200, deadline=None)
@given(limits, arrivals)
def test_no_token_is_made_twice_and_times_rise(limit: dict[str, object], coming: list[Arrival]) -> None:
    world = play(limit, coming)
    for index, sequence in enumerate(world.sequences):
        times = world.token_times.get(index, [])
        assert len(times) == sequence.produced <= sequence.work.output_tokens
        assert times == sorted(set(times))
        if times:
            assert sequence.admitted_at is not None
            assert sequence.arrived_at <= sequence.admitted_at < times[0] == sequence.first_token_at
            assert times[-1] == sequence.last_token_at


@settings(max_examples=100, deadline=None)
@given(limits, arrivals)
def test_work_is_what_the_tokens_need_and_preemption_repeats(limit: dict[str, object], coming: list[Arrival]) -> None:
    world = play(limit, [Arrival(a.at, a.work, None) for a in coming])
    needed = sum(s.work.prompt_tokens + s.work.output_tokens - 1 for s in world.sequences)
    processed = sum(iteration.total_tokens for iteration in world.iterations)
    if world.target.preemptions == 0:
        assert processed == needed - world.target.prefix_hits
    assert sum(s.preemptions for s in world.sequences) == world.target.preemptions
    assert sum(len(iteration.preempted) for iteration in world.iterations) == world.target.preemptions


@settings(max_examples=100, deadline=None)
@given(limits, arrivals)
def test_the_same_world_runs_the_same_way(limit: dict[str, object], coming: list[Arrival]) -> None:
    first, second = play(limit, coming), play(limit, coming)
    assert first.token_times == second.token_times
    assert [i.end for i in first.iterations] == [i.end for i in second.iterations]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=20))
def test_a_full_engine_serves_by_priority_then_arrival(priorities: list[int]) -> None:
    target = engine(max_num_seqs=1, scheduling_policy="priority")
    sequences = [target.add(Work(1, 1, priority=p), float(i)) for i, p in enumerate(priorities)]
    now = float(len(priorities))
    served = []
    while (iteration := target.next_iteration(now)) is not None:
        now = iteration.end
        served += [sequences.index(sequence) for sequence in target.complete(iteration)]
    assert served == sorted(range(len(priorities)), key=lambda index: (priorities[index], index))


@settings(max_examples=100, deadline=None)
@given(arrivals)
def test_a_cache_with_room_for_all_never_preempts(coming: list[Arrival]) -> None:
    world = play({"kv_blocks": 2000, "max_num_seqs": 12, "max_num_batched_tokens": 999, "max_loras": 3}, coming)
    assert world.target.preemptions == 0
