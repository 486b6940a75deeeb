"""Every metric of every process: one class each, whose methods say what happened."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from trimtab.obs.distribution import Distributions
from trimtab.obs.pool_gauges import PoolGauges


class OperatorMetrics:
    """What the operator counts.

    Attributes:
        registry: where the metrics are registered; one per process.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._leading = Gauge(
            "trimtab_operator_leading", "1 while this process holds the Lease, else 0.", registry=self.registry
        )
        self._pass_seconds = Histogram(
            "trimtab_operator_reconcile_seconds",
            "Time to bring one object from dirty to as specified, writes included.",
            ["kind"],
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=self.registry,
        )
        self._reconciles = Counter(
            "trimtab_operator_reconciles_total",
            "Reconciled objects, by kind and result (done, retry, defect).",
            ["kind", "result"],
            registry=self.registry,
        )
        self._writes = Counter(
            "trimtab_operator_writes_total",
            "Writes to the API server, by resource and verb.",
            ["resource", "verb"],
            registry=self.registry,
        )
        self._errors = Counter(
            "trimtab_operator_api_errors_total",
            "Calls that the API server refused or did not answer, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self._decisions = Counter(
            "trimtab_operator_decisions_total",
            "Decisions about knobs, by policy, knob and outcome.",
            ["policy", "knob", "outcome"],
            registry=self.registry,
        )
        self._repairs = Counter(
            "trimtab_operator_drift_repairs_total",
            "Owned objects that somebody else changed or deleted and that were set back, by kind.",
            ["kind"],
            registry=self.registry,
        )
        self._events = Counter(
            "trimtab_operator_events_total",
            "Kubernetes Events, by result (posted, repeated, dropped, failed).",
            ["result"],
            registry=self.registry,
        )
        self._dirty = Gauge(
            "trimtab_operator_dirty_objects",
            "Objects that wait to be reconciled, or are being reconciled.",
            registry=self.registry,
        )
        self._objects = Gauge("trimtab_operator_objects", "Objects known, by kind.", ["kind"], registry=self.registry)
        self._pools = Gauge(
            "trimtab_operator_pools",
            "Serving pools, by the reason of their Ready condition; empty: it is not written yet.",
            ["reason"],
            registry=self.registry,
        )
        self._pool_reasons: set[str] = set()
        self._defects = Counter(
            "trimtab_operator_defects_total",
            "Errors that nothing expected, by place; each is logged with its traceback.",
            ["place"],
            registry=self.registry,
        )

    def led(self, leading: bool) -> None:  # noqa: FBT001 - a setter of one flag
        """Say whether this process leads."""
        self._leading.set(1 if leading else 0)

    def reconciled(self, kind: str, result: str, seconds: float) -> None:
        """Count one reconciled object."""
        self._pass_seconds.labels(kind).observe(seconds)
        self._reconciles.labels(kind, result).inc()

    def wrote(self, resource: str, verb: str) -> None:
        """Count one write."""
        self._writes.labels(resource, verb).inc()

    def failed(self, reason: str) -> None:
        """Count one call that did not succeed."""
        self._errors.labels(reason).inc()

    def decided(self, policy: str, knob: str, outcome: str) -> None:
        """Count one decision."""
        self._decisions.labels(policy, knob, outcome).inc()

    def repaired(self, kind: str) -> None:
        """Count one repaired object."""
        self._repairs.labels(kind).inc()

    def event(self, result: str) -> None:
        """Count one Event."""
        self._events.labels(result).inc()

    def waiting(self, count: int) -> None:
        """Say how many objects wait."""
        self._dirty.set(count)

    def known(self, kind: str, count: int) -> None:
        """Say how many objects of a kind are known."""
        self._objects.labels(kind).set(count)

    def pools(self, by_reason: Mapping[str, int]) -> None:
        """Say how many pools there are by the reason of their Ready condition; those not named are none."""
        for reason in self._pool_reasons - by_reason.keys():
            self._pools.labels(reason).set(0)
        for reason, count in by_reason.items():
            self._pools.labels(reason).set(count)
        self._pool_reasons |= by_reason.keys()

    def defect(self, place: str) -> None:
        """Count one unexpected error."""
        self._defects.labels(place).inc()


class ExtenderMetrics:
    """What the scheduler extender counts.

    Attributes:
        registry: where the metrics are registered; one per process.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._answers = Histogram(
            "trimtab_extender_answer_seconds",
            "Time from the whole question read to the answer written, by verb (filter, prioritize).",
            ["verb"],
            buckets=(0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2),
            registry=self.registry,
        )
        self._nodes = Counter(
            "trimtab_extender_nodes_total",
            "Nodes in filter calls, by outcome (passed, rejected, watched: passed, and a domain that is not enforced"
            " would have rejected it).",
            ["outcome"],
            registry=self.registry,
        )
        self._rejections = Counter(
            "trimtab_extender_rejections_total",
            "Filter calls that rejected nodes, by reason; a call with several reasons counts once for each.",
            ["reason"],
            registry=self.registry,
        )
        self._unchecked = Counter(
            "trimtab_extender_unchecked_total",
            "Filter calls that passed a node without a check, by reason (syncing, stale, unknown_node, undeclared).",
            ["reason"],
            registry=self.registry,
        )
        self._refused = Counter(
            "trimtab_extender_bad_requests_total",
            "Calls that could not be read, by verb; the log says why.",
            ["verb"],
            registry=self.registry,
        )
        self._bypassed = Counter(
            "trimtab_extender_bypassed_pods_total",
            "Pods that were bound without passing here and were charged on sight, by reason (missed: the scheduler"
            " skipped the call or another scheduler bound it; claims: it asks by resource claims; not_sent: it requests"
            " nothing that the scheduler sends pods here for).",
            ["reason"],
            registry=self.registry,
        )
        self._expired = Counter(
            "trimtab_extender_expired_holds_total",
            "Pods that passed and were not seen bound in time; what was held for them was freed.",
            registry=self.registry,
        )
        self._nudges = Counter(
            "trimtab_extender_nudges_total",
            "Requests to wake rejected pods, by result (asked, failed).",
            ["result"],
            registry=self.registry,
        )
        self._watches = Counter(
            "trimtab_extender_watch_failures_total",
            "Watches that ended because the role or the resource is missing, by resource.",
            ["resource"],
            registry=self.registry,
        )
        self._defects = Counter(
            "trimtab_extender_defects_total",
            "Errors that nothing expected, by place; each is logged with its traceback.",
            ["place"],
            registry=self.registry,
        )
        self._leading = Gauge(
            "trimtab_extender_leading", "1 while this replica is the active one, else 0.", registry=self.registry
        )
        self._fresh = Gauge(
            "trimtab_extender_fresh", "1 while the snapshot in memory can be relied on, else 0.", registry=self.registry
        )
        self._pods = Gauge(
            "trimtab_extender_pods",
            "Pods by state (charged, undeclared: charged nothing, held: on their way, waiting: no node was left).",
            ["state"],
            registry=self.registry,
        )
        self._epoch = Gauge(
            "trimtab_extender_placement_epoch",
            "Number of the last request to wake rejected pods.",
            registry=self.registry,
        )
        self._domain_watts = Gauge(
            "trimtab_extender_domain_watts",
            "Declared watts of a power domain, by kind (usable, charged, held).",
            ["domain", "kind"],
            registry=self.registry,
        )

    def answered(self, verb: str, seconds: float) -> None:
        """Count one answer."""
        self._answers.labels(verb).observe(seconds)

    def filtered(self, *, passed: int, rejected: int, watched: int) -> None:
        """Count the nodes of one filter call."""
        self._nodes.labels("passed").inc(passed)
        self._nodes.labels("rejected").inc(rejected)
        self._nodes.labels("watched").inc(watched)

    def rejected(self, reason: str) -> None:
        """Count one reason for which a filter call rejected nodes."""
        self._rejections.labels(reason).inc()

    def unchecked(self, reason: str) -> None:
        """Count one filter call that passed something without a check."""
        self._unchecked.labels(reason).inc()

    def unreadable(self, verb: str) -> None:
        """Count one call that could not be read."""
        self._refused.labels(verb).inc()

    def bypassed(self, reason: str) -> None:
        """Count one pod that was bound without passing here."""
        self._bypassed.labels(reason).inc()

    def expired(self, holds: int) -> None:
        """Count pods that were not seen bound in time."""
        self._expired.inc(holds)

    def nudged(self, result: str) -> None:
        """Count one request to wake rejected pods."""
        self._nudges.labels(result).inc()

    def defect(self, place: str) -> None:
        """Count one unexpected error."""
        self._defects.labels(place).inc()

    def watch_failed(self, resource: str) -> None:
        """Count one watch that the server refused."""
        self._watches.labels(resource).inc()

    def led(self, leading: bool) -> None:  # noqa: FBT001 - a setter of one flag
        """Say whether this replica is the active one."""
        self._leading.set(1 if leading else 0)

    def known(self, *, fresh: bool, epoch: int, pods: dict[str, int]) -> None:
        """Say what is in memory."""
        self._fresh.set(1 if fresh else 0)
        self._epoch.set(epoch)
        for state, count in pods.items():
            self._pods.labels(state).set(count)

    def domain(self, name: str, watts: dict[str, int]) -> None:
        """Say how a domain stands."""
        for kind, value in watts.items():
            self._domain_watts.labels(name, kind).set(value)

    def domain_gone(self, name: str) -> None:
        """Stop reporting a domain that no longer exists."""
        self._domain_watts.remove_by_labels({"domain": name})


class GatewayMetrics:
    """What the gateway counts. Every label value comes from configuration or from a fixed list, never from a client.

    Attributes:
        registry: where the metrics are registered; one per process.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self.requests = Counter(
            "trimtab_gateway_requests_total",
            "Requests that ended, by pool (empty: none was found), service level and outcome: ok, client_error, error,"
            " cancelled, or the code of the gateway's own error.",
            ["pool", "level", "outcome"],
            registry=self.registry,
        )
        self.objective = Counter(
            "trimtab_gateway_ttft_objective_total",
            "Streams of a service level with a TTFT objective, by whether it was met. Refused and failed streams did"
            " not meet it.",
            ["pool", "level", "met"],
            registry=self.registry,
        )
        self.queue_seconds = Distributions(
            "trimtab_gateway_queue_seconds",
            "Time from a request's arrival until an engine had a place for it.",
            ["pool"],
            buckets=(0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
            registry=self.registry,
        )
        self.response_seconds = Distributions(
            "trimtab_gateway_response_seconds",
            "Time from a request's arrival until its answer was complete.",
            ["pool"],
            buckets=(0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600),
            registry=self.registry,
        )
        self.ttft_seconds = Distributions(
            "trimtab_gateway_ttft_seconds",
            "Time from a stream request's arrival until the first bytes of its content.",
            ["pool", "level"],
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20, 30, 60, 120, 300),
            registry=self.registry,
        )
        self.gap_seconds = Distributions(
            "trimtab_gateway_time_between_tokens_seconds",
            "Time between two arrivals of content in a stream; one arrival is mostly, not always, one token.",
            ["pool", "level"],
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5),
            registry=self.registry,
        )
        self.ejections = Counter(
            "trimtab_gateway_endpoint_ejections_total",
            "Times that failing engines of a pool were taken out of rotation.",
            ["pool"],
            registry=self.registry,
        )
        self.pools = PoolGauges(self.registry)
        self.contested_models = Gauge(
            "trimtab_gateway_contested_models",
            "Models that more than one pool claims; the oldest pool serves them, the log names the others.",
            registry=self.registry,
        )
        self.connections = Gauge("trimtab_gateway_connections", "Clients that are connected.", registry=self.registry)
        self.buffered_bytes = Gauge(
            "trimtab_gateway_buffered_bytes", "Request bodies that are held.", registry=self.registry
        )
        self.config_errors = Counter(
            "trimtab_gateway_config_errors_total",
            "Changes of pools or endpoints that were ignored because they cannot be used.",
            registry=self.registry,
        )
        self.defects = Counter(
            "trimtab_gateway_defects_total",
            "Unexpected errors, each logged; this stays 0 unless the gateway has a defect.",
            registry=self.registry,
        )
