"""PowerDomain: a site, row, rack or aisle with power and cooling limits."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from trimtab.api.common import CommonStatus, PolicySpec, Query, Selector, Signal
from trimtab.api.definition import MODE, READY, REASON, Column, Definition
from trimtab.api.wire import (
    Celsius,
    Count,
    CustomObject,
    DnsName,
    Keyed,
    Percent,
    Permille,
    Positive,
    Record,
    Rule,
    Ruled,
    Time,
    Watts,
)


class PowerLimits(Ruled):
    """What the domain must stay under."""

    power_watts: Annotated[int, Field(strict=True, ge=1, le=2**53 - 1)] | None = None
    """powerWatts is the electrical limit of the domain, in watts. At least 1; absent: no limit."""

    airflow_cfm: Positive | None = Field(default=None, alias="airflowCFM")
    """airflowCFM is the air that cooling can move through the domain, in cubic feet per minute. At least 1; absent: no
    limit."""

    inlet_celsius: Celsius | None = None
    """inletCelsius is the highest inlet temperature, in degrees Celsius. -50 to 150; absent: no limit."""

    gpu_celsius: Celsius | None = None
    """gpuCelsius is the highest accelerator temperature, in degrees Celsius. -50 to 150; absent: no limit."""

    rules: ClassVar = (
        Rule(
            lambda limits: any(limit is not None for _, limit in limits),
            "has(self.powerWatts) || has(self.airflowCFM) || has(self.inletCelsius) || has(self.gpuCelsius)",
            "spec.limits: set at least one of powerWatts, airflowCFM, inletCelsius and gpuCelsius",
        ),
    )


class PowerSignals(Record):
    """Where the domain's measurements come from."""

    power: Query | None = None
    """power is the draw of the domain, in watts; absent: the sum of what servers or accelerators report."""

    inlet: Query | None = None
    """inlet is the inlet temperature, in degrees Celsius; absent: what servers report."""

    outside: Query | None = None
    """outside is the outdoor temperature, in degrees Celsius; absent: not used."""


class Derate(Ruled):
    """An emergency: less power or cooling than usual."""

    power_percent: Percent | None = None
    """powerPercent is the share of limits.powerWatts that is left, in percent. 1 to 100; absent: all of it."""

    airflow_percent: Percent | None = None
    """airflowPercent is the share of limits.airflowCFM that is left, in percent. 1 to 100; absent: all of it."""

    reason: Annotated[str, Field(min_length=1, max_length=256)]
    """reason says to people what happened, e.g. `UPS-2 lost`. 1 to 256 characters."""

    until: Time | None = None
    """until is when the derate ends by itself (RFC 3339); absent: when it is removed."""

    rules: ClassVar = (
        Rule(
            lambda derate: derate.power_percent is not None or derate.airflow_percent is not None,
            "has(self.powerPercent) || has(self.airflowPercent)",
            "spec.derate: says nothing: set powerPercent, airflowPercent or both, or remove derate",
        ),
    )


class PowerDomainSpec(PolicySpec):
    """The domain's place, nodes and limits."""

    type: Literal["Site", "Row", "Rack", "Aisle"]
    """type is what the domain is: `Site`, `Row`, `Rack` or `Aisle`. Domains of one type do not share nodes."""

    parent: DnsName | None = None
    """parent is the name of the PowerDomain that feeds this one; a Site has none. Absent: none."""

    nodes: Selector
    """nodes selects the nodes of the domain by label. Only a Site may leave it empty, which means every node."""

    limits: PowerLimits
    """limits is what the domain must stay under; at least one of them."""

    margin_percent: Annotated[int, Field(strict=True, ge=0, le=50)] = 5
    """marginPercent is the part of each limit that is kept free, in percent. 0 to 50. Default: 5."""

    signals: PowerSignals = PowerSignals()
    """signals is where measurements come from. Absent: facility, server, then accelerator metrics, whichever exist."""

    derate: Derate | None = None
    """derate is an emergency with less power or cooling than usual; absent: none."""

    rules: ClassVar = (
        Rule(
            lambda spec: spec.type != "Site" or spec.parent is None,
            "self.type != 'Site' || !has(self.parent)",
            "spec.parent: a Site has no parent: remove it, or choose type Row, Rack or Aisle",
        ),
        Rule(
            lambda spec: spec.type == "Site" or not spec.nodes.empty,
            "self.type == 'Site' || (has(self.nodes.matchLabels) && size(self.nodes.matchLabels) > 0)"
            " || (has(self.nodes.matchExpressions) && size(self.nodes.matchExpressions) > 0)",
            "spec.nodes: selects every node, which only a Site may do: set matchLabels or matchExpressions",
        ),
        Rule(
            lambda spec: (
                spec.derate is None or spec.derate.power_percent is None or spec.limits.power_watts is not None
            ),
            "!has(self.derate) || !has(self.derate.powerPercent) || has(self.limits.powerWatts)",
            "spec.derate.powerPercent: is a share of limits.powerWatts, which is absent: set it",
        ),
        Rule(
            lambda spec: (
                spec.derate is None or spec.derate.airflow_percent is None or spec.limits.airflow_cfm is not None
            ),
            "!has(self.derate) || !has(self.derate.airflowPercent) || has(self.limits.airflowCFM)",
            "spec.derate.airflowPercent: is a share of limits.airflowCFM, which is absent: set it",
        ),
    )


class PowerDomainStatus(CommonStatus):
    """What is true of the domain. Numbers are rounded and written at most once in 30 seconds; live ones are metrics."""

    nodes: Count = 0
    """nodes is how many nodes the selector matches."""

    power_watts: Watts | None = None
    """powerWatts is the measured draw, in watts; absent without a measurement."""

    predicted_peak_watts: Watts | None = None
    """predictedPeakWatts is the highest draw that is expected, in watts; absent without a prediction."""

    headroom_permille: Permille | None = None
    """headroomPermille is the part of the tightest limit that is free, in thousandths; absent if unknown."""

    hottest_gpu_celsius: Celsius | None = Field(default=None, alias="hottestGPUCelsius")
    """hottestGPUCelsius is the temperature of the hottest accelerator, in degrees Celsius; absent if unknown."""

    flexible_permille: Permille | None = None
    """flexiblePermille is the part of the draw that pools with `power.flexibility: Flexible` cause, in thousandths;
    absent if unknown."""

    telemetry_level: Literal["Facility", "Server", "GPU", "None"] = "None"
    """telemetryLevel is the best source of measurements: `Facility`, `Server`, `GPU` or `None`. What can be seen
    decides what may be done."""

    signals: Annotated[tuple[Signal, ...], Field(max_length=32), Keyed()] = ()
    """signals are what the domain's policies need to see, and whether they can. At most 32."""


class PowerDomain(CustomObject):
    """A PowerDomain is a site, row, rack or aisle whose nodes share power and cooling, with their limits."""

    api_version: Literal["trimtab.dev/v1alpha1"] = "trimtab.dev/v1alpha1"
    kind: Literal["PowerDomain"] = "PowerDomain"
    spec: PowerDomainSpec
    """spec is the domain's place, nodes and limits."""
    status: PowerDomainStatus = PowerDomainStatus()
    """status is what is true of the domain; written by the operator."""

    rules: ClassVar = (
        Rule(
            lambda domain: domain.spec.parent != domain.metadata.name,
            "!has(self.spec.parent) || self.spec.parent != self.metadata.name",
            "spec.parent: names the domain itself: name the domain that feeds it, or remove parent",
        ),
    )


POWER_DOMAIN = Definition(
    model=PowerDomain,
    plural="powerdomains",
    short="pdom",
    namespaced=False,
    columns=(
        READY,
        REASON,
        Column("Type", ".spec.type", "Site, Row, Rack or Aisle."),
        Column("Limit", ".spec.limits.powerWatts", "Electrical limit in watts.", "integer"),
        Column("Headroom", ".status.headroomPermille", "Free part of the tightest limit, in thousandths.", "integer"),
        Column("Nodes", ".status.nodes", "Nodes that the selector matches.", "integer"),
        MODE,
    ),
)
