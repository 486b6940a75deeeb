"""What is known of the cluster, in memory, and which objects are dirty. Watches write it, one loop reads it."""

import asyncio
import heapq
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from trimtab.decide.pools import holders
from trimtab.kube import Resource
from trimtab.kube.resources import SERVING_POOLS
from trimtab.model.pool import Pods, PoolSpec
from trimtab.model.ref import Ref
from trimtab_operator.parse import Scaler
from trimtab_operator.records import Asked, Key, Owned, PlaceholderRecord, PodSeen, PoolRecord

Claim = tuple[str, str, str, str]
Subject = tuple[str, str, str]  # plural, namespace, name


class Agenda:
    """Which objects wait to be looked at: at once, or at a given time. Each is in it at most once."""

    def __init__(self) -> None:
        self._due: dict[Subject, None] = {}
        self._later: list[tuple[float, Subject]] = []
        self._planned: dict[Subject, float] = {}
        self._news = asyncio.Event()

    def __len__(self) -> int:
        return len(self._due)

    def add(self, subject: Subject) -> None:
        """Have the subject looked at as soon as possible."""
        self._due[subject] = None
        self._news.set()

    def add_later(self, subject: Subject, at: float) -> None:
        """Have the subject looked at once `at` (seconds since the epoch) is past, or earlier if that is planned."""
        planned = self._planned.get(subject)
        if planned is None or at < planned:
            self._planned[subject] = at
            heapq.heappush(self._later, (at, subject))

    def take(self, now: float) -> Subject | None:
        """Return a due subject and forget it, None if there is none."""
        while self._later and self._later[0][0] <= now:
            at, subject = heapq.heappop(self._later)
            if self._planned.get(subject) == at:
                del self._planned[subject]
                self._due[subject] = None
        for subject in self._due:
            del self._due[subject]
            return subject
        self._news.clear()
        return None

    async def wait(self, seconds: float) -> None:
        """Return when something was added, or after `seconds`."""
        try:
            await asyncio.wait_for(self._news.wait(), seconds)
        except TimeoutError:
            return


@dataclass(slots=True)
class Store:
    """All records, with the indexes that lead from an object to the pools it matters to."""

    agenda: Agenda = field(default_factory=Agenda)
    pools: dict[Key, PoolRecord] = field(default_factory=dict)
    placeholders: dict[Subject, PlaceholderRecord] = field(default_factory=dict)
    owned: dict[Subject, Owned] = field(default_factory=dict)
    _pods: dict[Key, PodSeen] = field(default_factory=dict)
    _pods_of: dict[Key, set[Key]] = field(default_factory=lambda: defaultdict(set))
    _claims: dict[Claim, set[Key]] = field(default_factory=lambda: defaultdict(set))
    _scalers: dict[Key, Scaler] = field(default_factory=dict)
    _scaler_of: dict[Claim, set[Key]] = field(default_factory=lambda: defaultdict(set))

    # Pools

    def put_pool(self, key: Key, asked: Asked) -> PoolRecord:
        """Take in what a pool asks for; a new identity starts a new record."""
        record = self.pools.get(key)
        if record is None or record.asked.uid != asked.uid:
            if record is not None:
                self.drop_pool(key)
            record = self.pools[key] = PoolRecord(asked)
        else:
            self._unclaim(key, record.asked.spec)
            record.asked = asked
        if asked.spec is not None:
            self._claims[asked.spec.claim].add(key)
            self._mark_claimants(asked.spec.claim)
        self.mark(key)
        return record

    def drop_pool(self, key: Key) -> None:
        """Forget a pool; the others that claim its workload are looked at again."""
        record = self.pools.pop(key, None)
        if record is not None:
            self._unclaim(key, record.asked.spec)

    def mark(self, key: Key) -> None:
        """Have a pool looked at, if there is one."""
        if key in self.pools:
            self.agenda.add((SERVING_POOLS.plural, *key))

    def mark_later(self, key: Key, at: float) -> None:
        """Have a pool looked at once `at` is past."""
        self.agenda.add_later((SERVING_POOLS.plural, *key), at)

    def holder_of(self, spec: PoolSpec) -> Ref | None:
        """Return the other pool that holds the workload which `spec` claims, None if `spec` holds it."""
        rivals = self._claims[spec.claim]
        if len(rivals) < 2:  # noqa: PLR2004 - a claim needs two for a dispute
            return None
        claimants = [self.pools[key].asked for key in rivals]
        first = holders(one.spec for one in claimants if one.spec and not one.deleting).get(spec.claim)
        return None if first == spec.ref else first

    def _unclaim(self, key: Key, spec: PoolSpec | None) -> None:
        if spec is not None:
            self._claims[spec.claim].discard(key)
            self._mark_claimants(spec.claim)
            if not self._claims[spec.claim]:
                del self._claims[spec.claim]

    def _mark_claimants(self, claim: Claim) -> None:
        for key in self._claims[claim]:
            self.mark(key)

    # Owned objects and targets

    def put_owned(self, resource: Resource, key: Key, seen: Owned) -> None:
        """Take in an owned object or a target; older versions than the known one are ignored."""
        subject = (resource.plural, *key)
        before = self.owned.get(subject)
        if before is not None and before.uid == seen.uid and before.version >= seen.version:
            return
        self.owned[subject] = seen
        if before is None or _meaning(before) != _meaning(seen):
            self._mark_interested(resource, key)

    def put_own_write(self, resource: Resource, key: Key, seen: Owned) -> None:
        """Take in the server's answer to our own write, which is no news to the pool that is being looked at.

        The watch may have been faster: what is known already then stays, since nothing would bring it again.
        """
        before = self.owned.get((resource.plural, *key))
        if before is None or before.uid != seen.uid or before.version < seen.version:
            self.owned[resource.plural, *key] = seen

    def drop_owned(self, resource: Resource, key: Key) -> None:
        """Forget an object that is gone."""
        seen = self.owned.pop((resource.plural, *key), None)
        if seen is not None:
            self._mark_interested(resource, key)

    def owned_by(self, resource: Resource, key: Key) -> Owned | None:
        """Return the object of that type and name, whoever owns it."""
        return self.owned.get((resource.plural, *key))

    def _mark_interested(self, resource: Resource, key: Key) -> None:
        namespace, name = key
        self.mark(key)  # a pool of that name wants an object of that name
        for claimant in self._claims.get((namespace, resource.group, resource.kind, name), ()):
            self.mark(claimant)

    # Pods

    def put_pod(self, key: Key, seen: PodSeen) -> None:
        """Take in a pod of a pool."""
        before = self._pods.get(key)
        if before == seen:
            return
        if before is not None and before.pool != seen.pool:
            self.drop_pod(key)
        self._pods[key] = seen
        pool = (key[0], seen.pool)
        self._pods_of[pool].add(key)
        self.mark(pool)

    def drop_pod(self, key: Key) -> None:
        """Forget a pod that is gone."""
        seen = self._pods.pop(key, None)
        if seen is None:
            return
        pool = (key[0], seen.pool)
        self._pods_of[pool].discard(key)
        if not self._pods_of[pool]:
            del self._pods_of[pool]
        self.mark(pool)

    def pods_of(self, key: Key) -> Pods:
        """Return the counts over a pool's pods."""
        pods = [pod for pod in self._pods_in(key) if not pod.leaving]
        stuck = [pod.unschedulable for pod in pods if pod.unschedulable]
        return Pods(len(pods), sum(pod.ready for pod in pods), len(stuck), min(stuck, default=""))

    def _pods_in(self, key: Key) -> Iterator[PodSeen]:
        for name in self._pods_of.get(key, ()):
            yield self._pods[name]

    # Autoscalers

    def put_scaler(self, key: Key, scaler: Scaler) -> None:
        """Take in an autoscaler."""
        if self._scalers.get(key) != scaler:
            self.drop_scaler(key)
            self._scalers[key] = scaler
            self._scaler_of[scaler[0]].add(key)
            self._mark_scaled(scaler[0])

    def drop_scaler(self, key: Key) -> None:
        """Forget an autoscaler that is gone."""
        scaler = self._scalers.pop(key, None)
        if scaler is not None:
            self._scaler_of[scaler[0]].discard(key)
            self._mark_scaled(scaler[0])

    def scaler_of(self, claim: Claim) -> str:
        """Return the name of the autoscaler that owns a workload's replicas, empty if there is none."""
        names = sorted(self._scalers[key][1] for key in self._scaler_of.get(claim, ()))
        return names[0] if names else ""

    def _mark_scaled(self, claim: Claim) -> None:
        for key in self._claims.get(claim, ()):
            self.mark(key)


def _meaning(seen: Owned) -> Owned:
    """Return what of an object can matter to a pool: not its version."""
    workload = None if seen.workload is None else replace(seen.workload, resource_version="")
    return replace(seen, version=0, workload=workload)
