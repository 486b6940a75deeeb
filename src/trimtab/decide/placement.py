"""Which nodes a pod may go to, and which it should: the one rule of the scheduler extender.

A pod may go where every enforced power domain of the node, and every domain that contains those, still has its declared
watts left. Of the nodes that remain, those in emptier domains score higher. What nobody declared is never a reason to
turn a pod away: a pod without watts passes everywhere and is charged nothing, and a node without a domain is no one's
limit.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trimtab.decide.charges import Book, Ledger, Place
from trimtab.model.power import Demand, PodFacts
from trimtab.model.reason import Reason, ReasonCode
from trimtab.model.ref import Ref

LOWEST = 0
"""Score of a node whose tightest domain would be full, or has under 5 % left."""
HIGHEST = 10
"""Score of a node whose tightest domain would still have at least 95 % of its usable watts left with this pod in it."""
NO_OPINION = 5
"""Score of a node on which no enforced domain has a say: as good as one in a half-full domain."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """Nodes that a pod may not go to, for one reason.

    Attributes:
        nodes: their names.
        reason: why.
    """

    nodes: tuple[str, ...]
    reason: Reason


@dataclass(frozen=True, slots=True)
class Admission:
    """The answer to one filter call.

    Attributes:
        passed: nodes that the pod may go to, in the order of the question.
        rejections: the others, grouped by reason.
        watched: how many of the passed nodes a domain that only watches would have turned down.
        unknown: how many of the passed nodes have never been seen.
        declared: whether anybody declared what the pod draws.
    """

    passed: Sequence[str]
    rejections: tuple[Rejection, ...] = ()
    watched: int = 0
    unknown: int = 0
    declared: bool = True


def admit(ledger: Ledger, pod: PodFacts, nodes: Sequence[str], at: float) -> Admission:
    """Decide which of `nodes` a pod may go to, and hold its watts wherever it may land.

    Args:
        ledger: the books; the hold is the only change made to them.
        pod: the pod that is being scheduled.
        nodes: names of the candidate nodes.
        at: the time, in seconds since the epoch.
    """
    ledger.settle(at)
    ledger.release(pod.uid)  # of an earlier attempt that came to nothing
    demand = ledger.demand(pod)
    places = ledger.places
    found = set(map(places.get, nodes))
    refused = {place: book for place in found if place is not None and (book := _refusing(place, demand)) is not None}
    rejections = _rejections(ledger, refused, demand, nodes) if refused else ()
    passed = nodes if not refused else [node for node in nodes if places.get(node) not in refused]
    if passed:
        landing = [place for place in found if place is not None and place not in refused]
        ledger.hold(pod, _amounts(landing, demand), at)
    return Admission(
        passed=passed,
        rejections=rejections,
        watched=_watched(ledger, found - refused.keys(), demand, passed),
        unknown=sum(node not in places for node in passed) if None in found else 0,
        declared=demand.declared,
    )


def score(ledger: Ledger, pod: PodFacts, nodes: Sequence[str], at: float) -> list[int]:
    """Return one score from `LOWEST` to `HIGHEST` per node, in the order of the question.

    The score is the share of usable watts that the node's tightest enforced domain would have left with this pod in
    it, in tenths, rounded to nearest. Pods that passed and are not yet seen bound count as present.
    """
    ledger.settle(at)
    demand = ledger.demand(pod)
    standing = list(map(ledger.places.get, nodes))
    scores = {place: _score(ledger, place, demand, pod.uid) for place in set(standing)}
    return list(map(scores.__getitem__, standing))


def fits(place: Place, watts: int) -> bool:
    """Say whether a pod of so many watts may go to a place."""
    return all(watts <= book.left for book in place.limits) or watts == 0


def _refusing(place: Place, demand: Demand) -> Book | None:
    """Return the outermost domain that has too little left for the pod, or None."""
    watts = demand.watts_on(place.accelerator)
    if not watts:
        return None
    for book in place.limits:
        if watts > book.left:
            return book
    return None


def _amounts(places: Iterable[Place], demand: Demand) -> dict[str, int]:
    amounts: dict[str, int] = {}
    for place in places:
        watts = demand.watts_on(place.accelerator)
        if watts:
            for book in place.books:
                name = book.domain.name
                if amounts.get(name, 0) < watts:
                    amounts[name] = watts
    return amounts


def _rejections(
    ledger: Ledger, refused: dict[Place, Book], demand: Demand, nodes: Sequence[str]
) -> tuple[Rejection, ...]:
    """Group refused nodes by the domain that refuses and the watts that it refuses."""
    keys = {place: (book, demand.watts_on(place.accelerator) or 0) for place, book in refused.items()}
    groups: dict[tuple[Book, int], list[str]] = {}
    for node in nodes:
        place = ledger.places.get(node)
        if place is not None and place in keys:
            groups.setdefault(keys[place], []).append(node)
    return tuple(_rejection(book, watts, tuple(members)) for (book, watts), members in groups.items())


def _rejection(book: Book, watts: int, nodes: tuple[str, ...]) -> Rejection:
    usable = book.usable or 0
    if watts > usable:
        code = ReasonCode.POWER_DOMAIN_TOO_SMALL
    elif watts <= book.left + book.held:
        code = ReasonCode.POWER_DOMAIN_HELD
    else:
        code = ReasonCode.POWER_DOMAIN_FULL
    name = book.domain.name
    numbers = (
        ("left_watts", float(max(book.left, 0))),
        ("held_watts", float(book.held)),
        ("usable_watts", float(usable)),
        ("pod_watts", float(watts)),
    )
    return Rejection(nodes, Reason(code, Ref("PowerDomain", "", name), numbers, (("domain", name),)))


def _watched(ledger: Ledger, places: Iterable[Place | None], demand: Demand, passed: Sequence[str]) -> int:
    """Count the passed nodes that a domain in mode Observe or Propose would refuse if it were enforced."""
    over = set()
    for place in places:
        if place is not None and place.watched:
            watts = demand.watts_on(place.accelerator) or 0
            # What is held for this very pod is part of `held` by now.
            if watts and any(book.left < 0 for book in place.watched):
                over.add(place)
    return sum(ledger.places.get(node) in over for node in passed) if over else 0


def _score(ledger: Ledger, place: Place | None, demand: Demand, uid: str) -> int:
    if place is None or not place.limits:
        return NO_OPINION
    watts = demand.watts_on(place.accelerator) or 0
    share = min(_share_left(ledger, book, watts, uid) for book in place.limits)
    return max(LOWEST, min(HIGHEST, int(HIGHEST * share + 0.5)))


def _share_left(ledger: Ledger, book: Book, watts: int, uid: str) -> float:
    """Return the share of usable watts that the domain would have left with the pod in it; not below 0."""
    if not book.usable:
        return 0.0
    left = book.left + ledger.held_for(uid, book.domain.name) - watts
    return max(left / book.usable, 0.0)
