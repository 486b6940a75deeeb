"""The queue under arbitrary sequences of events: nothing is lost, nobody is overtaken, no bound is broken."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.decide.queueing import Bounds, Decision, Endpoint, PoolQueue, Request
from trimtab.model.ref import Ref

NAMES = ("a", "b", "c")

arrive = st.tuples(st.just("arrive"))
finish = st.tuples(st.just("finish"), st.integers(0, 50), st.booleans())
hand_back = st.tuples(st.just("hand_back"), st.integers(0, 50))
withdraw = st.tuples(st.just("withdraw"), st.integers(0, 50))
wait = st.tuples(st.just("wait"), st.floats(0.01, 30, allow_nan=False))
update = st.tuples(st.just("update"), st.sampled_from(NAMES), st.integers(1, 4), st.booleans())
fleet = st.tuples(st.just("fleet"), st.sets(st.sampled_from(NAMES)), st.integers(1, 4))
events = st.lists(st.one_of(arrive, arrive, arrive, finish, hand_back, withdraw, wait, update, fleet), max_size=120)
bounds = st.builds(
    Bounds,
    max_requests=st.integers(0, 8),
    max_waiting_seconds=st.floats(1, 40),
    max_seconds_without_endpoint=st.floats(0.5, 40),
)


@dataclass
class World:
    """Drives a queue and remembers everything that it was told and that it decided."""

    queue: PoolQueue
    at: float = 0.0
    arrived: dict[int, Request] = field(default_factory=dict)
    waiting: dict[int, Request] = field(default_factory=dict)
    running: list[tuple[Request, str]] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)

    def play(self, event: tuple) -> None:
        getattr(self, event[0])(*event[1:])

    def arrive(self) -> None:
        request = Request(len(self.arrived) + 1, self.at)
        self.arrived[request.key] = self.waiting[request.key] = request
        self.took(self.queue.arrive(request, self.at))

    def finish(self, which: int, served: bool) -> None:
        if self.running:
            request, endpoint = self.running.pop(which % len(self.running))
            self.ended.append(request.key)
            self.took(self.queue.finish(endpoint, self.at, 1.5 if served else None))

    def hand_back(self, which: int) -> None:
        if self.running:
            request, endpoint = self.running.pop(which % len(self.running))
            self.waiting[request.key] = request
            self.took(self.queue.hand_back(request, endpoint, self.at))

    def withdraw(self, which: int) -> None:
        if self.waiting:
            key = sorted(self.waiting)[which % len(self.waiting)]
            del self.waiting[key]
            self.ended.append(key)
            assert self.queue.withdraw(key)

    def wait(self, seconds: float) -> None:
        self.at += seconds
        self.took(self.queue.step(self.at))

    def update(self, name: str, capacity: int, ready: bool) -> None:
        if name in self.endpoints:
            self.endpoints[name] = Endpoint(name, capacity, ready)
        self.took(self.queue.update_endpoint(Endpoint(name, capacity, ready), self.at))

    def fleet(self, names: set[str], capacity: int) -> None:
        self.endpoints = {name: Endpoint(name, capacity) for name in names}
        self.took(self.queue.set_endpoints(self.endpoints.values(), self.at))

    def took(self, decision: Decision) -> None:
        self.decisions.append(decision)
        dispatched = [dispatch.request for dispatch in decision.dispatches]
        left = [request for key, request in self.waiting.items() if request not in dispatched]
        for dispatch in decision.dispatches:
            self._check_dispatch(dispatch.request, dispatch.endpoint)
        for refusal in decision.refusals:
            del self.waiting[refusal.request.key]
            self.ended.append(refusal.request.key)
            assert 1 <= refusal.retry_after_seconds <= 600
        # First come, first served: whoever was dispatched came before whoever still waits.
        if dispatched and left:
            assert max(rank(request) for request in dispatched) < min(rank(request) for request in left)
        assert dispatched == sorted(dispatched, key=rank)
        self._check_bounds()

    def _check_dispatch(self, request: Request, name: str) -> None:
        del self.waiting[request.key]
        self.running.append((request, name))
        endpoint = self.endpoints[name]
        assert endpoint.ready
        assert self.load(name) <= endpoint.capacity

    def _check_bounds(self) -> None:
        assert self.queue.waiting == len(self.waiting)
        assert self.queue.fleet.total_in_flight == len(self.running)
        room = [each for each in self.endpoints.values() if each.ready and self.load(each.name) < each.capacity]
        # Work conservation: nobody waits while an engine has room.
        assert not (room and self.waiting)
        due = self.queue.next_due()
        assert (due is None) == (not self.waiting)
        assert due is None or due > self.at

    def load(self, name: str) -> int:
        return sum(endpoint == name for _, endpoint in self.running)


def rank(request: Request) -> tuple[float, int]:
    return request.arrived_at, request.key


def a_world(limits: Bounds) -> World:
    return World(PoolQueue(Ref("ServingPool", "ai", "chat"), limits))


@given(bounds, events)
@settings(max_examples=300, deadline=None)
def test_every_request_is_in_exactly_one_place(limits: Bounds, script: list[tuple]) -> None:
    world = a_world(limits)
    for event in script:
        world.play(event)
        places = [*world.waiting, *(request.key for request, _ in world.running), *world.ended]
        assert sorted(places) == sorted(world.arrived)


@given(bounds, events)
@settings(max_examples=200, deadline=None)
def test_waiting_is_bounded_in_number_and_time(limits: Bounds, script: list[tuple]) -> None:
    world = a_world(limits)
    handed_back = 0
    for event in script:
        handed_back += event[0] == "hand_back"
        world.play(event)
        world.took(world.queue.step(world.at))
        assert len(world.waiting) <= limits.max_requests + handed_back
        assert all(world.at - request.arrived_at < limits.max_waiting_seconds for request in world.waiting.values())


@given(bounds, events)
@settings(max_examples=100, deadline=None)
def test_the_same_events_give_the_same_decisions(limits: Bounds, script: list[tuple]) -> None:
    first, second = a_world(limits), a_world(limits)
    for event in script:
        first.play(event)
        second.play(event)
    assert first.decisions == second.decisions


@given(bounds, events)
@settings(max_examples=100, deadline=None)
def test_everything_ends_once_engines_come_and_requests_finish(limits: Bounds, script: list[tuple]) -> None:
    world = a_world(limits)
    for event in script:
        world.play(event)
    world.fleet({"a"}, 1)
    while world.waiting or world.running:
        world.finish(0, True)
    assert sorted(world.ended) == sorted(world.arrived)


@given(st.dictionaries(st.sampled_from(NAMES), st.integers(1, 5), min_size=1), st.permutations(NAMES))
def test_the_order_in_which_engines_are_listed_does_not_matter(capacities: dict[str, int], order: list[str]) -> None:
    routes = []
    for names in (sorted(capacities), [name for name in order if name in capacities]):
        queue = PoolQueue(Ref("ServingPool", "ai", "chat"), Bounds())
        queue.set_endpoints([Endpoint(name, capacities[name]) for name in names], 0.0)
        decisions = [queue.arrive(Request(key, 0.0), 0.0) for key in range(sum(capacities.values()))]
        routes.append([dispatch.endpoint for decision in decisions for dispatch in decision.dispatches])
    assert routes[0] == routes[1]
    assert len(routes[0]) == sum(capacities.values())
