"""The books of the power domains: which pods are charged to which domain, and what is held for pods on their way.

A `Ledger` is fed with what is seen of nodes, domains, pools and pods, in any order, and keeps the sums exact, so that a
question about hundreds of nodes costs microseconds. It reads no clock: time comes in as an argument.

A pod is on its way from the moment a filter call lets it pass until it is seen bound. In between nobody but the
scheduler knows its node, so its watts are *held* in every domain where it may land. Whatever the scheduler chooses, the
sum in a domain therefore never exceeds the limit because of pods that passed here.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from math import inf
from typing import TypeVar

from trimtab.model.power import UNDECLARED, Demand, Domain, PodFacts, PoolKey

K = TypeVar("K")

_LEVELS = {"Site": 0, "Row": 1, "Rack": 2, "Aisle": 3}


class Sighting(Enum):
    """What an observed pod tells about how it was placed."""

    PENDING = auto()  # not bound
    EXPECTED = auto()  # bound, and a filter call had let it pass
    UNEXPECTED = auto()  # bound, and it never passed here
    KNOWN = auto()  # bound and charged before


class Book:
    """The account of one domain, in watts.

    Attributes:
        domain: whose account it is.
        usable: what pods may draw together at present; None without a limit.
        charged: what bound pods draw.
        held: what pods on their way may draw here.
    """

    __slots__ = ("charged", "domain", "held", "usable")

    def __init__(self, domain: Domain, at: float) -> None:
        self.domain = domain
        self.usable = domain.usable_watts(at)
        self.charged = 0
        self.held = 0

    @property
    def left(self) -> int:
        """What a further pod may draw; negative if the domain is over its limit. Only for books with a limit."""
        assert self.usable is not None
        return self.usable - self.charged - self.held


class Place:
    """What all nodes with the same accelerator in the same domains have in common.

    Attributes:
        accelerator: the accelerator label of its nodes; empty without one.
        books: accounts of every domain that a pod here is charged to, the outermost first.
        limits: those of them that can turn a pod away.
        watched: those of them that have a limit but only watch.
    """

    __slots__ = ("accelerator", "books", "limits", "watched")

    def __init__(self, accelerator: str, books: tuple[Book, ...]) -> None:
        self.accelerator = accelerator
        self.books = books
        limited = [book for book in books if book.domain.limit_watts is not None]
        self.limits = tuple(book for book in limited if book.domain.enforced)
        self.watched = tuple(book for book in limited if not book.domain.enforced)


@dataclass(frozen=True, slots=True)
class _Node:
    accelerator: str
    labels: Mapping[str, str]
    domains: frozenset[str]  # whose selector matches, overlapping ones included


@dataclass(slots=True)
class _Entry:
    """A bound pod and where its watts were charged; `watts` is None when nobody declared them."""

    pod: PodFacts
    books: tuple[Book, ...] = ()
    watts: int | None = None


@dataclass(frozen=True, slots=True)
class _Hold:
    pod: PodFacts  # as it was when it passed
    amounts: Mapping[str, int]  # watts by domain
    expires: float


class Ledger:
    """Accounts of all power domains.

    Args:
        hold_seconds: how long watts are held for a pod that passed and is not seen bound.
    """

    def __init__(self, hold_seconds: float = 30.0) -> None:
        self._hold_seconds = hold_seconds
        self._domains: dict[str, Domain] = {}
        self._nodes: dict[str, _Node] = {}
        self._demands: dict[PoolKey, Demand] = {}
        self._entries: dict[str, _Entry] = {}
        self._on_node: defaultdict[str, set[str]] = defaultdict(set)
        self._in_pool: defaultdict[PoolKey, set[str]] = defaultdict(set)
        self._holds: dict[str, _Hold] = {}  # oldest first
        self._books: dict[str, Book] = {}
        self._shared: dict[tuple[str, frozenset[str]], Place] = {}
        self._redraw = False
        self._next_change = inf
        self.places: dict[str, Place] = {}
        """Where each known node stands; current after `settle`."""

    # What was seen

    def set_domain(self, domain: Domain) -> None:
        """Add a domain, or replace what is known of it."""
        before = self._domains.get(domain.name)
        self._domains[domain.name] = domain
        if before is not None and _same_shape(before, domain):
            self._next_change = -inf
            return
        if before is None or before.nodes != domain.nodes:
            for name, node in self._nodes.items():
                matches = domain.nodes.matches(node.labels)
                if matches != (domain.name in node.domains):
                    self._nodes[name] = _Node(node.accelerator, node.labels, node.domains ^ {domain.name})
        self._redraw = True

    def drop_domain(self, name: str) -> None:
        """Forget a domain; its nodes lose its limit."""
        if self._domains.pop(name, None) is None:
            return
        for node_name, node in self._nodes.items():
            if name in node.domains:
                self._nodes[node_name] = _Node(node.accelerator, node.labels, node.domains - {name})
        self._redraw = True

    def set_node(self, name: str, labels: Mapping[str, str], accelerator: str) -> None:
        """Add a node, or replace its labels."""
        before = self._nodes.get(name)
        if before is not None and before.labels == labels and before.accelerator == accelerator:
            return
        matching = frozenset(domain.name for domain in self._domains.values() if domain.nodes.matches(labels))
        self._nodes[name] = _Node(accelerator, labels, matching)
        if not self._redraw:
            self._put(name)
            self._recharge(self._on_node.get(name, ()))

    def drop_node(self, name: str) -> None:
        """Forget a node; what is still bound to it is charged to nobody."""
        self._nodes.pop(name, None)
        self.places.pop(name, None)
        self._recharge(self._on_node.get(name, ()))

    def set_demand(self, pool: PoolKey, demand: Demand) -> None:
        """Set what the pods of a pool draw, and charge those that are bound accordingly."""
        if self._demands.get(pool) == demand:
            return
        self._demands[pool] = demand
        self._recharge(self._in_pool.get(pool, ()))

    def drop_demand(self, pool: PoolKey) -> None:
        """Forget what the pods of a pool draw: they draw no declared watts any more."""
        if self._demands.pop(pool, None) is not None:
            self._recharge(self._in_pool.get(pool, ()))

    def observe(self, pod: PodFacts) -> Sighting:
        """Take in a pod as it is now: bound ones are charged, and what was held for them is freed."""
        entry = self._entries.get(pod.uid)
        if not pod.node:
            self._narrow(pod)
            return Sighting.PENDING
        if entry is not None:
            if entry.pod != pod:
                self.forget(pod.uid)
                self._enter(pod)
            return Sighting.KNOWN
        expected = self.release(pod.uid)
        self._enter(pod)
        return Sighting.EXPECTED if expected else Sighting.UNEXPECTED

    def forget(self, uid: str) -> None:
        """Uncharge a pod that has ended or is gone, and free what was held for it."""
        self.release(uid)
        entry = self._entries.pop(uid, None)
        if entry is None:
            return
        _add(entry.books, -(entry.watts or 0))
        _discard(self._on_node, entry.pod.node, uid)
        if entry.pod.pool:
            _discard(self._in_pool, entry.pod.pool, uid)

    # Pods on their way

    def hold(self, pod: PodFacts, amounts: Mapping[str, int], at: float) -> None:
        """Hold watts (by domain) for a pod that may land in any of these domains."""
        self.release(pod.uid)
        self._holds[pod.uid] = _Hold(pod, amounts, at + self._hold_seconds)
        self._move(amounts, 1)

    def release(self, uid: str) -> bool:
        """Free what is held for a pod; say whether it had passed."""
        hold = self._holds.pop(uid, None)
        if hold is None:
            return False
        self._move(hold.amounts, -1)
        return True

    def held_for(self, uid: str, domain: str) -> int:
        """Return the watts that are held for a pod in one domain."""
        hold = self._holds.get(uid)
        return hold.amounts.get(domain, 0) if hold else 0

    def longest_on_its_way(self) -> tuple[PodFacts, float] | None:
        """Return the pod that passed first of those not seen bound, and when it passed; None without any."""
        for hold in self._holds.values():
            return hold.pod, hold.expires - self._hold_seconds
        return None

    # Questions

    def demand(self, pod: PodFacts) -> Demand:
        """Return what a pod draws: what it declares itself, else what its pool's profiles say."""
        if pod.watts is not None:
            return Demand(elsewhere=pod.watts)
        return self._demands.get(pod.pool, UNDECLARED) if pod.pool else UNDECLARED

    def books(self) -> Iterator[Book]:
        """Yield the account of every domain, by name; current after `settle`."""
        for name in sorted(self._books):
            yield self._books[name]

    def book(self, domain: str) -> Book | None:
        """Return the account of a domain; current after `settle`."""
        return self._books.get(domain)

    @property
    def undeclared(self) -> int:
        """How many bound pods are charged nothing because nobody declared their watts."""
        return sum(entry.watts is None for entry in self._entries.values())

    @property
    def on_their_way(self) -> int:
        """How many pods passed and are not yet seen bound."""
        return len(self._holds)

    @property
    def charged_pods(self) -> int:
        """How many bound pods are known."""
        return len(self._entries)

    # Bringing the books up to date

    def settle(self, at: float) -> list[str]:
        """Bring the books up to time `at`; return the uids of pods whose hold ran out."""
        if self._redraw:
            self._draw(at)
        elif at >= self._next_change:
            self._revise(at)
        return self._expire(at)

    def _expire(self, at: float) -> list[str]:
        late = []
        for uid, hold in self._holds.items():
            if hold.expires > at:
                break
            late.append(uid)
        for uid in late:
            self.release(uid)
        return late

    def _revise(self, at: float) -> None:
        """Recompute limits that were edited or whose derate has ended."""
        for name, book in self._books.items():
            book.domain = self._domains[name]
            book.usable = book.domain.usable_watts(at)
        self._next_change = self._next_end(at)

    def _next_end(self, at: float) -> float:
        derates = (domain.derate for domain in self._domains.values())
        ends = (derate.until for derate in derates if derate is not None and derate.until is not None)
        return min((end for end in ends if end > at), default=inf)

    def _draw(self, at: float) -> None:
        """Open all books anew and charge everybody again."""
        self._redraw = False
        self._next_change = self._next_end(at)
        self._books = {name: Book(domain, at) for name, domain in self._domains.items()}
        self._shared.clear()
        self.places.clear()
        for hold in self._holds.values():
            self._move(hold.amounts, 1)
        for name in self._nodes:
            self._put(name)
        self._recharge(self._entries)

    def _put(self, name: str) -> None:
        """Find a node's place."""
        node = self._nodes[name]
        key = (node.accelerator, node.domains)
        place = self._shared.get(key)
        if place is None:
            books = tuple(self._books[domain] for domain in self._enclosing(node.domains))
            place = self._shared[key] = Place(node.accelerator, books)
        self.places[name] = place

    def _enclosing(self, direct: Iterable[str]) -> tuple[str, ...]:
        """Return the domains that hold a node and all that contain them, the outermost first, each once."""
        found: dict[str, None] = {}
        for name in self._holders(direct):
            found.update(dict.fromkeys(reversed(self._chain(name))))
        return tuple(sorted(found, key=lambda name: (_LEVELS.get(self._domains[name].level, len(_LEVELS)), name)))

    def _holders(self, direct: Iterable[str]) -> list[str]:
        """Return one domain of each level: of several that claim a node the oldest holds it."""
        claims = sorted((self._domains[name] for name in direct), key=lambda domain: (domain.created, domain.name))
        first: dict[str, str] = {}
        for domain in claims:
            first.setdefault(domain.level, domain.name)
        return list(first.values())

    def _chain(self, name: str) -> list[str]:
        """Return a domain and its ancestors; a missing parent or a circle ends the chain."""
        chain: list[str] = []
        while name in self._domains and name not in chain:
            chain.append(name)
            name = self._domains[name].parent
        return chain

    # Charging

    def _enter(self, pod: PodFacts) -> None:
        entry = self._entries[pod.uid] = _Entry(pod)
        self._on_node[pod.node].add(pod.uid)
        if pod.pool:
            self._in_pool[pod.pool].add(pod.uid)
        self._charge(entry)

    def _charge(self, entry: _Entry) -> None:
        _add(entry.books, -(entry.watts or 0))
        place = self.places.get(entry.pod.node)
        accelerator = place.accelerator if place else ""
        entry.watts = self.demand(entry.pod).watts_on(accelerator)
        entry.books = place.books if place else ()
        _add(entry.books, entry.watts or 0)

    def _recharge(self, uids: Iterable[str]) -> None:
        for uid in uids:
            self._charge(self._entries[uid])

    def _narrow(self, pod: PodFacts) -> None:
        """Hold a pod's watts only around the node that the scheduler has announced since it passed."""
        hold = self._holds.get(pod.uid)
        place = self.places.get(pod.nominated)
        if hold is None or place is None or pod.nominated == hold.pod.nominated:
            return
        around = {book.domain.name for book in place.books}
        kept = {name: watts for name, watts in hold.amounts.items() if name in around}
        self._move(hold.amounts, -1)
        self._holds[pod.uid] = _Hold(pod, kept, hold.expires)
        self._move(kept, 1)

    def _move(self, amounts: Mapping[str, int], sign: int) -> None:
        for name, watts in amounts.items():
            book = self._books.get(name)
            if book is not None:
                book.held += sign * watts


def _add(books: Iterable[Book], watts: int) -> None:
    for book in books:
        book.charged += watts


def _discard(index: dict[K, set[str]], key: K, uid: str) -> None:
    members = index.get(key, set())
    members.discard(uid)
    if not members:
        index.pop(key, None)


def _same_shape(one: Domain, other: Domain) -> bool:
    """Whether two versions of a domain differ in their limits only."""
    limited = (one.limit_watts is None) == (other.limit_watts is None)
    return limited and _shape(one) == _shape(other)


def _shape(domain: Domain) -> Domain:
    return replace(domain, limit_watts=None, margin_percent=0, derate=None)
