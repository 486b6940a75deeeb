"""NodePolicy: what the node agent may do on which nodes."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from trimtab.api.common import ChangeBudget, CommonStatus, PolicySpec, Query, Selector
from trimtab.api.definition import MODE, READY, REASON, Column, Definition
from trimtab.api.wire import (
    Count,
    CustomObject,
    Keyed,
    Milliseconds,
    Percent,
    Permille,
    Record,
    Rule,
    Ruled,
    VariantName,
)

MegabytesPerSecond = Annotated[int, Field(strict=True, ge=0, le=1_000_000)]


class Partition(Record):
    """A share of a node's cache and memory bandwidth."""

    name: VariantName
    """name is the name of the partition; unique in the policy."""

    cache_percent: Percent
    """cachePercent is its share of the last-level cache, in percent, rounded to whole ways. 1 to 100."""

    bandwidth_percent: Percent
    """bandwidthPercent is its share of the memory bandwidth, in percent. 1 to 100."""


class ApplicationObjective(Record):
    """What is promised to users of an application on the node."""

    latency_milliseconds: Milliseconds
    """latencyMilliseconds is the target for its latency, at `percentile`. 1 to 3600000."""

    percentile: Annotated[int, Field(strict=True, ge=50, le=99)] = 99
    """percentile is the share of requests that must meet the target, in percent. 50 to 99. Default: 99."""

    latency: Query | None = None
    """latency measures that percentile, in milliseconds; absent: the application is only counted, not steered."""


class IsolatedApplication(Ruled):
    """Pods that are given a place among the partitions."""

    name: VariantName
    """name is the name of the application; unique in the policy."""

    selector: Selector
    """selector selects its pods, in every namespace; it must not be empty."""

    slo: ApplicationObjective | None = None
    """slo is what is promised to its users; absent: best effort."""

    rules: ClassVar = (
        Rule(
            lambda application: not application.selector.empty,
            "(has(self.selector.matchLabels) && size(self.selector.matchLabels) > 0)"
            " || (has(self.selector.matchExpressions) && size(self.selector.matchExpressions) > 0)",
            "isolation.applications[].selector: selects every pod: set matchLabels or matchExpressions",
        ),
    )


class Isolation(Ruled):
    """How applications share a node's cache and memory bandwidth."""

    policy: Literal["Static", "RoundRobin", "TimeShare", "Slack", "Cluster"] = "Static"
    """policy moves applications between partitions: `Static` never, `RoundRobin` in turn, `TimeShare` by the shares of
    time that objectives need, `Slack` by who is closest to a miss, `Cluster` by likeness. Default: Static."""

    partitions: Annotated[tuple[Partition, ...], Field(min_length=1, max_length=16), Keyed()]
    """partitions are the places; together at most the whole node. 1 to 16."""

    epoch_milliseconds: Annotated[int, Field(strict=True, ge=100, le=60_000)] = 1000
    """epochMilliseconds is how long a placement lasts, in milliseconds. 100 to 60000. Default: 1000."""

    applications: Annotated[tuple[IsolatedApplication, ...], Field(max_length=32), Keyed()] = ()
    """applications are the pods that are placed; all others share what is left. At most 32."""

    rules: ClassVar = (
        Rule(
            lambda isolation: sum(partition.cache_percent for partition in isolation.partitions) <= 100,  # noqa: PLR2004
            "self.partitions.map(partition, partition.cachePercent).sum() <= 100",
            "isolation.partitions[].cachePercent: the partitions add up to more than 100: lower them",
        ),
    )


class BandwidthQuota(Ruled):
    """How fast pages may move between memory tiers."""

    min: MegabytesPerSecond = 0
    """min is the least rate, in megabytes per second. 0 to 1000000. Default: 0."""

    max: MegabytesPerSecond
    """max is the highest rate, in megabytes per second. 0 to 1000000."""

    rules: ClassVar = (
        Rule(
            lambda quota: quota.min <= quota.max,
            "self.min <= self.max",
            "memoryTiering.quotaMBps.min: must not exceed quotaMBps.max: lower one or raise the other",
        ),
    )


class Guard(Record):
    """What must not get worse."""

    prom_ql: Annotated[str, Field(min_length=1, max_length=4096, alias="promQL")]
    """promQL is an instant query that is above 0 while an objective is missed; the last safe setting then returns.
    1 to 4096 characters."""


class MemoryTiering(Record):
    """How pages move between fast and slow memory."""

    driver: Literal["Auto", "Kernel", "DAMON"] = "Auto"
    """driver moves pages: `Kernel` (NUMA balancing in tiering mode), `DAMON`, or `Auto` for what the node has.
    Default: Auto."""

    quota_mbps: BandwidthQuota = Field(alias="quotaMBps")
    """quotaMBps is how fast pages may move, in megabytes per second."""

    guard: Guard | None = None
    """guard is what must not get worse; absent: only the node's own counters are watched."""


class NetworkSharing(Ruled):
    """How outgoing traffic is held back when a node's link is full."""

    high_percent: Percent = 85
    """highPercent is the use of the link above which traffic is held back, in percent. 1 to 100. Default: 85."""

    low_percent: Percent = 60
    """lowPercent is the use below which limits are lifted, in percent. 1 to 100. Default: 60."""

    floor_percent: Percent = 15
    """floorPercent is what every pod keeps of its usual rate, in percent. 1 to 100. Default: 15."""

    protect_above_permille: Permille = 500
    """protectAbovePermille is the sensitivity to the network above which a pod is never held back, in thousandths.
    0 to 1000. Default: 500."""

    budget: ChangeBudget = ChangeBudget()
    """budget is how much may change at a time. Default: 10 percent of the pods, 60 seconds apart."""

    rules: ClassVar = (
        Rule(
            lambda network: network.floor_percent < network.low_percent < network.high_percent,
            "self.floorPercent < self.lowPercent && self.lowPercent < self.highPercent",
            "network.lowPercent: must lie between floorPercent and highPercent: correct the three",
        ),
    )


class AcceleratorFloors(Ruled):
    """How far accelerators may be slowed down."""

    min_clock_mhz: Annotated[int, Field(strict=True, ge=1, le=10_000)] | None = Field(default=None, alias="minClockMHz")
    """minClockMHz is the lowest clock, in megahertz. 1 to 10000; absent: clocks are not touched."""

    min_watts: Annotated[int, Field(strict=True, ge=1, le=100_000)] | None = None
    """minWatts is the lowest power limit of one accelerator, in watts. 1 to 100000; absent: power limits are not
    touched."""

    rules: ClassVar = (
        Rule(
            lambda floors: floors.min_clock_mhz is not None or floors.min_watts is not None,
            "has(self.minClockMHz) || has(self.minWatts)",
            "spec.accelerators: allows nothing: set minClockMHz, minWatts or both, or remove accelerators",
        ),
    )


class NodePolicySpec(PolicySpec):
    """The nodes, and what the agent may do on them. What is absent is not touched."""

    nodes: Selector
    """nodes selects the nodes by label; empty selects every node."""

    isolation: Isolation | None = None
    """isolation is how applications share cache and memory bandwidth; absent: not touched."""

    memory_tiering: MemoryTiering | None = None
    """memoryTiering is how pages move between fast and slow memory; absent: not touched."""

    network: NetworkSharing | None = None
    """network is how outgoing traffic is held back on a full link; absent: not touched."""

    accelerators: AcceleratorFloors | None = None
    """accelerators is how far accelerators may be slowed down; absent: not touched."""

    rules: ClassVar = (
        Rule(
            lambda spec: any((spec.isolation, spec.memory_tiering, spec.network, spec.accelerators)),
            "has(self.isolation) || has(self.memoryTiering) || has(self.network) || has(self.accelerators)",
            "spec.isolation: the policy allows nothing: set isolation, memoryTiering, network or accelerators",
        ),
    )


class NodePolicyStatus(CommonStatus):
    """Where the policy is in effect."""

    nodes: Count = 0
    """nodes is how many nodes the selector matches."""

    applied_nodes: Count = 0
    """appliedNodes is on how many of them everything is applied."""


class NodePolicy(CustomObject):
    """A NodePolicy is what the node agent may do on which nodes: cache partitions, memory tiers, network, clocks."""

    api_version: Literal["trimtab.dev/v1alpha1"] = "trimtab.dev/v1alpha1"
    kind: Literal["NodePolicy"] = "NodePolicy"
    spec: NodePolicySpec
    """spec is the nodes, and what the agent may do on them."""
    status: NodePolicyStatus = NodePolicyStatus()
    """status is where the policy is in effect; written by the operator."""


NODE_POLICY = Definition(
    model=NodePolicy,
    plural="nodepolicies",
    short="npol",
    namespaced=False,
    columns=(
        READY,
        REASON,
        Column("Nodes", ".status.nodes", "Nodes that the selector matches.", "integer"),
        Column("Applied", ".status.appliedNodes", "Nodes on which everything is applied.", "integer"),
        MODE,
    ),
)
