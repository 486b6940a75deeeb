"""Records that several kinds share: modes, conditions, decisions, proposals, service levels, selectors, templates."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from trimtab.api.wire import (
    LABEL_KEY,
    BigCount,
    CamelCase,
    Count,
    DnsName,
    Keyed,
    LabelKey,
    LabelValue,
    Milliseconds,
    Plain,
    Prose,
    Record,
    Rule,
    Ruled,
    Seconds,
    Switch,
    Text,
    Time,
    VariantName,
    Weight,
    Word,
)

Mode = Literal["Observe", "Propose", "Enforce"]
DeletionPolicy = Literal["Keep", "Restore"]
Outcome = Literal["Recorded", "Proposed", "Applied", "Refused", "Expired", "Failed", "RolledBack"]
SignalState = Literal["Fresh", "Stale", "Missing"]
FailMode = Literal["Hold", "Ignore", "Fallback"]
Attainment = Literal["Met", "AtRisk", "Violated", "Unknown"]


class PolicySpec(Ruled):
    """The settings that every policy object has."""

    mode: Mode = "Observe"
    """mode says what policies may do with the knobs of this object: `Observe` records what they would do, `Propose`
    waits for an approval, `Enforce` acts. Objects that Trimtab owns are kept as specified in every mode.
    Default: Observe."""

    deletion_policy: DeletionPolicy = "Keep"
    """deletionPolicy says what happens to sizes (replicas, CPU, memory) of objects that Trimtab does not own when this
    object is deleted: `Keep` leaves them as they are and names the earlier value in an Event, `Restore` sets the
    earlier value. Limits (clocks, power, partitions, egress) are always restored. Default: Keep."""


class Condition(Record):
    """One aspect of the object's state, in the form that Kubernetes tools expect; True is the good state."""

    type: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Z][A-Za-z0-9]*$")]
    """type is the name of the condition in CamelCase, e.g. `Ready`."""

    status: Literal["True", "False", "Unknown"]
    """status is True, False or Unknown; Unknown also means that nothing has been observed yet."""

    reason: CamelCase
    """reason is a stable CamelCase name of why the condition has this status, e.g. `NotEnoughReplicas`."""

    message: Prose = ""
    """message explains the reason to a person, in one or two sentences."""

    observed_generation: BigCount = 0
    """observedGeneration is the metadata.generation of the spec that this condition describes."""

    last_transition_time: Time
    """lastTransitionTime is when `status` last changed (RFC 3339)."""


class Change(Record):
    """One change of one knob, with its reason."""

    id: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][-A-Za-z0-9]*$")]
    """id names this entry within the object; an approval refers to it."""

    time: Time
    """time is when the decision was taken (RFC 3339)."""

    policy: CamelCase
    """policy is the method that asked for it, e.g. `Fixed` or `WaitingTime`."""

    subject: Text
    """subject is what it is about, as `Kind/namespace/name` and, for a part of it, `:part`."""

    knob: Word
    """knob is the name of what is set, e.g. `replicas`."""

    from_value: Annotated[Text, Field(alias="from")] = ""
    """from is the value that was in effect, as text; empty if there was none."""

    to_value: Annotated[Text, Field(alias="to")] = ""
    """to is the value that was decided, as text; empty if the knob is given back."""

    reason: CamelCase
    """reason is the stable CamelCase name of why."""

    message: Prose = ""
    """message explains the reason to a person, with the numbers that decided."""

    predicted_effect: Text = ""
    """predictedEffect is what the policy expects of it; empty if it predicts nothing."""


class DecisionRecord(Change):
    """A decision that changed something, or would have: never a repeated no-op."""

    observed_effect: Text = ""
    """observedEffect is what was seen afterwards; empty until something was seen."""

    outcome: Outcome
    """outcome is what became of it: `Recorded` (mode Observe: nothing was changed), `Proposed`, `Applied`, `Refused`
    (with the reason in message), `Expired` (nobody approved in time), `Failed` or `RolledBack`."""


class Proposal(Change):
    """A change that waits for an approval (mode Propose)."""

    expires: Time
    """expires is when the proposal lapses if nobody approves it (RFC 3339)."""


class HeldKnob(Record):
    """A knob of an object that Trimtab does not own, while Trimtab sets it; written before the first change of it."""

    target: Text
    """target is the object that has the knob, as `Kind/namespace/name`."""

    knob: Word
    """knob is the name of what is set, e.g. `replicas`."""

    before: Text | None = None
    """before is the value that was in effect before the hold; absent if the field was absent."""

    since: Time
    """since is when the hold began (RFC 3339)."""


class Signal(Record):
    """Whether something that a policy needs to see can be seen; its numbers are metrics."""

    name: Word
    """name is the signal, e.g. `engine/num_requests_waiting`."""

    state: SignalState
    """state is `Fresh`, `Stale` (older than its bound) or `Missing`."""

    last_transition_time: Time
    """lastTransitionTime is when state last changed (RFC 3339)."""

    fail_mode: FailMode = "Hold"
    """failMode is what the policy does without it: `Hold` the last setting, `Ignore` the signal, or `Fallback` to a
    simpler policy. Default: Hold."""


class CommonStatus(Record):
    """What every kind reports. A status holds states; live numbers are metrics."""

    observed_generation: BigCount = 0
    """observedGeneration is the metadata.generation that this status describes; lower than the object's means that the
    operator has not yet looked at the newest spec."""

    conditions: Annotated[tuple[Condition, ...], Field(max_length=16), Keyed(("type",))] = ()
    """conditions are the aspects of the object's state; `Ready` summarizes them. At most 16."""

    recent_decisions: Annotated[tuple[DecisionRecord, ...], Field(max_length=10), Plain()] = ()
    """recentDecisions are the last changes that were decided for this object, newest first. At most 10; `trimtab
    explain` shows what each one saw."""

    proposals: Annotated[tuple[Proposal, ...], Field(max_length=16), Keyed(("id",))] = ()
    """proposals wait for an approval (mode Propose): `trimtab approve OBJECT ID`, or the annotation
    `trimtab.dev/approve: ID`. At most 16."""

    held_knobs: Annotated[tuple[HeldKnob, ...], Field(max_length=64), Keyed(("target", "knob"))] = ()
    """heldKnobs are the knobs of objects that Trimtab does not own and now sets, with the value before. While there is
    one, the finalizer `trimtab.dev/release` is on this object. At most 64."""

    def condition(self, kind: str) -> Condition | None:
        """Return the condition of that type, or None."""
        return next((condition for condition in self.conditions if condition.type == kind), None)


class ServiceLevel(Ruled):
    """A promise to a class of requests; a request picks it by header, by tenant, or gets the default one."""

    name: VariantName
    """name is what requests and tenants refer to, e.g. `interactive`; unique in its list."""

    default: Switch = False
    """default marks the level of requests that name none; at most one level. Default: false."""

    ttft_milliseconds: Milliseconds | None = None
    """ttftMilliseconds is the target for the time to the first token, at `percentile`. 1 to 3600000; absent: none."""

    tpot_milliseconds: Milliseconds | None = None
    """tpotMilliseconds is the target for the mean time per output token after the first, at `percentile`.
    1 to 3600000; absent: none."""

    completion_seconds: Seconds | None = None
    """completionSeconds is the target for the whole answer, from arrival, at `percentile`. 1 to 604800; absent:
    none."""

    percentile: Annotated[int, Field(strict=True, ge=50, le=99)] = 99
    """percentile is the share of requests that must meet the targets, in percent. 50 to 99. Default: 99."""

    weight: Weight = 1
    """weight is how much a miss of this level counts against a miss of others. 1 to 1000. Default: 1."""

    on_overload: Literal["Queue", "Shed", "Degrade"] = "Queue"
    """onOverload is what happens to requests of this level that cannot meet it: `Queue` lets them wait, `Shed` refuses
    them with 429, `Degrade` serves them with a cheaper variant. Default: Queue."""

    preemptible: Switch = False
    """preemptible allows running requests of this level to be put back into the queue for others. Default: false."""

    rules: ClassVar = (
        Rule(
            lambda level: (level.ttft_milliseconds or level.tpot_milliseconds or level.completion_seconds) is not None,
            "has(self.ttftMilliseconds) || has(self.tpotMilliseconds) || has(self.completionSeconds)",
            "serviceLevels[]: a level needs a target: set ttftMilliseconds, tpotMilliseconds or completionSeconds",
        ),
    )


ServiceLevels = Annotated[tuple[ServiceLevel, ...], Field(max_length=16), Keyed()]

ONE_DEFAULT_LEVEL = Rule(
    lambda spec: sum(level.default for level in spec.service_levels) <= 1,
    "!has(self.serviceLevels) || self.serviceLevels.filter(level, level.default).size() <= 1",
    "serviceLevels: at most one level may be the default: set `default: true` on one of them only",
)


class Expression(Ruled):
    """One requirement of a label selector."""

    key: LabelKey
    """key is the label that is looked at."""

    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """operator relates key to values: `In`, `NotIn`, `Exists` or `DoesNotExist`."""

    values: Annotated[tuple[LabelValue, ...], Field(max_length=64), Plain()] = ()
    """values are compared by `In` and `NotIn`, and must be absent for the others. At most 64."""

    rules: ClassVar = (
        Rule(
            lambda expression: bool(expression.values) == (expression.operator in {"In", "NotIn"}),
            "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
            "matchExpressions[].values: In and NotIn need at least one value, Exists and DoesNotExist take none",
        ),
    )


class Selector(Ruled):
    """A Kubernetes label selector: all labels and expressions must match."""

    match_labels: Annotated[Mapping[str, LabelValue], Field(max_length=32)] = {}
    """matchLabels are labels and the values they must have. At most 32."""

    match_expressions: Annotated[tuple[Expression, ...], Field(max_length=32), Plain()] = ()
    """matchExpressions are further requirements. At most 32."""

    rules: ClassVar = (
        Rule(
            lambda selector: all(re.fullmatch(LABEL_KEY, key) for key in selector.match_labels),
            f"!has(self.matchLabels) || self.matchLabels.all(key, key.matches('{LABEL_KEY}'))",
            "matchLabels: a key must be a label name such as `topology.trimtab.dev/row`: correct it",
        ),
    )

    @property
    def empty(self) -> bool:
        """Whether nothing is asked for, so that everything matches."""
        return not self.match_labels and not self.match_expressions

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Say whether an object with these labels is selected."""
        exact = all(labels.get(key) == value for key, value in self.match_labels.items())
        return exact and all(_meets(expression, labels) for expression in self.match_expressions)


def _meets(expression: Expression, labels: Mapping[str, str]) -> bool:
    present = expression.key in labels
    match expression.operator:
        case "Exists":
            return present
        case "DoesNotExist":
            return not present
        case "In":
            return present and labels[expression.key] in expression.values
        case "NotIn":
            return not present or labels[expression.key] not in expression.values


class TargetRef(Record):
    """An object in the same namespace that exists and has a `/scale` subresource."""

    api_version: Annotated[
        str, Field(min_length=1, max_length=253, pattern=r"^([a-z0-9][-.a-z0-9]*/)?v[0-9][a-z0-9]*$")
    ]
    """apiVersion is the group and version of the object, e.g. `apps/v1`."""

    kind: CamelCase
    """kind is the kind of the object, e.g. `Deployment`."""

    name: DnsName
    """name is the name of the object, in the namespace of the resource that refers to it."""


class NameRef(Record):
    """A reference to an object in the same namespace, of the kind that the field says."""

    name: DnsName
    """name is the name of the object."""


ENGINE_CONTAINER = "engine"
MAX_CONTAINERS = 16

_OPEN = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_POD_TEMPLATE = {
    **_OPEN,
    "properties": {
        "spec": {
            **_OPEN,
            "description": "spec is the PodSpec; the API server checks it when the workload is applied.",
            "required": ["containers"],
            "properties": {
                "containers": {
                    "type": "array",
                    "description": "containers are the containers of the pod; the one named `engine` is the server. "
                    f"1 to {MAX_CONTAINERS}.",
                    "minItems": 1,
                    "maxItems": MAX_CONTAINERS,
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                    "items": {
                        **_OPEN,
                        "required": ["name"],
                        "properties": {
                            "name": {
                                "type": "string",
                                "description": "name is the name of the container, a DNS label; unique in the pod.",
                                "minLength": 1,
                                "maxLength": 63,
                            },
                        },
                    },
                },
            },
        },
    },
    "required": ["spec"],
}


def _pod_template(template: dict[str, Any]) -> dict[str, Any]:
    """Refuse what the schema refuses of a template: Trimtab itself reads no further than the containers' names."""
    spec = template.get("spec")
    if not isinstance(spec, dict):
        raise ValueError("spec: Required value: a template needs a PodSpec")  # noqa: TRY004 - pydantic reports a ValueError
    containers = spec.get("containers")
    if not isinstance(containers, list) or not 1 <= len(containers) <= MAX_CONTAINERS:
        raise ValueError(f"spec.containers: must be a list of 1 to {MAX_CONTAINERS} containers")
    names = [one.get("name") if isinstance(one, dict) else None for one in containers]
    for position, name in enumerate(names):
        if not isinstance(name, str) or not name:
            raise ValueError(f"spec.containers[{position}].name: Required value: a container needs a name")
        if name in names[:position]:
            raise ValueError(f"spec.containers[{position}]: Duplicate value: {name} is listed twice")
    return template


class Workload(Ruled):
    """The pods that Trimtab creates and owns."""

    template: Annotated[dict[str, Any], AfterValidator(_pod_template), WithJsonSchema(_POD_TEMPLATE)]
    """template is a PodTemplateSpec; its container named `engine` is the server. Trimtab adds its labels, and the
    arguments and GPUs of the variant in use. A mistake inside shows as `Ready=False`, reason `TemplateInvalid`, with
    the API server's own text."""

    rules: ClassVar = (
        Rule(
            lambda workload: any(one["name"] == ENGINE_CONTAINER for one in workload.template["spec"]["containers"]),
            f"self.template.spec.containers.exists(container, container.name == '{ENGINE_CONTAINER}')",
            "template.spec.containers: the server's container must be named `engine`: rename it, or add one",
        ),
    )


class Query(Record):
    """A Prometheus query that yields one number."""

    prom_ql: Annotated[str, Field(min_length=1, max_length=4096, alias="promQL")]
    """promQL is an instant query; one sample is expected. 1 to 4096 characters."""


class ChangeBudget(Record):
    """How much may change at a time."""

    max_concurrent_percent: Annotated[int, Field(strict=True, ge=1, le=100)] = 10
    """maxConcurrentPercent is the share of the selected pods or nodes that may be changing at once, in percent, rounded
    up. 1 to 100. Default: 10."""

    cooldown_seconds: Annotated[int, Field(strict=True, ge=0, le=86_400)] = 60
    """cooldownSeconds is how long one pod or node is left alone after a change. 0 to 86400. Default: 60."""


class ScaledStatus(CommonStatus):
    """What a kind with a `/scale` subresource reports."""

    replicas: Count = 0
    """replicas is how many pods exist; `/scale` reads it."""

    ready_replicas: Count = 0
    """readyReplicas is how many of them are Ready."""

    selector: Prose = ""
    """selector is the label selector of the pods, as text; `/scale` and HorizontalPodAutoscaler read it."""
