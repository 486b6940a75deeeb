"""Pools of simulated engines: the production queue in front, every request ending once, the same run every time."""

import hashlib
import math
import os
import subprocess
import sys
from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.decide.queueing import Bounds
from trimtab.sim.engine import Simulation
from trimtab.sim.ledger import Fate, Ledger
from trimtab.sim.profile import FrontEnd, IterationCost, load_profile
from trimtab.sim.server import Server
from trimtab.sim.serving import EngineConfig, Sequence, ServingEngine, Work
from trimtab.sim.world import PoolWorld, ServerKind, work_of
from trimtab.workload.request import TraceRequest

TICK = IterationCost(1.0, 0.0, 0.0, 0.0, 0.0)
COST = IterationCost(0.01, 1e-4, 1e-5, 1e-6, 1e-9)


def kind(*, cost: IterationCost = TICK, capacity: int = 0, start_seconds: float = 0.0, **limits: int) -> ServerKind:
    config = EngineConfig(
        **{"kv_blocks": 101, "block_size": 4, "max_num_seqs": 4, "max_num_batched_tokens": 32, **limits}
    )
    return ServerKind(config, cost, capacity, start_seconds)


def world(*servers: ServerKind, bounds: Bounds | None = None) -> PoolWorld:
    pool = PoolWorld(Simulation(), bounds=bounds)
    for index, server in enumerate(servers):
        pool.add_server(f"s{index}", server)
    return pool


def fates(pool: PoolWorld) -> list[Fate]:
    return [Fate(fate) for fate in pool.ledger.fate]


def at(*times: float, tokens: int = 4, output: int = 3) -> list[TraceRequest]:
    return [TraceRequest(time, tokens, output) for time in times]


def test_a_request_is_served() -> None:
    pool = world(kind())
    pool.feed(at(5.0))
    pool.simulation.run()
    ledger = pool.ledger
    assert fates(pool) == [Fate.FINISHED]
    assert (ledger.dispatched_at[0], ledger.admitted_at[0], ledger.first_token_at[0], ledger.ended_at[0]) == (
        5,
        5,
        6,
        8,
    )
    assert (ledger.ttft()[0], ledger.latency()[0], ledger.time_per_token()[0]) == (1, 3, 1)
    assert pool.simulation.now == 8.0


def test_what_comes_together_is_served_together() -> None:
    pool = world(kind())
    pool.feed(at(1.0, 1.0, 1.0))
    pool.simulation.run()
    assert list(pool.ledger.first_token_at) == [2.0, 2.0, 2.0]


def test_an_arrival_during_many_iterations_joins_at_the_next_one() -> None:
    pool = world(kind())
    pool.feed([TraceRequest(0.0, 4, 100), TraceRequest(50.5, 4, 2)])
    pool.simulation.run()
    assert list(pool.ledger.first_token_at) == [1.0, 52.0]
    assert list(pool.ledger.ended_at) == [100.0, 53.0]
    assert pool.simulation.events < 20, "iterations between changes are not events"


def test_the_queue_holds_what_the_servers_have_no_room_for_in_order() -> None:
    pool = world(kind(capacity=1), kind(capacity=1))
    pool.feed(at(0.0, 0.1, 0.2, 0.3))
    pool.simulation.run()
    ledger = pool.ledger
    assert list(ledger.server) == [0, 1, 0, 1]
    assert list(ledger.dispatched_at) == pytest.approx([0.0, 0.1, 3.0, 3.1])


def test_another_order_plugs_in() -> None:
    pool = PoolWorld(Simulation(), order=lambda request: -request.arrived_at)
    pool.add_server("s", kind(capacity=1))
    pool.feed(at(0.0, 0.1, 0.2, 0.3))
    pool.simulation.run()
    assert np.argsort(pool.ledger.column("dispatched_at")).tolist() == [0, 3, 2, 1]


def test_a_full_queue_and_a_long_wait_end_in_a_refusal() -> None:
    pool = world(kind(capacity=1), bounds=Bounds(max_requests=2, max_waiting_seconds=4.0))
    pool.feed(at(0.0, 0.5, 0.6, 0.7, output=10))
    pool.simulation.run()
    assert fates(pool) == [Fate.FINISHED, Fate.REFUSED, Fate.REFUSED, Fate.REFUSED]
    assert list(pool.ledger.ended_at) == pytest.approx([10.0, 4.5, 4.6, 0.7])
    assert math.isnan(pool.ledger.latency()[1])
    assert pool.simulation.now == 10.0, "a look at an empty queue does not prolong the run"


def test_without_a_server_the_queue_gives_up_after_its_bound() -> None:
    pool = world(bounds=Bounds(max_seconds_without_endpoint=3.0))
    pool.feed(at(1.0))
    pool.simulation.run()
    assert (fates(pool), list(pool.ledger.ended_at)) == ([Fate.REFUSED], [4.0])


def test_what_an_engine_cannot_hold_ends_at_once_and_is_counted() -> None:
    pool = world(kind())
    pool.feed([TraceRequest(0.0, 300, 101), TraceRequest(0.0, 300, 100)])
    pool.simulation.run()
    assert fates(pool) == [Fate.TOO_LONG, Fate.FINISHED]


def test_a_trace_that_goes_back_is_refused() -> None:
    pool = world(kind())
    pool.feed(at(1.0, 0.5))
    with pytest.raises(ValueError, match="request 1 arrives before the one before it"):
        pool.simulation.run()


class TestKinds:
    def test_a_profile_gives_everything_that_it_says_of_a_server(self) -> None:
        iteration = IterationCost(*(float(n + 1) for n in range(len(fields(IterationCost)))))
        front_end = FrontEnd(*(float(n + 1) for n in range(len(fields(FrontEnd)))))
        profile = replace(
            load_profile("tiny"),
            iteration=iteration,
            front_end=front_end,
            async_scheduling=True,
            host_kv_blocks=70,
            host_kv_answers=False,
        )
        made = ServerKind.of(profile, capacity=3, start_seconds=0.5)
        assert made == ServerKind(EngineConfig.of(profile), iteration, 3, 0.5, front_end)
        assert (made.config.async_scheduling, made.config.host_kv_answers) == (True, False)
        limits = {f.name for f in fields(EngineConfig)} & {f.name for f in fields(profile)} - {"host_kv_blocks"}
        assert len(limits) > 5
        assert all(getattr(made.config, name) == getattr(profile, name) for name in limits)

    def test_host_memory_is_used_where_the_engine_offloads(self) -> None:
        profile = replace(load_profile("tiny"), host_kv_blocks=70)
        assert ServerKind.of(profile).config.host_kv_blocks == 0
        assert ServerKind.of(profile, offloads=True).config.host_kv_blocks == 70

    def test_limits_may_be_others(self) -> None:
        limits = EngineConfig(kv_blocks=50, max_num_seqs=2)
        assert ServerKind.of(load_profile("tiny"), config=limits).config is limits


class TestFrontEnds:
    SLOW = replace(kind(), front_end=FrontEnd(2.0, 0.125))

    def test_the_engine_sees_a_request_after_them(self) -> None:
        pool = world(self.SLOW)
        pool.feed(at(1.0))
        pool.simulation.run()
        assert (pool.ledger.dispatched_at[0], pool.ledger.admitted_at[0], pool.ledger.ttft()[0]) == (1.0, 3.5, 3.5)

    def test_requests_wait_for_one_that_is_busy(self) -> None:
        pool = world(replace(self.SLOW, front_end=FrontEnd(2.0, 0.125, busy_per_request=1.75)))
        pool.feed(at(1.0, 1.5, 9.0))
        pool.simulation.run()
        assert list(pool.ledger.admitted_at) == [3.5, 5.5, 11.5]

    def test_each_server_has_its_own(self) -> None:
        one = replace(self.SLOW, front_end=FrontEnd(2.0, 0.125, busy_per_request=2.0), capacity=1)
        pool = world(one, one)
        pool.feed(at(1.0, 1.0))
        pool.simulation.run()
        assert list(pool.ledger.admitted_at) == [3.5, 3.5]

    def test_a_client_can_leave_in_them(self) -> None:
        pool = world(replace(self.SLOW, capacity=1))
        pool.feed(at(1.0, 1.5))
        pool.simulation.at(2.0, lambda: pool.leave(0) and None)
        pool.simulation.run()
        assert fates(pool) == [Fate.LEFT, Fate.FINISHED]
        assert pool.ledger.dispatched_at[1] == 2.0


class TestClients:
    def test_one_that_waits_can_leave(self) -> None:
        pool = world(kind(capacity=1))
        pool.feed(at(0.0, 0.1))
        pool.simulation.at(1.5, lambda: pool.leave(1) and None)
        pool.simulation.run()
        assert fates(pool) == [Fate.FINISHED, Fate.LEFT]
        assert pool.ledger.ended_at[1] == 1.5

    def test_one_that_is_served_makes_room_when_it_leaves(self) -> None:
        pool = world(kind(capacity=1))
        pool.feed([TraceRequest(0.0, 4, 100), TraceRequest(0.1, 4, 1)])
        pool.simulation.at(50.5, lambda: pool.leave(0) and None)
        pool.simulation.run()
        assert fates(pool) == [Fate.LEFT, Fate.FINISHED]
        assert pool.ledger.produced[0] == 50
        assert list(pool.ledger.ended_at) == [50.5, 52.0]
        assert not pool.leave(0), "it has ended"
        assert not pool.leave(1)

    def test_one_can_answer_an_end_with_the_next_request(self) -> None:
        ends: list[tuple[int, Fate, float]] = []

        def ended(number: int, fate: Fate) -> None:
            ends.append((number, fate, pool.simulation.now))
            if number < 3:
                pool.submit(TraceRequest(0.0, 4, 3))

        pool = PoolWorld(Simulation(), listener=ended)
        pool.add_server("s", kind())
        pool.feed(at(0.0))
        pool.simulation.run()
        assert ends == [(number, Fate.FINISHED, 3.0 * number + 3) for number in range(4)]


class TestServers:
    def test_a_server_serves_once_it_has_started(self) -> None:
        pool = world(kind(start_seconds=7.0))
        pool.feed(at(1.0))
        pool.simulation.run()
        assert pool.ledger.dispatched_at[0] == 7.0

    def test_one_that_drains_ends_what_it_has_and_gets_no_more(self) -> None:
        pool = world(kind(), kind())
        pool.feed(at(0.0, 0.1, 1.5))
        pool.simulation.at(1.0, lambda: pool.drain("s0"))
        pool.simulation.run()
        assert list(pool.ledger.server) == [0, 1, 1]
        assert fates(pool) == [Fate.FINISHED] * 3
        assert list(pool.servers) == ["s1"]

    def test_one_that_drains_before_it_has_started_never_serves(self) -> None:
        pool = world(kind(start_seconds=2.0), bounds=Bounds(max_seconds_without_endpoint=5.0))
        pool.simulation.at(1.0, lambda: pool.drain("s0"))
        pool.feed(at(1.5))
        pool.simulation.run()
        assert fates(pool) == [Fate.REFUSED]
        assert not pool.servers

    def test_names_are_unique(self) -> None:
        pool = world(kind())
        with pytest.raises(ValueError, match="a server 's0' already"):
            pool.add_server("s0", kind())

    def test_a_pause_holds_what_comes_after_the_iteration_under_way(self) -> None:
        pool = world(kind())
        pool.feed(at(0.0, output=10))
        pool.simulation.at(3.5, pool.servers["s0"].pause)
        pool.simulation.at(20.0, pool.servers["s0"].resume)
        pool.simulation.run()
        assert pool.ledger.ended_at[0] == 26.0

    def test_a_swap_returns_what_was_unfinished_and_takes_its_time(self) -> None:
        simulation = Simulation()
        ended: list[Sequence] = []
        server = Server(simulation, "s", ServingEngine(kind().config, TICK), lambda _, sequence: ended.append(sequence))
        first = server.submit(Work(4, 100))
        returned: list[Sequence] = []

        def swap() -> None:
            returned.extend(server.swap(ServingEngine(kind().config, TICK), 5.0))
            server.submit(Work(4, 2))

        simulation.at(10.5, swap)
        simulation.run()
        assert returned == [first]
        assert first.produced == 10
        assert [sequence.last_token_at for sequence in ended] == [17.5]

    def test_fleets_may_be_mixed(self) -> None:
        fast = kind(cost=IterationCost(0.1, 0, 0, 0, 0))
        pool = world(kind(), fast)
        pool.feed(at(*[0.2 * i for i in range(30)], output=10))
        pool.simulation.run()
        served = np.bincount(pool.ledger.column("server").astype(int))
        assert served[1] > 2 * served[0], "the least loaded engine is the fast one"


@pytest.mark.parametrize(
    ("tokens", "hashes"),
    [(1024, 64), (1023, 63), (513, 32), (512, 32)],
)
def test_prefix_blocks_of_a_trace_become_hashes_of_full_blocks(tokens: int, hashes: int) -> None:
    request = TraceRequest(0.0, tokens, 5, blocks=(7, 9)[: math.ceil(tokens / 512)])
    work = work_of(request, 16)
    assert len(work.block_hashes) == hashes
    assert work.block_hashes[0] == 7 * 32
    assert len(set(work.block_hashes)) == hashes


def test_blocks_that_do_not_divide_those_of_the_trace_are_refused() -> None:
    with pytest.raises(ValueError, match="block_size 48 does not divide"):
        work_of(TraceRequest(0.0, 1024, 5, blocks=(7, 9)), 48)


def test_a_shared_prefix_is_found_in_the_cache() -> None:
    pool = world(kind(kv_blocks=1000, block_size=16, max_num_batched_tokens=2000))
    pool.feed([TraceRequest(0.0, 1024, 1, blocks=(1, 2)), TraceRequest(5.0, 1024, 1, blocks=(1, 3))])
    pool.simulation.run()
    assert list(pool.ledger.cached_tokens) == [0, 512]


def test_an_entry_closes_once() -> None:
    ledger = Ledger()
    number = ledger.arrive(0.0, 1, 1)
    ledger.end(number, Fate.LEFT, 1.0)
    with pytest.raises(AssertionError, match="ends a second time"):
        ledger.end(number, Fate.LEFT, 1.0)
    assert len(ledger) == 1


requests = st.lists(
    st.builds(TraceRequest, st.floats(0, 2), st.integers(1, 60), st.integers(1, 40)), min_size=1, max_size=25
)
servers = st.lists(
    st.builds(
        kind,
        cost=st.just(COST),
        capacity=st.integers(0, 6),
        start_seconds=st.sampled_from([0.0, 0.5]),
        kv_blocks=st.integers(20, 60),
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=100, deadline=None)
@given(requests, servers, st.lists(st.tuples(st.floats(0, 3), st.integers(0, 24)), max_size=5), st.integers(1, 30))
def test_conservation(
    coming: list[TraceRequest], kinds: list[ServerKind], leavings: list[tuple[float, int]], room: int
) -> None:
    pool = world(*kinds, bounds=Bounds(max_requests=room, max_waiting_seconds=1.0))
    pool.feed(sorted(coming, key=lambda request: request.at_seconds))
    ends: list[float] = []
    pool._listener = lambda number, _: ends.append(pool.ledger.ended_at[number])
    for time, number in leavings:
        pool.simulation.at(time, lambda number=number: number < len(pool.ledger) and pool.leave(number) and None)  # type: ignore[misc]
    pool.simulation.run()
    ledger = pool.ledger
    assert len(ledger) == len(coming) == len(ends)
    assert Fate.OPEN not in fates(pool), "every request ends"
    assert all(before <= after for before, after in pairwise(ends)), "time never goes back"
    assert pool.queue.waiting == pool.queue.fleet.total_in_flight == 0
    for server in pool.servers.values():
        assert server.engine.cache.used == server.engine.num_running == server.engine.num_waiting == 0
    for number in range(len(ledger)):
        times = [ledger.arrived_at[number], ledger.dispatched_at[number], ledger.admitted_at[number]]
        times += [ledger.first_token_at[number], ledger.ended_at[number]]
        known = [time for time in times if not math.isnan(time)]
        assert known == sorted(known)
        finished = ledger.fate[number] == Fate.FINISHED
        assert (ledger.produced[number] == ledger.output_tokens[number]) == finished


def digest() -> str:
    """A fingerprint of everything that a run with random requests leaves behind."""
    simulation = Simulation(seed=3)
    pool = PoolWorld(simulation)
    pool.add_servers(kind(cost=COST, kv_blocks=60), 3)
    random = simulation.stream("trace", "requests")
    times = np.cumsum(random.exponential(0.05, 300))
    pool.feed(TraceRequest(float(t), int(random.integers(1, 60)), int(random.integers(1, 80))) for t in times)
    simulation.run()
    assert sum(server.engine.preemptions for server in pool.servers.values()) > 0
    columns = b"".join(column.tobytes() for column in (pool.ledger.ended_at, pool.ledger.server, pool.ledger.fate))
    return hashlib.sha256(columns).hexdigest()


@pytest.mark.parametrize("hash_seed", ["0", "12345"])
def test_the_same_seed_gives_the_same_bytes_under_any_hash_seed(hash_seed: str) -> None:
    code = "from tests.sim.test_world import digest; print(digest())"
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert ran.stdout.strip() == digest()
