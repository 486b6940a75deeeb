"""MicroserviceSLO: an objective for one entry operation of a microservice application."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from trimtab.api.common import ChangeBudget, CommonStatus, PolicySpec, Selector, Signal
from trimtab.api.definition import MODE, READY, REASON, Column, Definition
from trimtab.api.quantity import parse_quantity
from trimtab.api.wire import (
    Count,
    CustomObject,
    Decimal,
    DnsName,
    HttpUrl,
    Keyed,
    Milliseconds,
    Percent,
    Permille,
    Plain,
    Quantity,
    Record,
    Replicas,
    Rule,
    Ruled,
    Word,
)


class Application(Ruled):
    """The pods of the application."""

    selector: Selector
    """selector selects the pods of the application, in the namespace of this object; it must not be empty."""

    rules: ClassVar = (
        Rule(
            lambda application: not application.selector.empty,
            "(has(self.selector.matchLabels) && size(self.selector.matchLabels) > 0)"
            " || (has(self.selector.matchExpressions) && size(self.selector.matchExpressions) > 0)",
            "application.selector: selects every pod: set matchLabels or matchExpressions",
        ),
    )


class Entry(Record):
    """The operation that users wait for."""

    service: DnsName
    """service is the name of the service that users call, as traces name it."""

    operation: Annotated[str, Field(min_length=1, max_length=256)]
    """operation is the operation, as traces name it, e.g. `POST /cart/checkout`. 1 to 256 characters."""


class Objective(Record):
    """What is promised for the entry operation."""

    latency_milliseconds: Milliseconds
    """latencyMilliseconds is the target for the end-to-end latency, at `percentile`. 1 to 3600000."""

    percentile: Annotated[int, Field(strict=True, ge=50, le=99)] = 99
    """percentile is the share of requests that must meet the target, in percent. 50 to 99. Default: 99."""

    window_seconds: Annotated[int, Field(strict=True, ge=1, le=3600)] = 30
    """windowSeconds is the time over which the percentile is taken, in seconds. 1 to 3600. Default: 30."""


class TraceSource(Ruled):
    """Where traces come from."""

    source: Literal["OTLP", "Jaeger", "Tempo"] = "OTLP"
    """source is `OTLP` (applications or a collector send traces to Trimtab), `Jaeger` or `Tempo` (Trimtab asks their
    query API). Default: OTLP."""

    url: HttpUrl | None = None
    """url is the query API of Jaeger or Tempo; absent with OTLP."""

    rules: ClassVar = (
        Rule(
            lambda traces: (traces.source == "OTLP") == (traces.url is None),
            "(self.source == 'OTLP') == !has(self.url)",
            "traces.url: Jaeger and Tempo need the address of their query API, OTLP takes none",
        ),
    )


class Localization(Record):
    """How the cause of a violation is looked for."""

    min_traces: Annotated[int, Field(strict=True, ge=1, le=100_000)] = 30
    """minTraces is how many traces of a window are needed; with fewer nothing is blamed. 1 to 100000. Default: 30."""

    max_suspects: Annotated[int, Field(strict=True, ge=1, le=16)] = 3
    """maxSuspects is how many pods are blamed at most at a time. 1 to 16. Default: 3."""


def _ordered(bounds: "CpuBounds | MemoryBounds") -> bool:
    return parse_quantity(bounds.min) <= parse_quantity(bounds.max)


_ORDERED = "quantity(string(self.min)).compareTo(quantity(string(self.max))) <= 0"


class CpuBounds(Ruled):
    """How far the CPU of a container may be changed."""

    min: Quantity
    """min is the least CPU, as a quantity, e.g. `100m`."""

    max: Quantity
    """max is the most CPU, as a quantity, e.g. `4`."""

    max_step_percent: Percent = 25
    """maxStepPercent is the largest change at once, in percent of the present value. 1 to 100. Default: 25."""

    rules: ClassVar = (Rule(_ordered, _ORDERED, "cpu.min: must not exceed cpu.max: lower one or raise the other"),)


class MemoryBounds(Ruled):
    """How far the memory of a container may be changed."""

    min: Quantity
    """min is the least memory, as a quantity, e.g. `128Mi`."""

    max: Quantity
    """max is the most memory, as a quantity, e.g. `8Gi`."""

    rules: ClassVar = (
        Rule(_ordered, _ORDERED, "memory.min: must not exceed memory.max: lower one or raise the other"),
    )


class ReplicaBounds(Ruled):
    """How many replicas may be proposed to the workload's own `/scale`."""

    min: Replicas
    """min is the fewest replicas. 0 to 10000."""

    max: Annotated[int, Field(strict=True, ge=1, le=10_000)]
    """max is the most replicas. 1 to 10000."""

    rules: ClassVar = (
        Rule(
            lambda bounds: bounds.min <= bounds.max,
            "self.min <= self.max",
            "replicas.min: must not exceed replicas.max: lower one or raise the other",
        ),
    )


class MemoryBandwidth(Record):
    """How far memory bandwidth may be limited."""

    min_percent: Percent
    """minPercent is the least share of a node's memory bandwidth, in percent. 1 to 100."""


class CacheWays(Record):
    """How far the last-level cache may be partitioned."""

    min_ways: Annotated[int, Field(strict=True, ge=1, le=64)]
    """minWays is the fewest cache ways. 1 to 64."""


class Egress(Record):
    """How far outgoing traffic may be limited."""

    min_mbps: Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
    """minMbps is the lowest rate, in megabits per second. 1 to 1000000."""


class Mitigation(Record):
    """What may be changed to keep the objective. What is absent is not touched."""

    policy: Literal["Auto", "DDPG", "AIMD"] = "Auto"
    """policy decides how much: `DDPG` (learned), `AIMD` (additive up, multiplicative down) or `Auto` (learned once it
    has proved better, else AIMD). Default: Auto."""

    cpu: CpuBounds | None = None
    """cpu is how far the CPU of a container may be changed; absent: not touched."""

    memory: MemoryBounds | None = None
    """memory is how far the memory of a container may be changed; absent: not touched."""

    replicas: ReplicaBounds | None = None
    """replicas is how many replicas may be proposed to the workload's own `/scale`; absent: not touched."""

    carry_to: Literal["Pod", "Template"] = "Pod"
    """carryTo says how a new size outlives the pod: `Pod` resizes new pods when they appear, `Template` patches the
    workload's template. Default: Pod."""

    memory_bandwidth: MemoryBandwidth | None = None
    """memoryBandwidth is how far memory bandwidth may be limited; absent: not touched."""

    cache: CacheWays | None = None
    """cache is how far the last-level cache may be partitioned; absent: not touched."""

    egress: Egress | None = None
    """egress is how far outgoing traffic may be limited; absent: not touched."""

    budget: ChangeBudget = ChangeBudget()
    """budget is how much may change at a time. Default: 10 percent of the pods, 60 seconds apart."""


class MicroserviceSLOSpec(PolicySpec):
    """The application, its objective, and what may be changed to keep it."""

    application: Application
    """application is the pods that serve the operation."""

    entry: Entry
    """entry is the operation that users wait for."""

    objective: Objective
    """objective is what is promised for it."""

    traces: TraceSource = TraceSource()
    """traces is where traces come from. Default: OTLP."""

    localization: Localization = Localization()
    """localization is how the cause of a violation is looked for. Default: 3 suspects from at least 30 traces."""

    mitigation: Mitigation = Mitigation()
    """mitigation is what may be changed. Default: nothing."""


class PathShare(Record):
    """The part of one service in the latency that users see."""

    service: DnsName
    """service is the name of the service, as traces name it."""

    share_of_latency_permille: Permille
    """shareOfLatencyPermille is its part of the end-to-end latency, in thousandths."""


class Suspect(Record):
    """A pod that is blamed for a violation."""

    pod: DnsName
    """pod is the name of the pod."""

    service: DnsName
    """service is the name of its service."""

    relative_importance: Decimal = "0"
    """relativeImportance is how much its latency explains the end-to-end latency, as a decimal number."""

    congestion_intensity: Decimal = "0"
    """congestionIntensity is how much its slow requests exceed its usual ones, as a decimal number."""

    score: Decimal = "0"
    """score joins both, as a decimal number; higher is more suspect."""

    resource: Word = ""
    """resource is what it lacks, e.g. `cpu`; empty if unknown."""


class MicroserviceSLOStatus(CommonStatus):
    """What is true of the application."""

    latency_milliseconds: Annotated[int, Field(strict=True, ge=0, le=3_600_000)] | None = None
    """latencyMilliseconds is the latency at the objective's percentile, over its window; absent without data."""

    attainment_permille: Permille | None = None
    """attainmentPermille is the share of recent requests that met the objective, in thousandths; absent without
    data."""

    critical_path: Annotated[tuple[PathShare, ...], Field(max_length=32), Plain()] = ()
    """criticalPath are the services that the latency is made of, largest part first. At most 32."""

    suspects: Annotated[tuple[Suspect, ...], Field(max_length=16), Keyed(("pod",))] = ()
    """suspects are the pods that are blamed. At most 16; empty while the objective is met."""

    signals: Annotated[tuple[Signal, ...], Field(max_length=32), Keyed()] = ()
    """signals are what the policies need to see, and whether they can. At most 32."""

    pods: Count = 0
    """pods is how many pods the selector matches."""


class MicroserviceSLO(CustomObject):
    """A MicroserviceSLO is a latency objective for one entry operation of an application that others own."""

    api_version: Literal["trimtab.dev/v1alpha1"] = "trimtab.dev/v1alpha1"
    kind: Literal["MicroserviceSLO"] = "MicroserviceSLO"
    spec: MicroserviceSLOSpec
    """spec is the application, its objective, and what may be changed to keep it."""
    status: MicroserviceSLOStatus = MicroserviceSLOStatus()
    """status is what is true of the application; written by the operator."""


MICROSERVICE_SLO = Definition(
    model=MicroserviceSLO,
    plural="microserviceslos",
    short="mslo",
    namespaced=True,
    columns=(
        READY,
        REASON,
        Column("Target", ".spec.objective.latencyMilliseconds", "Latency objective in milliseconds.", "integer"),
        Column("Latency", ".status.latencyMilliseconds", "Latency seen, in milliseconds.", "integer"),
        Column("Attainment", ".status.attainmentPermille", "Requests within the objective, in thousandths.", "integer"),
        MODE,
    ),
)
