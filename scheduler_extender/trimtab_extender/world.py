"""What the extender knows of the cluster: projections of four watches, in memory."""

import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import structlog
from pydantic import ValidationError

from trimtab.api import declared, keys
from trimtab.api.power_domain import PowerDomain
from trimtab.api.serving_pool import ServingPool
from trimtab.decide.charges import Ledger, Sighting
from trimtab.decide.wake import WaitingRoom
from trimtab.kube import Event, EventType, Resource
from trimtab.kube.resources import NODES, PODS, POWER_DOMAINS, SERVING_POOLS
from trimtab.obs.clock import WallClock, at_time
from trimtab.obs.metrics import ExtenderMetrics

_log = structlog.get_logger(__name__)

Object = dict[str, Any]
_Taker = Callable[[Object], None]

WATCHED = (POWER_DOMAINS, SERVING_POOLS, NODES, PODS)
"""In the order in which a first list is cheapest to take in."""

_STRIKES = 2


class World:
    """The ledger, kept current from watch events, and whether it can be relied on.

    Args:
        clock: the time.
        metrics: where things are counted.
        hold_seconds: how long watts are held for a pod on its way.
    """

    def __init__(self, clock: WallClock, metrics: ExtenderMetrics, hold_seconds: float) -> None:
        self.ledger = Ledger(hold_seconds)
        self.waiting = WaitingRoom()
        self.active_since: float | None = None
        self.bypasses: Counter[str] = Counter()
        self._clock = clock
        self._metrics = metrics
        self._unsynced = {resource.plural for resource in WATCHED}
        self._last_pod_event = 0.0
        self._strikes = 0
        self._suspect: tuple[str, str] | None = None
        self._generations: dict[str, int] = {}
        self._complained: set[str] = set()
        self._take: dict[Resource, tuple[_Taker, _Taker]] = {
            POWER_DOMAINS: (self._domain_seen, self._domain_gone),
            SERVING_POOLS: (self._pool_seen, self._pool_gone),
            NODES: (self._node_seen, self._node_gone),
            PODS: (self._pod_seen, self._pod_gone),
        }

    # Can it be relied on?

    @property
    def doubt(self) -> str:
        """Why the snapshot cannot be relied on (`syncing`, `stale`); empty when it can."""
        if self._unsynced:
            return "syncing"
        return "stale" if self._strikes >= _STRIKES else ""

    def suspect(self, quiet_seconds: float) -> tuple[str, str] | None:
        """Return a pod (namespace, name) whose binding should have been heard of by now, or None.

        A pod that raised suspicion stays suspect when its hold runs out, until `confirm` or news clears it: or else a
        doubt that began while the API server was away would outlast its return.
        """
        if self._strikes:
            return self._suspect
        longest = self.ledger.longest_on_its_way()
        if longest is None or self._clock.now() - max(longest[1], self._last_pod_event) < quiet_seconds:
            return None
        self._suspect = (longest[0].namespace, longest[0].name)
        return self._suspect

    def confirm(self, *, missed: bool) -> None:
        """Take in what the API server says of a suspect: whether something happened that the watch did not bring."""
        if not missed:
            self._trust_again()
            return
        self._strikes += 1
        if self._strikes == _STRIKES:
            _log.warning("pod watch is behind, passing all nodes until it catches up")

    def _trust_again(self) -> None:
        if self._strikes >= _STRIKES:
            _log.info("pod watch is current again")
        self._strikes = 0

    # Events

    def take(self, resource: Resource, event: Event) -> None:
        """Take in one event of a watch."""
        if event.type is EventType.SYNCED:
            self._synced(resource)
            return
        seen, gone = self._take[resource]
        (gone if event.type is EventType.DELETED else seen)(event.object)

    def _synced(self, resource: Resource) -> None:
        if resource == PODS:
            self._heard_of_pods()  # also where nothing has changed since the last list
        if resource.plural in self._unsynced:
            self._unsynced.discard(resource.plural)
            if not self._unsynced:
                self.ledger.settle(self._clock.now())
                ledger = self.ledger
                _log.info("snapshot complete", nodes=len(ledger.places), charged_pods=ledger.charged_pods)

    def _domain_seen(self, obj: Object) -> None:
        domain = self._parse(PowerDomain, obj)
        if domain is not None:
            self.ledger.set_domain(declared.domain(domain))

    def _domain_gone(self, obj: Object) -> None:
        self._generations.pop(obj["metadata"]["uid"], None)
        self.ledger.drop_domain(obj["metadata"]["name"])
        self._metrics.domain_gone(obj["metadata"]["name"])

    def _pool_seen(self, obj: Object) -> None:
        pool = self._parse(ServingPool, obj)
        if pool is not None:
            self.ledger.set_demand((pool.metadata.namespace, pool.metadata.name), declared.demand(pool))

    def _pool_gone(self, obj: Object) -> None:
        metadata = obj["metadata"]
        self._generations.pop(metadata["uid"], None)
        self.ledger.drop_demand((metadata["namespace"], metadata["name"]))

    def _node_seen(self, obj: Object) -> None:
        metadata = obj["metadata"]
        labels = {sys.intern(key): sys.intern(value) for key, value in (metadata.get("labels") or {}).items()}
        self.ledger.set_node(sys.intern(metadata["name"]), labels, labels.get(keys.ACCELERATOR, ""))

    def _node_gone(self, obj: Object) -> None:
        self.ledger.drop_node(obj["metadata"]["name"])

    def _pod_seen(self, obj: Object) -> None:
        self._heard_of_pods()
        pod = declared.pod_facts(obj)
        sent = declared.is_sent(obj)
        if declared.has_ended(obj) or not (sent or pod.pool or pod.watts or declared.has_claims(obj)):
            self._forget(pod.uid)
            return
        self._complain_of_watts(obj, declares=pod.watts is not None)
        sighting = self.ledger.observe(pod)
        if sighting is not Sighting.PENDING:
            self.waiting.leave(pod.uid)
        if sighting is Sighting.UNEXPECTED and self._is_after_our_time_began(obj):
            self._bypassed("missed" if sent else "claims" if declared.has_claims(obj) else "not_sent")

    def _pod_gone(self, obj: Object) -> None:
        self._heard_of_pods()
        self._forget(obj["metadata"]["uid"])

    def _forget(self, uid: str) -> None:
        self.ledger.forget(uid)
        self.waiting.leave(uid)

    def _heard_of_pods(self) -> None:
        self._last_pod_event = self._clock.now()
        self._trust_again()

    def _is_after_our_time_began(self, obj: Object) -> bool:
        """Whether only we could have let this pod pass: it was made after we became the active replica."""
        if self.active_since is None or self.doubt:
            return False
        return at_time(obj["metadata"]["creationTimestamp"]) >= int(self.active_since)

    def _bypassed(self, reason: str) -> None:
        self._metrics.bypassed(reason)
        self.bypasses[reason] += 1

    # Objects as people wrote them

    def _parse(self, kind: type[Any], obj: Object) -> Any:
        """Return the parsed object if its spec is new; None if it is known, or cannot be read (the last one counts)."""
        metadata = obj["metadata"]
        generation = metadata.get("generation", 0)
        if self._generations.get(metadata["uid"]) == generation:
            return None
        self._generations[metadata["uid"]] = generation
        try:
            return kind.model_validate(obj)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            _log.error(
                "object cannot be read, going on with what was known of it",
                object=f"{kind.__name__}/{metadata.get('namespace', '')}/{metadata['name']}",
                field=".".join(map(str, first["loc"])),
                problem=first["msg"],
                fix="apply the CRDs of this version, then correct the object",
            )
            return None

    def _complain_of_watts(self, obj: Object, *, declares: bool) -> None:
        metadata = obj["metadata"]
        text = (metadata.get("annotations") or {}).get(keys.WATTS)
        if text is not None and not declares:
            self.complain(
                f"{metadata['namespace']}/{text}",
                "annotation ignored",
                pod=f"{metadata['namespace']}/{metadata['name']}",
                annotation=keys.WATTS,
                value=text[:32],
                fix="write watts as a whole number, 0 to 1000000",
            )

    def complain(self, key: str, event: str, **facts: Any) -> None:
        """Log a warning about something that repeats, once for each `key`."""
        if key in self._complained:
            return
        if len(self._complained) >= 1000:  # noqa: PLR2004 - enough to know by
            self._complained.clear()
        self._complained.add(key)
        _log.warning(event, **facts)
