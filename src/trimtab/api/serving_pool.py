"""ServingPool: replicas that serve one or several language models, with service levels and a queue."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from trimtab.api.common import (
    ONE_DEFAULT_LEVEL,
    Attainment,
    PolicySpec,
    ScaledStatus,
    ServiceLevels,
    Signal,
    TargetRef,
    Workload,
)
from trimtab.api.definition import MODE, READY, REASON, Column, Definition
from trimtab.api.wire import (
    SERVICE_NAME_RULE,
    Count,
    CustomObject,
    Keyed,
    LabelValue,
    Milliseconds,
    ModelName,
    Permille,
    Plain,
    Port,
    Positive,
    Record,
    Replicas,
    Rule,
    Ruled,
    Uri,
    VariantName,
    Watts,
    Weight,
    Word,
)


class Engine(Record):
    """The serving engine inside the pods."""

    type: Literal["VLLM", "SGLang", "OpenAI"] = "VLLM"
    """type is the engine: `VLLM`, `SGLang`, or `OpenAI` for anything else that speaks OpenAI's API (fewer signals).
    Default: VLLM."""

    port: Port = 8000
    """port is where the engine answers HTTP on the pod's address. 1 to 65535. Default: 8000."""


class Adapter(Record):
    """A LoRA adapter on top of a model."""

    name: ModelName
    """name is what clients put into `model` to use the adapter; unique in the model."""

    weights: Uri
    """weights is where the adapter comes from, e.g. `pvc://adapters/support`."""


class PrefillTime(Record):
    """The time to read a prompt, as a line over its length."""

    base: Annotated[int, Field(strict=True, ge=0, le=3_600_000)]
    """base is the part that does not depend on the prompt, in milliseconds. 0 to 3600000."""

    per_thousand_tokens: Milliseconds
    """perThousandTokens is the time for each thousand prompt tokens, in milliseconds. 1 to 3600000."""


class SwapTime(Record):
    """The time until a model serves on a replica that does not serve it yet."""

    cold: Annotated[int, Field(strict=True, ge=0, le=86_400)]
    """cold is the time from nothing loaded, in seconds. 0 to 86400."""

    asleep: Annotated[int, Field(strict=True, ge=0, le=86_400)]
    """asleep is the time to wake it from engine sleep, in seconds. 0 to 86400."""


class PowerDraw(Ruled):
    """What one replica draws."""

    idle: Watts
    """idle is the draw of a loaded replica without requests, in watts."""

    busy: Watts
    """busy is the draw at saturation, in watts; at least idle."""

    rules: ClassVar = (
        Rule(
            lambda draw: draw.idle <= draw.busy,
            "self.idle <= self.busy",
            "watts.busy: must be at least watts.idle: a busy replica draws no less than an idle one",
        ),
    )


class Profile(Record):
    """What one replica of a variant does on one kind of accelerator, as measured."""

    accelerator: Annotated[LabelValue, Field(min_length=1)]
    """accelerator is a value of the node label `trimtab.dev/accelerator`, e.g. `nvidia-h100`; unique in the variant."""

    output_tokens_per_second: Positive | None = None
    """outputTokensPerSecond is the output rate of one replica at saturation. At least 1; absent: learned."""

    prefill_milliseconds: PrefillTime | None = None
    """prefillMilliseconds is the time to read a prompt; absent: learned."""

    decode_milliseconds_per_token: Milliseconds | None = None
    """decodeMillisecondsPerToken is the time between two tokens of one request at `concurrency`, in milliseconds.
    1 to 3600000; absent: learned."""

    concurrency: Positive | None = None
    """concurrency is how many requests one replica runs at once. At least 1; absent: learned."""

    swap_in_seconds: SwapTime | None = None
    """swapInSeconds is the time until the model serves on a replica; absent: learned."""

    watts: PowerDraw | None = None
    """watts is what one replica draws. Placement charges `busy` to the power domains of the node, the highest of all
    models and variants; an accelerator without a profile takes the highest of the others. The pod's annotation
    `trimtab.dev/watts` wins over all of this."""


class Variant(Record):
    """One way to serve a model: other precision, size or parallelism."""

    name: VariantName
    """name is the name of the variant, e.g. `bf16-tp4`; unique in the model."""

    args: Annotated[tuple[Annotated[str, Field(max_length=1024)], ...], Field(max_length=64), Plain()] = ()
    """args are appended to the arguments of the container `engine`. At most 64."""

    gpus: Annotated[int, Field(strict=True, ge=0, le=64)] = 1
    """gpus is how many accelerators one replica requests. 0 to 64. Default: 1."""

    quality_permille: Annotated[int, Field(strict=True, ge=1, le=1000)] = 1000
    """qualityPermille is the quality of the answers against the best variant, in thousandths. 1 to 1000.
    Default: 1000."""

    profiles: Annotated[tuple[Profile, ...], Field(max_length=16), Keyed(("accelerator",))] = ()
    """profiles are what a replica does on each kind of accelerator. At most 16; absent: learned online, see
    status.models[].learnedProfile."""


class ServedModel(Ruled):
    """A model that the pool serves."""

    name: ModelName
    """name is what clients put into `model`; unique in the pool."""

    weights: Uri | None = None
    """weights is where the weights come from, e.g. `hf://meta-llama/Llama-3.1-8B-Instruct`; absent: the template
    knows."""

    adapters: Annotated[tuple[Adapter, ...], Field(max_length=64), Keyed()] = ()
    """adapters are LoRA adapters that clients may ask for. At most 64."""

    min_quality_permille: Permille | None = None
    """minQualityPermille is how far the quality may go down under a power or heat limit, in thousandths of the best
    variant. 0 to 1000; absent: only the first variant is used."""

    variants: Annotated[tuple[Variant, ...], Field(max_length=16), Keyed()] = ()
    """variants are the ways to serve the model, best quality first. At most 16; absent: the template is the only
    one."""

    rules: ClassVar = (
        Rule(
            lambda model: _falling([variant.quality_permille for variant in model.variants]),
            "!has(self.variants) || self.variants.map(variant, 1000 - variant.qualityPermille).isSorted()",
            "models[].variants: list the variants by falling qualityPermille, best first",
        ),
        Rule(
            lambda model: (
                model.min_quality_permille is None
                or not model.variants
                or model.variants[0].quality_permille >= model.min_quality_permille
            ),
            "!has(self.minQualityPermille) || !has(self.variants) || size(self.variants) == 0"
            " || self.variants.exists(variant, variant.qualityPermille >= self.minQualityPermille)",
            "models[].minQualityPermille: no variant reaches it: lower it, or add a better variant",
        ),
    )


def _falling(numbers: list[int]) -> bool:
    return numbers == sorted(numbers, reverse=True)


class Scaling(Ruled):
    """Who decides the number of replicas."""

    policy: Literal["WaitingTime", "External", "Fixed"] = "Fixed"
    """policy is who decides: `Fixed` (spec.replicas, as people write it), `External` (an autoscaler, through `/scale`)
    or `WaitingTime` (Trimtab, from the predicted waiting time). Default: Fixed."""

    min_replicas: Replicas | None = None
    """minReplicas is the lower bound under External and WaitingTime. 0 to 10000; absent: no bound; WaitingTime needs
    it."""

    max_replicas: Annotated[int, Field(strict=True, ge=1, le=10_000)] | None = None
    """maxReplicas is the upper bound under External and WaitingTime. 1 to 10000; absent: no bound; WaitingTime needs
    it."""

    scale_down_window_seconds: Annotated[int, Field(strict=True, ge=0, le=86_400)] = 300
    """scaleDownWindowSeconds is how long fewer replicas must have been enough before one is removed (WaitingTime).
    0 to 86400. Default: 300."""

    rules: ClassVar = (
        Rule(
            lambda scaling: (
                scaling.min_replicas is None
                or scaling.max_replicas is None
                or scaling.min_replicas <= scaling.max_replicas
            ),
            "!has(self.minReplicas) || !has(self.maxReplicas) || self.minReplicas <= self.maxReplicas",
            "scaling.minReplicas: must not exceed scaling.maxReplicas: lower one or raise the other",
        ),
        Rule(
            lambda scaling: (
                scaling.policy != "WaitingTime"
                or (scaling.min_replicas is not None and scaling.max_replicas is not None)
            ),
            "self.policy != 'WaitingTime' || (has(self.minReplicas) && has(self.maxReplicas))",
            "scaling.maxReplicas: policy WaitingTime needs bounds: set scaling.minReplicas and scaling.maxReplicas",
        ),
    )


class Queue(Record):
    """How waiting requests are ordered and bounded, at the gateway."""

    policy: Literal["QLM", "EDF", "FCFS"] = "FCFS"
    """policy orders groups of requests: `FCFS` by arrival, `EDF` by deadline, `QLM` by predicted waiting time and the
    models that are loaded. Default: FCFS."""

    order_within_group: Literal["SSJF", "FCFS"] = "FCFS"
    """orderWithinGroup orders requests of one group: `FCFS` by arrival, `SSJF` by predicted length. Default: FCFS."""

    aging_factor: Annotated[int, Field(strict=True, ge=0, le=1000)] = 10
    """agingFactor is the weight of the predicted time against the arrival time under SSJF; lower favors those who wait.
    0 to 1000. Default: 10."""

    max_waiting_seconds: Annotated[int, Field(strict=True, ge=1, le=86_400)] = 600
    """maxWaitingSeconds is how long a request may wait before it is refused with 429. 1 to 86400. Default: 600."""

    max_requests: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] = 5000
    """maxRequests is how many requests may wait; one more is refused with 429. 1 to 1000000. Default: 5000."""


class Tenant(Record):
    """A client of the pool, as the gateway knows it by its key or header."""

    name: VariantName
    """name is the name of the tenant; unique in the pool."""

    weight: Weight = 1
    """weight is the tenant's share against other tenants under overload. 1 to 1000. Default: 1."""

    service_levels: Annotated[tuple[VariantName, ...], Field(max_length=16), Plain("set")] = ()
    """serviceLevels are the levels that the tenant may use, by name; the first is its default. At most 16; absent:
    all of them."""


class PowerConsent(Record):
    """What power and heat control may do with the pool."""

    flexibility: Literal["Flexible", "Opaque"] = "Opaque"
    """flexibility says whether variants and clocks of the pool may be changed under a power or heat limit: `Flexible`,
    or `Opaque` to leave it alone. Default: Opaque."""


class ServingPoolSpec(PolicySpec):
    """What the pool serves, with what, and how well."""

    engine: Engine = Engine()
    """engine is the serving engine inside the pods. Default: VLLM on port 8000."""

    workload: Workload | None = None
    """workload describes pods that Trimtab creates and owns: a Deployment, a headless Service and a
    PodDisruptionBudget. Exactly one of workload and targetRef."""

    target_ref: TargetRef | None = None
    """targetRef names an existing object with `/scale` in this namespace, whose replicas the pool sets without owning
    it. Exactly one of workload and targetRef."""

    models: Annotated[tuple[ServedModel, ...], Field(min_length=1, max_length=16), Keyed()]
    """models are what the pool serves; with more than one, replicas swap between them. 1 to 16."""

    replicas: Replicas | None = None
    """replicas is how many pods there should be: written by people under Fixed, by an autoscaler through `/scale` under
    External, and only the start value under WaitingTime. 0 to 10000; no default."""

    scaling: Scaling = Scaling()
    """scaling says who decides the number of replicas. Default: Fixed."""

    service_levels: ServiceLevels = ()
    """serviceLevels are what is promised to which class of requests. At most 16; absent: best effort."""

    queue: Queue = Queue()
    """queue is how waiting requests are ordered and bounded. Default: first come, first served; 5000 requests."""

    tenants: Annotated[tuple[Tenant, ...], Field(max_length=64), Keyed()] = ()
    """tenants are the clients that are told apart. At most 64; absent: all clients are one tenant."""

    power: PowerConsent = PowerConsent()
    """power is what power and heat control may do with the pool. Default: nothing."""

    rules: ClassVar = (
        Rule(
            lambda spec: (spec.workload is None) != (spec.target_ref is None),
            "has(self.workload) != has(self.targetRef)",
            "spec.workload: set exactly one of workload (pods that the pool owns) and targetRef (an existing object)",
        ),
        Rule(
            lambda spec: spec.scaling.policy != "Fixed" or spec.replicas is not None,
            "self.scaling.policy != 'Fixed' || has(self.replicas)",
            "spec.replicas: scaling policy Fixed needs it: set replicas, or choose External or WaitingTime",
        ),
        Rule(
            lambda spec: _unknown_levels(spec) == set(),
            "!has(self.tenants) || self.tenants.all(tenant, !has(tenant.serviceLevels)"
            " || tenant.serviceLevels.all(name,"
            " has(self.serviceLevels) && self.serviceLevels.exists(level, level.name == name)))",
            "tenants[].serviceLevels: each name must be one of spec.serviceLevels: add the level, or correct the name",
        ),
        ONE_DEFAULT_LEVEL,
    )

    @property
    def declared_concurrency(self) -> int | None:
        """What every replica can run at once by the profiles: which variant and accelerator a pod has is unknown."""
        declared = [
            profile.concurrency
            for model in self.models
            for variant in model.variants
            for profile in variant.profiles
            if profile.concurrency is not None
        ]
        return min(declared, default=None)


def _unknown_levels(spec: ServingPoolSpec) -> set[str]:
    known = {level.name for level in spec.service_levels}
    return {name for tenant in spec.tenants for name in tenant.service_levels} - known


class ModelStatus(Record):
    """How one model of the pool is served."""

    name: ModelName
    """name is the model's name in spec.models."""

    variant: Word = ""
    """variant is the name of the variant in use; empty if the template is the only one."""

    awake_on: Count = 0
    """awakeOn is on how many replicas the model serves."""

    asleep_on: Count = 0
    """asleepOn is on how many replicas it is in engine sleep."""

    learned_profile: Profile | None = None
    """learnedProfile is what was measured where spec gives no profile; absent until enough was seen."""


class LevelStatus(Record):
    """How one service level is kept."""

    name: VariantName
    """name is the level's name in spec.serviceLevels."""

    state: Attainment
    """state is `Met`, `AtRisk`, `Violated`, or `Unknown` without data."""

    attainment_permille: Permille | None = None
    """attainmentPermille is the share of recent requests that met the level, in thousandths; absent without data."""


class ServingPoolStatus(ScaledStatus):
    """What is true of the pool.

    Conditions: Ready, ObjectivesMet, TelemetryFresh, CapacityAvailable, KnobContested, WithinPower.
    """

    models: Annotated[tuple[ModelStatus, ...], Field(max_length=16), Keyed()] = ()
    """models are how each model is served. At most 16."""

    service_levels: Annotated[tuple[LevelStatus, ...], Field(max_length=16), Keyed()] = ()
    """serviceLevels are how each level is kept. At most 16."""

    signals: Annotated[tuple[Signal, ...], Field(max_length=32), Keyed()] = ()
    """signals are what the pool's policies need to see, and whether they can. At most 32."""


class ServingPool(CustomObject):
    """A ServingPool is a set of replicas that serve one or several language models, with service levels and a queue.

    It either owns its pods (workload) or attaches to an object that exists (targetRef).
    """

    api_version: Literal["trimtab.dev/v1alpha1"] = "trimtab.dev/v1alpha1"
    kind: Literal["ServingPool"] = "ServingPool"
    spec: ServingPoolSpec
    """spec is what the pool serves, with what, and how well."""
    status: ServingPoolStatus = ServingPoolStatus()
    """status is what is true of the pool; written by the operator."""

    rules: ClassVar = (SERVICE_NAME_RULE,)


SERVING_POOL = Definition(
    model=ServingPool,
    plural="servingpools",
    short="spool",
    namespaced=True,
    scaled=True,
    columns=(
        READY,
        REASON,
        Column("Desired", ".spec.replicas", "Replicas asked for.", "integer"),
        Column("Ready Replicas", ".status.readyReplicas", "Replicas that are Ready.", "integer"),
        Column(
            "Objectives", '.status.conditions[?(@.type=="ObjectivesMet")].status', "Whether service levels are met."
        ),
        MODE,
    ),
)
