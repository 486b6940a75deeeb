"""The queue of several models under arbitrary events: nothing is lost or served twice, no machine is overfilled."""

from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.decide.queueing import edf, late_last, per_model, swap_batching
from trimtab.decide.queueing.fixed_batch import FixedBatch
from trimtab.decide.queueing.instance import Instance, Speed
from trimtab.decide.queueing.mean_length import MeanLengths
from trimtab.decide.queueing.models_queue import MOST_EVICTIONS, Level, ModelsQueue
from trimtab.decide.queueing.orders import Orders
from trimtab.decide.queueing.policy import Policy
from trimtab.decide.queueing.qlm import Qlm
from trimtab.decide.queueing.request import Request

QLM = Policy(
    "qlm", Qlm(), late_last=True, foresight=True, on_timer=True, makes_room=True, reserve=0.2, tardiness=0.1
)  # fmt: skip
POLICIES = (
    Policy("fcfs", per_model.plan, by_level=False, evicts=False),
    Policy("edf", edf.plan),
    Policy("late last", late_last.plan, late_last=True),
    Policy("batching", swap_batching.plan),
    Policy("fixed", FixedBatch(3.0), evicts=False, static_batches=True),
    QLM,
    replace(QLM, balances=False, group_batches=0.0),
)
MODELS, LEVELS = ("a", "b", "c"), {"fast": Level(3.0), "slow": Level(30.0)}
ANSWER = 40

arrive = st.tuples(st.just("arrive"), st.sampled_from(MODELS), st.sampled_from(sorted(LEVELS)))
finish = st.tuples(st.just("finish"), st.integers(0, 50))
withdraw = st.tuples(st.just("withdraw"), st.integers(0, 50))
wait = st.tuples(st.just("wait"), st.floats(0.01, 20, allow_nan=False))
full = st.tuples(st.just("full"), st.sampled_from(("m0", "m1")), st.booleans())
come = st.tuples(st.just("come"), st.sampled_from(((), ("m0",), ("m1",), ("m0", "m1"))))
events = st.lists(st.one_of(arrive, arrive, arrive, finish, withdraw, wait, full, come), max_size=60)


@dataclass
class Machines:
    """Does what the queue orders, and objects to what no machine could do."""

    queue: ModelsQueue
    at: float = 0.0
    models: dict[str, str | None] = field(default_factory=lambda: {"m0": "a", "m1": None})
    swaps: dict[str, float] = field(default_factory=dict)
    running: dict[int, str] = field(default_factory=dict)
    produced: dict[int, int] = field(default_factory=dict)
    stopped: dict[int, int] = field(default_factory=dict)
    asked: dict[int, str] = field(default_factory=dict)
    ended: list[int] = field(default_factory=list)
    present: tuple[str, ...] = ("m0", "m1")

    def obey(self, orders: Orders) -> None:
        for start in orders.starts:
            key = start.request.key
            assert key not in self.running, "nothing is served twice"
            assert key not in self.ended, "what has ended is not served"
            assert start.endpoint in self.present, "who is gone gets nothing"
            assert start.endpoint not in self.swaps, "who swaps gets nothing"
            assert self.models[start.endpoint] == start.request.model, "the model is resident"
            assert start.produced == self.produced.get(key, 0), "progress is kept"
            self.running[key] = start.endpoint
            assert list(self.running.values()).count(start.endpoint) <= 2, "no machine has more than its slots"
        for swap in orders.swaps:
            assert swap.endpoint not in self.running.values(), "what swaps carries nothing"
            assert swap.endpoint in self.present, "who is gone does not swap"
            assert swap.endpoint not in self.swaps, "one swap at a time"
            self.models[swap.endpoint], self.swaps[swap.endpoint] = swap.model, self.at + 2.0
        for eviction in orders.evictions:
            assert self.running.pop(eviction.key) == eviction.endpoint, "only what runs is stopped"
            self.stopped[eviction.key] = self.stopped.get(eviction.key, 0) + 1
            assert self.stopped[eviction.key] <= MOST_EVICTIONS
            self.produced[eviction.key] = self.produced.get(eviction.key, 0) + 1
            self.obey(self.queue.evicted(eviction.key, self.at, self.produced[eviction.key]))

    def come(self, names: tuple[str, ...]) -> None:
        self.present = names
        self.obey(self.queue.set_instances([machine(name, self.models[name]) for name in names], self.at))

    def arrive(self, model: str, level: str) -> None:
        if not self.present:
            return
        key = len(self.asked) + 1
        self.asked[key] = model
        self.obey(self.queue.arrive(Request(key, self.at, model, level, input_tokens=10 * key), self.at))

    def finish(self, index: int) -> None:
        if self.running:
            key = sorted(self.running)[index % len(self.running)]
            del self.running[key]
            self.ended.append(key)
            self.obey(self.queue.finish(key, self.at, ANSWER))

    def withdraw(self, index: int) -> None:
        if self.asked:
            key = index % len(self.asked) + 1
            waits = key not in self.running and key not in self.ended
            assert self.queue.withdraw(key) == waits
            if waits:
                self.ended.append(key)

    def full(self, name: str, full: bool) -> None:
        self.obey(self.queue.report(name, full=full, at=self.at))

    def wait(self, seconds: float) -> None:
        until = self.at + seconds
        while (due := min([*self.swaps.values(), self.queue.next_due() or until, until])) < until:
            self.at = max(due, self.at)
            self._pass()
        self.at = until
        self._pass()

    def _pass(self) -> None:
        for name, end in sorted(self.swaps.items()):
            if end <= self.at:
                del self.swaps[name]
                self.obey(self.queue.swapped(name, self.at))
        self.obey(self.queue.step(self.at))


def machine(name: str, resident: str | None) -> Instance:
    speed = Speed(tokens_per_second=100.0, seconds_per_prompt_token=0.001, step_seconds=0.02)
    return Instance(name, 2, dict.fromkeys(MODELS, speed), dict.fromkeys(MODELS, 2.0), resident)


def world(policy: Policy) -> Machines:
    return Machines(ModelsQueue(policy, LEVELS, [machine("m0", "a"), machine("m1", None)], MeanLengths(ANSWER)))


def play(policy: Policy, script: list[tuple[object, ...]]) -> Machines:
    machines = world(policy)
    for name, *arguments in script:
        getattr(machines, str(name))(*arguments)
    return machines


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(POLICIES), events)
def test_every_request_ends_exactly_once(policy: Policy, script: list[tuple[object, ...]]) -> None:
    machines = play(policy, script)
    machines.come(("m0", "m1"))
    for name in ("m0", "m1"):
        machines.full(name, full=False)
    for turn in range(40 * (len(machines.asked) + 1)):
        if len(machines.ended) == len(machines.asked):
            break
        machines.wait(12.0)
        machines.finish(turn)
    assert sorted(machines.ended) == sorted(machines.asked)
    assert machines.queue.waiting == 0


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(POLICIES), events)
def test_the_same_events_give_the_same_orders(policy: Policy, script: list[tuple[object, ...]]) -> None:
    first, second = play(policy, script), play(policy, script)
    assert (first.running, first.ended, first.models) == (second.running, second.ended, second.models)
    assert first.queue.generation == second.queue.generation
