"""Invariants of placement, whatever the domains, the pods and the scheduler's choices are."""

from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from tests.support.power import Labels, a_domain, charged
from trimtab.decide.charges import Ledger
from trimtab.decide.placement import HIGHEST, LOWEST, admit, score
from trimtab.model.power import Demand, Derate, Domain, PodFacts

ROWS = ("row-0", "row-1", "row-2")
NODES = tuple(f"node-{index}" for index in range(6))
ACCELERATORS = ("", "h100", "l4")
POOL = ("ai", "chat")

watts = st.integers(0, 400)
domains = st.builds(
    Domain,
    name=st.sampled_from([*ROWS, "rack", "site"]),
    level=st.sampled_from(["Site", "Row", "Rack"]),
    nodes=st.sampled_from([Labels(), *(Labels((("row", row),)) for row in ROWS)]),
    parent=st.sampled_from(["", "site", "row-0", "nowhere"]),
    limit_watts=st.none() | st.integers(1, 1500),
    margin_percent=st.integers(0, 50),
    derate=st.none() | st.builds(Derate, st.integers(1, 100), st.none() | st.floats(0, 50)),
    enforced=st.booleans(),
    created=st.floats(0, 3),
)
demands = st.builds(Demand, st.dictionaries(st.sampled_from(["h100", "l4"]), watts), st.none() | watts)
pods = st.builds(
    PodFacts,
    uid=st.sampled_from([f"u{index}" for index in range(8)]),
    namespace=st.just("ai"),
    name=st.just("pod"),
    watts=st.none() | watts,
    pool=st.none() | st.just(POOL),
)


@dataclass(frozen=True)
class World:
    """Everything that a ledger can be told at once."""

    domains: list[Domain]
    nodes: dict[str, tuple[str, str]]
    demand: Demand
    bound: dict[str, tuple[PodFacts, str]]

    def ledger(self) -> Ledger:
        ledger = Ledger()
        for domain in self.domains:
            ledger.set_domain(domain)
        for name, (row, accelerator) in self.nodes.items():
            ledger.set_node(name, {"row": row}, accelerator)
        ledger.set_demand(POOL, self.demand)
        for pod, node in self.bound.values():
            ledger.observe(replace(pod, node=node))
        return ledger


worlds = st.builds(
    World,
    domains=st.lists(domains, max_size=4, unique_by=lambda domain: domain.name),
    nodes=st.dictionaries(
        st.sampled_from(NODES), st.tuples(st.sampled_from(ROWS), st.sampled_from(ACCELERATORS)), min_size=1
    ),
    demand=demands,
    bound=st.dictionaries(st.sampled_from(["b0", "b1", "b2"]), st.tuples(pods, st.sampled_from(NODES))).map(
        lambda bound: {uid: (replace(pod, uid=uid), node) for uid, (pod, node) in bound.items()}
    ),
)


@given(worlds, pods, st.floats(0, 100))
def test_scores_are_whole_numbers_within_bounds(world: World, pod: PodFacts, at: float) -> None:
    for value in score(world.ledger(), pod, NODES, at):
        assert isinstance(value, int)
        assert LOWEST <= value <= HIGHEST


@given(worlds, pods, st.floats(0, 100))
def test_every_node_is_either_passed_or_rejected_once(world: World, pod: PodFacts, at: float) -> None:
    admission = admit(world.ledger(), pod, NODES, at)
    rejected = [node for rejection in admission.rejections for node in rejection.nodes]
    assert sorted([*admission.passed, *rejected]) == sorted(NODES)


@given(worlds, pods, st.floats(0, 100), st.permutations(NODES))
def test_order_changes_nothing(world: World, pod: PodFacts, at: float, order: list[str]) -> None:
    shuffled = replace(world, domains=world.domains[::-1], bound=dict(reversed(world.bound.items())))
    one, other = world.ledger(), shuffled.ledger()
    scores = dict(zip(NODES, score(one, pod, NODES, at), strict=True))
    assert dict(zip(order, score(other, pod, order, at), strict=True)) == scores
    assert set(admit(one, pod, NODES, at).passed) == set(admit(other, pod, order, at).passed)


@given(worlds, pods, st.integers(0, 400), st.floats(0, 100))
def test_a_hungrier_pod_passes_nowhere_else_and_scores_no_higher(
    world: World, pod: PodFacts, more: int, at: float
) -> None:
    modest = replace(pod, watts=pod.watts or 0)
    hungry = replace(modest, watts=(modest.watts or 0) + more)
    ledger = world.ledger()
    assert set(admit(ledger, hungry, NODES, at).passed) <= set(admit(ledger, modest, NODES, at).passed)
    ledger.release(pod.uid)
    pairs = zip(score(ledger, hungry, NODES, at), score(ledger, modest, NODES, at), strict=True)
    assert all(high <= low for high, low in pairs)


@given(worlds, pods, pods, st.sampled_from(NODES), st.floats(0, 100))
def test_one_more_bound_pod_opens_no_node_and_raises_no_score(
    world: World, pod: PodFacts, newcomer: PodFacts, node: str, at: float
) -> None:
    before, after = world.ledger(), world.ledger()
    after.observe(replace(newcomer, uid="newcomer", node=node))
    asked = replace(pod, uid="asked")
    pairs = zip(score(after, asked, NODES, at), score(before, asked, NODES, at), strict=True)
    assert all(fuller <= emptier for fuller, emptier in pairs)
    assert set(admit(after, asked, NODES, at).passed) <= set(admit(before, asked, NODES, at).passed)


@given(worlds, pods, st.floats(0, 100))
def test_undeclared_watts_never_reject(world: World, pod: PodFacts, at: float) -> None:
    silent = replace(pod, watts=None, pool=None)
    assert list(admit(world.ledger(), silent, NODES, at).passed) == list(NODES)


@given(worlds, pods, st.floats(0, 100))
def test_domains_that_are_not_enforced_change_nothing(world: World, pod: PodFacts, at: float) -> None:
    watched = replace(world, domains=[replace(domain, enforced=False) for domain in world.domains])
    nothing = replace(world, domains=[])
    assert admit(watched.ledger(), pod, NODES, at).passed == admit(nothing.ledger(), pod, NODES, at).passed
    assert score(watched.ledger(), pod, NODES, at) == score(nothing.ledger(), pod, NODES, at)


class Scheduling(RuleBasedStateMachine):
    """A scheduler that chooses as badly as it can, and a watch that brings news as late as it likes."""

    flying = Bundle("flying")

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(hold_seconds=1e9)
        self.limits = {"site": 2000, "row-0": 900, "row-1": 500, "row-2": 5000}
        self.ledger.set_domain(a_domain("site", self.limits["site"], level="Site"))
        for row in ROWS:
            self.ledger.set_domain(a_domain(row, self.limits[row], parent="site"))
        for index, name in enumerate(NODES):
            self.ledger.set_node(name, {"row": ROWS[index % 3]}, ACCELERATORS[index % 3])
        self.row_of = {name: ROWS[index % 3] for index, name in enumerate(NODES)}
        self.landed: dict[str, tuple[str, int]] = {}  # what is true, whether it was seen or not
        self.count = 0

    @rule(target=flying, draw=st.integers(1, 400), choice=st.integers(0, 100), seen=st.sets(st.sampled_from(NODES)))
    def schedule(self, draw: int, choice: int, seen: set[str]) -> PodFacts:
        pod = PodFacts(f"p{self.count}", "ai", "pod", draw)
        self.count += 1
        passed = admit(self.ledger, pod, sorted(seen), 0.0).passed
        if not passed:
            return pod
        node = passed[choice % len(passed)]
        self.landed[pod.uid] = (self.row_of[node], draw)
        return replace(pod, node=node)

    @rule(pod=flying)
    def news_of_it_arrives(self, pod: PodFacts) -> None:
        if pod.uid in self.landed:
            self.ledger.observe(pod)

    @rule(pod=flying)
    def it_ends(self, pod: PodFacts) -> None:
        self.landed.pop(pod.uid, None)
        self.ledger.forget(pod.uid)

    @rule()
    def the_binding_of_one_fails(self) -> None:
        """It is never bound, and its hold stays until it runs out."""
        for uid in sorted(self.landed.keys() - self.ledger._entries.keys())[:1]:
            del self.landed[uid]

    @invariant()
    def no_limit_is_exceeded(self) -> None:
        for row in ROWS:
            assert sum(draw for where, draw in self.landed.values() if where == row) <= self.limits[row]
        assert sum(draw for _, draw in self.landed.values()) <= self.limits["site"]


TestScheduling = Scheduling.TestCase
TestScheduling.settings = settings(max_examples=60, stateful_step_count=40)


class Bookkeeping(RuleBasedStateMachine):
    """After any sequence of news a ledger stands as one that was told the final state at once."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.world = World([], {}, Demand(), {})

    @rule(domain=domains)
    def a_domain_is_set(self, domain: Domain) -> None:
        self.ledger.set_domain(domain)
        kept = [other for other in self.world.domains if other.name != domain.name]
        self.world = replace(self.world, domains=[*kept, domain])

    @rule(name=st.sampled_from([*ROWS, "rack", "site"]))
    def a_domain_is_dropped(self, name: str) -> None:
        self.ledger.drop_domain(name)
        self.world = replace(self.world, domains=[domain for domain in self.world.domains if domain.name != name])

    @rule(name=st.sampled_from(NODES), row=st.sampled_from(ROWS), accelerator=st.sampled_from(ACCELERATORS))
    def a_node_is_set(self, name: str, row: str, accelerator: str) -> None:
        self.ledger.set_node(name, {"row": row}, accelerator)
        self.world = replace(self.world, nodes=self.world.nodes | {name: (row, accelerator)})

    @rule(name=st.sampled_from(NODES))
    def a_node_is_dropped(self, name: str) -> None:
        self.ledger.drop_node(name)
        self.world = replace(self.world, nodes={key: value for key, value in self.world.nodes.items() if key != name})

    @rule(demand=demands)
    def a_pool_declares(self, demand: Demand) -> None:
        self.ledger.set_demand(POOL, demand)
        self.world = replace(self.world, demand=demand)

    @rule(pod=pods, node=st.sampled_from(NODES))
    def a_pod_is_seen_bound(self, pod: PodFacts, node: str) -> None:
        self.ledger.observe(replace(pod, node=node))
        self.world = replace(self.world, bound=self.world.bound | {pod.uid: (pod, node)})

    @rule(uid=st.sampled_from([f"u{index}" for index in range(8)]))
    def a_pod_is_gone(self, uid: str) -> None:
        self.ledger.forget(uid)
        self.world = replace(self.world, bound={key: value for key, value in self.world.bound.items() if key != uid})

    @rule()
    def the_books_are_settled(self) -> None:
        self.ledger.settle(0.0)

    def teardown(self) -> None:
        self.the_books_are_right()

    @rule()
    def the_books_are_right(self) -> None:
        fresh = self.world.ledger()
        fresh.settle(0.0)
        self.ledger.settle(0.0)
        assert charged(self.ledger) == charged(fresh)
        assert {book.domain.name: book.usable for book in self.ledger.books()} == {
            book.domain.name: book.usable for book in fresh.books()
        }
        assert self.ledger.undeclared == fresh.undeclared
        assert score(self.ledger, PodFacts("x", "ai", "x", 50), NODES, 0.0) == score(
            fresh, PodFacts("x", "ai", "x", 50), NODES, 0.0
        )


TestBookkeeping = Bookkeeping.TestCase
TestBookkeeping.settings = settings(max_examples=60, stateful_step_count=30)
