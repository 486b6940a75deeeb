"""NodeState: what one node can do, what it measures, and what is applied on it."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from trimtab.api.common import CommonStatus, Signal
from trimtab.api.definition import READY, REASON, Column, Definition
from trimtab.api.wire import (
    BigCount,
    CustomObject,
    Decimal,
    Keyed,
    Record,
    Rule,
    Ruled,
    Text,
    Time,
)

KnobName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9]([-._/A-Za-z0-9]*[A-Za-z0-9])?$")]
KnobValue = Annotated[str, Field(min_length=1, max_length=1024)]


class Knob(Ruled):
    """One setting of the node."""

    name: KnobName
    """name is the name of the knob, e.g. `gpu/0/clock-mhz`; unique on the node."""

    value: KnobValue
    """value is what it should be set to, as text. 1 to 1024 characters."""

    on_silence: Literal["Release", "Hold", "Safe"]
    """onSilence is what the agent does when the operator has been silent for too long: `Release` gives the knob back,
    `Hold` keeps the value, `Safe` sets the value of `safe`."""

    safe: KnobValue | None = None
    """safe is the value for `onSilence: Safe`; absent otherwise."""

    rules: ClassVar = (
        Rule(
            lambda knob: (knob.on_silence == "Safe") == (knob.safe is not None),
            "(self.onSilence == 'Safe') == has(self.safe)",
            "knobs[].safe: `onSilence: Safe` needs a safe value, Release and Hold take none",
        ),
    )


class NodeStateSpec(Record):
    """What should be applied on the node; written by the operator."""

    knobs: Annotated[tuple[Knob, ...], Field(max_length=256), Keyed()] = ()
    """knobs are the settings that are held. At most 256; one that is absent is given back."""


class Capability(Record):
    """Whether the node has one mechanism."""

    name: KnobName
    """name is the mechanism, e.g. `resctrl/cache`."""

    state: Literal["Supported", "Unsupported", "Forbidden"]
    """state is `Supported`, `Unsupported` (the node lacks it) or `Forbidden` (the agent may not use it)."""

    detail: Text = ""
    """detail is what was found, e.g. the number of cache ways."""


class ThermalModel(Record):
    """How well the node's heat can be predicted."""

    state: Literal["Learning", "Usable", "Rejected"]
    """state is `Learning` (too few samples), `Usable` or `Rejected` (it predicts badly and is not used)."""

    samples: BigCount = 0
    """samples is how many measurements it was fitted to."""

    error_celsius: Decimal | None = None
    """errorCelsius is the mean error of its predictions, in degrees Celsius, as a decimal number; absent while
    learning."""

    fitted: Time | None = None
    """fitted is when it was last fitted (RFC 3339); absent while learning."""


class AppliedKnob(Record):
    """What one knob really is, as read back."""

    name: KnobName
    """name is the name of the knob."""

    value: Text
    """value is what was read back, as text."""

    since: Time
    """since is when it took this value (RFC 3339)."""

    source: Literal["Spec", "Silence", "Emergency", "Foreign"]
    """source is who set it: `Spec`, `Silence` (the operator was silent), `Emergency` (the agent's own limit) or
    `Foreign` (somebody else)."""


class NodeStateStatus(CommonStatus):
    """What the node can do and what is applied.

    Conditions: AgentAlive, KnobContested, and `Supported...` for each mechanism.
    """

    capabilities: Annotated[tuple[Capability, ...], Field(max_length=64), Keyed()] = ()
    """capabilities are the mechanisms that were looked for. At most 64."""

    thermal_model: ThermalModel | None = None
    """thermalModel is how well the node's heat can be predicted; absent without accelerators."""

    signals: Annotated[tuple[Signal, ...], Field(max_length=64), Keyed()] = ()
    """signals are what the agent measures, and whether it can. At most 64; the numbers are metrics."""

    applied: Annotated[tuple[AppliedKnob, ...], Field(max_length=256), Keyed()] = ()
    """applied are the knobs as read back. At most 256."""


class NodeState(CustomObject):
    """A NodeState is one node as Trimtab sees it: what it can do, what it measures, what is applied.

    It has the name of its node. The operator writes its spec and the node agent its status; people only read it.
    """

    api_version: Literal["trimtab.dev/v1alpha1"] = "trimtab.dev/v1alpha1"
    kind: Literal["NodeState"] = "NodeState"
    spec: NodeStateSpec
    """spec is what should be applied on the node; written by the operator."""
    status: NodeStateStatus = NodeStateStatus()
    """status is what the node can do and what is applied; written by the node agent."""


NODE_STATE = Definition(
    model=NodeState,
    plural="nodestates",
    short="nst",
    namespaced=False,
    columns=(
        READY,
        REASON,
        Column("Agent", '.status.conditions[?(@.type=="AgentAlive")].status', "Whether the node agent reports."),
        Column(
            "Contested", '.status.conditions[?(@.type=="KnobContested")].status', "Whether others write a held knob."
        ),
    ),
)
