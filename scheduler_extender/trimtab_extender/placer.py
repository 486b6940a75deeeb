"""Answers the scheduler's two questions, from memory."""

from dataclasses import dataclass

import structlog

from trimtab.api.declared import pod_facts
from trimtab.api.extender import (
    ExtenderArgs,
    WireError,
    filter_error,
    filter_result,
    host_priorities,
    read_args,
)
from trimtab.decide.placement import NO_OPINION, Admission, admit, score
from trimtab.model.power import PodFacts
from trimtab.obs.clock import WallClock
from trimtab.obs.metrics import ExtenderMetrics
from trimtab.obs.wording import say
from trimtab_extender.world import World

_log = structlog.get_logger(__name__)

_SAMPLED_FROM = 100
"""In clusters of at least so many nodes the scheduler asks about a sample of them."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer: status and JSON body."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Placer:
    """The hot path. On any doubt about its knowledge it passes all nodes, and counts that it did."""

    world: World
    clock: WallClock
    metrics: ExtenderMetrics

    def filter(self, body: bytes) -> Reply:
        """Answer which nodes the pod may go to."""
        try:
            args = read_args(body)
        except WireError as error:
            self._unreadable("filter", error)
            # The scheduler writes this text into its own log, where whoever configured it looks first.
            return Reply(200, filter_error(f"trimtab-extender: {error}"))
        doubt = self.world.doubt
        if doubt:
            self.metrics.unchecked(doubt)
            return Reply(200, filter_result(args.node_names, {}, {}))
        return Reply(200, self._admit(args))

    def prioritize(self, body: bytes) -> Reply:
        """Answer how good each node is for the pod."""
        try:
            args = read_args(body)
        except WireError as error:
            self._unreadable("prioritize", error)
            return Reply(400, filter_error(f"trimtab-extender: {error}"))
        names = args.node_names
        if self.world.doubt:
            return Reply(200, host_priorities(names, [NO_OPINION] * len(names)))
        scores = score(self.world.ledger, pod_facts(args.pod), names, self.clock.now())
        return Reply(200, host_priorities(names, scores))

    def _admit(self, args: ExtenderArgs) -> bytes:
        pod, at, ledger = pod_facts(args.pod), self.clock.now(), self.world.ledger
        admission = admit(ledger, pod, args.node_names, at)
        partial = _SAMPLED_FROM <= len(ledger.places) > len(args.node_names)
        self.world.waiting.note(pod, admission, partial=partial, at=at)
        self._count(pod, admission, len(args.node_names))
        # Never `FailedNodes`: the scheduler would look for pods to evict from those nodes, find that its own filters
        # pass without any eviction, and end the whole preemption with an error. It cannot evict for the sake of power.
        unresolvable: dict[str, str] = {}
        for rejection in admission.rejections:
            unresolvable.update(dict.fromkeys(rejection.nodes, say(rejection.reason)))
        return filter_result(admission.passed, {}, unresolvable)

    def _count(self, pod: PodFacts, admission: Admission, asked: int) -> None:
        passed = len(admission.passed)
        self.metrics.filtered(passed=passed, rejected=asked - passed, watched=admission.watched)
        for rejection in admission.rejections:
            self.metrics.rejected(rejection.reason.code)
        if admission.unknown:
            self.metrics.unchecked("unknown_node")
        if not admission.declared:
            self.metrics.unchecked("undeclared")
            self._say_undeclared(pod)

    def _say_undeclared(self, pod: PodFacts) -> None:
        pool = "/".join(pod.pool) if pod.pool else ""
        self.world.complain(
            f"undeclared {pool or pod.namespace}",
            "pod declares no watts: it passes everywhere and is charged nothing",
            pod=f"{pod.namespace}/{pod.name}",
            pool=pool,
            fix="add models[].variants[].profiles[].watts to the pool, or the annotation trimtab.dev/watts to the pod",
        )

    def _unreadable(self, verb: str, error: WireError) -> None:
        self.metrics.unreadable(verb)
        self.world.complain(f"{verb} {error}", "question cannot be read", verb=verb, problem=str(error))
