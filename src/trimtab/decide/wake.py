"""When pods that were turned away should be tried again.

The scheduler tries a rejected pod again when something changes in the cluster, and only then: it cannot see that a
power domain has room again. A `WaitingRoom` remembers who was turned away by what, and says when a nudge (a harmless
change of one node) is worth its price: every nudge wakes every pod that the extender ever turned away.
"""

from dataclasses import dataclass, field

from trimtab.decide.charges import Ledger
from trimtab.decide.placement import Admission, fits
from trimtab.model.power import Demand, PodFacts

_LONGEST_RETRY_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Wake:
    """A nudge that is worth giving.

    Attributes:
        node: a node that would take at least one of the pods.
        pods: how many pods it is meant for.
    """

    node: str
    pods: int


@dataclass(slots=True)
class _Waiting:
    pod: PodFacts
    refusals: dict[tuple[str, int], str]  # (domain, watts) -> a node of it that was refused
    partial: bool  # the scheduler had asked about a sample of the nodes
    turned_away: int = 1
    retry_at: float = 0.0


@dataclass(slots=True)
class WaitingRoom:
    """Pods that no node was left for."""

    _pods: dict[str, _Waiting] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return how many pods wait."""
        return len(self._pods)

    def note(self, pod: PodFacts, admission: Admission, *, partial: bool, at: float) -> None:
        """Take in the answer to a filter call: a pod that passed somewhere leaves, one that did not waits.

        Args:
            pod: the pod that was asked about.
            admission: the answer.
            partial: whether the call named only some of the nodes, as the scheduler does in large clusters.
            at: the time, in seconds since the epoch.
        """
        before = self._pods.pop(pod.uid, None)
        if admission.passed:
            return
        refusals = {
            (rejection.reason.subject.name, int(dict(rejection.reason.numbers)["pod_watts"])): rejection.nodes[0]
            for rejection in admission.rejections
        }
        waiting = self._pods[pod.uid] = _Waiting(pod, refusals, partial)
        if before is not None:
            waiting.turned_away = before.turned_away + 1
        waiting.retry_at = at + min(2.0 ** min(waiting.turned_away, 10), _LONGEST_RETRY_SECONDS)

    def leave(self, uid: str) -> None:
        """Forget a pod: it is bound, or gone."""
        self._pods.pop(uid, None)

    def call(self, ledger: Ledger, at: float) -> Wake | None:
        """Return a nudge if a domain that turned pods away has room for one of them again.

        Pods that were turned away from a sample of the nodes are also tried again, at growing intervals, while there
        is room anywhere: the next sample is another one. Each waiting pod causes one nudge at most until it has been
        turned away again.
        """
        ledger.settle(at)
        nodes: dict[str, None] = {}
        room: dict[tuple[str, int], bool] = {}
        takers: dict[Demand, str] = {}
        woken = 0
        for waiting in self._pods.values():
            node = _roomy_again(ledger, waiting, room)
            if not node and waiting.partial and at >= waiting.retry_at:
                node = _roomy_anywhere(ledger, ledger.demand(waiting.pod), takers)
            if node:
                nodes[node] = None
                woken += 1
                waiting.refusals = {}
                waiting.partial = False
        return Wake(next(iter(nodes)), woken) if nodes else None


def _roomy_again(ledger: Ledger, waiting: _Waiting, room: dict[tuple[str, int], bool]) -> str:
    """Return a node whose domain refused the pod and would take it; empty for none."""
    for key, node in waiting.refusals.items():
        if key not in room:
            book = ledger.book(key[0])
            room[key] = book is None or not book.domain.enforced or book.usable is None or key[1] <= book.left
        if room[key]:
            return node
    return ""


def _roomy_anywhere(ledger: Ledger, demand: Demand, takers: dict[Demand, str]) -> str:
    """Return any node that would take a pod of this demand; empty for none."""
    if demand not in takers:
        nodes = {place: node for node, place in ledger.places.items()}
        roomy = (node for place, node in nodes.items() if fits(place, demand.watts_on(place.accelerator) or 0))
        takers[demand] = next(roomy, "")
    return takers[demand]
