"""Good and bad custom resources, each as a small change of a minimal one: one table for pydantic and the API server.

A bad one names the field that both must name in what they answer.
"""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from trimtab.api import (
    MicroserviceSLO,
    MultimodalPipeline,
    MultimodalStage,
    NodePolicy,
    NodeState,
    PowerDomain,
    ServingPool,
    SharedBudget,
)
from trimtab.api.keys import GROUP, VERSION
from trimtab.api.wire import CustomObject

MODELS: dict[str, type[CustomObject]] = {
    model.__name__: model
    for model in (
        ServingPool,
        MultimodalPipeline,
        MultimodalStage,
        MicroserviceSLO,
        PowerDomain,
        SharedBudget,
        NodePolicy,
        NodeState,
    )
}

WORKLOAD = {"template": {"spec": {"containers": [{"name": "engine", "image": "engine:1"}]}}}
SELECTOR = {"matchLabels": {"app": "shop"}}

MINIMAL: dict[str, dict[str, Any]] = {
    "ServingPool": {"workload": WORKLOAD, "models": [{"name": "llama"}], "replicas": 1},
    "MultimodalPipeline": {
        "model": {"name": "internvl", "architecture": "DecoderOnly"},
        "stages": [{"name": "text", "role": "PrefillDecode", "workload": WORKLOAD, "maxReplicas": 4}],
    },
    "MultimodalStage": {"role": "ImageEncode", "workload": WORKLOAD},
    "MicroserviceSLO": {
        "application": {"selector": SELECTOR},
        "entry": {"service": "frontend", "operation": "POST /cart/checkout"},
        "objective": {"latencyMilliseconds": 250},
    },
    "PowerDomain": {"type": "Row", "nodes": SELECTOR, "limits": {"powerWatts": 180_000}},
    "SharedBudget": {
        "resource": "GPU",
        "capacity": 64,
        "members": [{"namespace": "ai", "poolRef": {"name": "chat"}}],
    },
    "NodePolicy": {"nodes": SELECTOR, "accelerators": {"minWatts": 300}},
    "NodeState": {"knobs": [{"name": "gpu/0/clock-mhz", "value": "900", "onSilence": "Hold"}]},
}

ABSENT = object()
"""The value of a change that removes the field."""


@dataclass(frozen=True)
class Case:
    """One object of the table.

    Attributes:
        kind: its kind.
        title: what is special about it.
        changes: dotted path to new value, applied to the minimal object of the kind; numbers are list positions.
        field: the field that is wrong, as both validators must name it; empty for a good object.
    """

    kind: str
    title: str
    changes: dict[str, Any]
    field: str = ""

    @property
    def good(self) -> bool:
        return not self.field

    def __str__(self) -> str:
        return f"{self.kind}: {self.title}"

    def document(self, namespace: str = "ai") -> dict[str, Any]:
        """The whole object, as a person would write it."""
        document = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": self.kind,
            "metadata": {"name": "sample"},
            "spec": deepcopy(MINIMAL[self.kind]),
        }
        if self.kind in {"ServingPool", "MultimodalPipeline", "MultimodalStage", "MicroserviceSLO"}:
            document["metadata"]["namespace"] = namespace
        for path, value in self.changes.items():
            _set(document, path.split("."), value)
        return document


def _set(node: Any, path: list[str], value: Any) -> None:
    head, *rest = path
    key: Any = int(head) if isinstance(node, list) else head
    if rest:
        if isinstance(node, dict):
            node.setdefault(key, {})
        _set(node[key], rest, value)
    elif value is ABSENT:
        del node[key]
    elif isinstance(node, list) and key == len(node):
        node.append(deepcopy(value))
    else:
        node[key] = deepcopy(value)


def _cases(kind: str, *rows: tuple[Any, ...]) -> list[Case]:
    return [Case(kind, *row) for row in rows]


LEVEL = {"name": "interactive", "ttftMilliseconds": 2000}
STAGE = MINIMAL["MultimodalPipeline"]["stages"][0]
PROFILE = {"accelerator": "nvidia-h100", "outputTokensPerSecond": 9800, "watts": {"idle": 480, "busy": 2600}}
FULL_POOL = {
    "spec.mode": "Enforce",
    "spec.engine": {"type": "VLLM", "port": 8000},
    "spec.models": [
        {
            "name": "meta-llama/Llama-3.1-8B",
            "weights": "hf://meta-llama/Llama-3.1-8B-Instruct",
            "adapters": [{"name": "support-bot", "weights": "pvc://adapters/support"}],
            "minQualityPermille": 970,
            "variants": [
                {
                    "name": "bf16-tp4",
                    "args": ["--tensor-parallel-size=4"],
                    "gpus": 4,
                    "qualityPermille": 1000,
                    "profiles": [
                        PROFILE
                        | {
                            "prefillMilliseconds": {"base": 18, "perThousandTokens": 42},
                            "decodeMillisecondsPerToken": 24,
                            "concurrency": 128,
                            "swapInSeconds": {"cold": 65, "asleep": 3},
                        }
                    ],
                },
                {"name": "fp8-tp2", "gpus": 2, "qualityPermille": 985},
            ],
        }
    ],
    "spec.replicas": 3,
    "spec.scaling": {"policy": "WaitingTime", "minReplicas": 1, "maxReplicas": 8, "scaleDownWindowSeconds": 300},
    "spec.serviceLevels": [
        LEVEL | {"default": True, "tpotMilliseconds": 60, "percentile": 99, "weight": 10, "onOverload": "Queue"},
        {"name": "batch", "completionSeconds": 3600, "preemptible": True},
    ],
    "spec.queue": {
        "policy": "QLM",
        "orderWithinGroup": "SSJF",
        "agingFactor": 10,
        "maxWaitingSeconds": 600,
        "maxRequests": 5000,
    },
    "spec.tenants": [{"name": "search", "weight": 3, "serviceLevels": ["interactive"]}],
    "spec.power": {"flexibility": "Flexible"},
}

CASES: list[Case] = [
    *_cases(
        "ServingPool",
        ("minimal", {}),
        ("everything set", FULL_POOL),
        ("no replicas", {"spec.replicas": 0}),
        ("attached", {"spec.workload": ABSENT, "spec.targetRef": {"apiVersion": "apps/v1", "kind": "D", "name": "x"}}),
        ("external, without replicas", {"spec.scaling": {"policy": "External"}, "spec.replicas": ABSENT}),
        ("scales to zero", {"spec.scaling": {"policy": "WaitingTime", "minReplicas": 0, "maxReplicas": 1}}),
        ("equal variants", {"spec.models.0.variants": [{"name": "a"}, {"name": "b"}]}),
        ("no GPU", {"spec.models.0.variants": [{"name": "cpu", "gpus": 0}]}),
        ("longest name", {"metadata.name": "a" * 63}),
        ("tenant with every level", {"spec.tenants": [{"name": "search"}]}),
        (
            "template with anything",
            {"spec.workload.template.spec.hostIPC": True, "spec.workload.template.metadata": {}},
        ),
        ("null is absent", {"spec.targetRef": None, "spec.queue": None, "spec.models.0.variants": None}),
        ("templates are checked later", {"spec.workload.template.spec.containers.0.image": 7}),
        ("name too long", {"metadata.name": "a" * 64}, "metadata.name"),
        ("name begins with a digit", {"metadata.name": "1chat"}, "metadata.name"),
        ("name with a dot", {"metadata.name": "chat.one"}, "metadata.name"),
        ("no spec", {"spec": ABSENT}, "spec"),
        ("unknown mode", {"spec.mode": "enforce"}, "spec.mode"),
        ("unknown deletion policy", {"spec.deletionPolicy": "Delete"}, "spec.deletionPolicy"),
        ("unknown field", {"spec.replica": 3}, "spec.replica"),
        ("snake case", {"spec.target_ref": {}}, "spec.target_ref"),
        ("replicas as text", {"spec.replicas": "3"}, "spec.replicas"),
        ("replicas as a fraction", {"spec.replicas": 2.5}, "spec.replicas"),
        ("negative replicas", {"spec.replicas": -1}, "spec.replicas"),
        ("too many replicas", {"spec.replicas": 10_001}, "spec.replicas"),
        ("fixed without replicas", {"spec.replicas": ABSENT}, "spec.replicas"),
        ("neither workload nor target", {"spec.workload": ABSENT}, "spec.workload"),
        (
            "both workload and target",
            {"spec.targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"}},
            "spec.workload",
        ),
        ("template without spec", {"spec.workload.template": {}}, "spec.workload.template"),
        ("template as text", {"spec.workload.template": "pod"}, "spec.workload.template"),
        ("template without containers", {"spec.workload.template.spec": {}}, "spec.containers"),
        ("no containers", {"spec.workload.template.spec.containers": []}, "spec.containers"),
        (
            "container without a name",
            {"spec.workload.template.spec.containers": [{"image": "x"}]},
            "spec.containers[0].name",
        ),
        (
            "two containers of one name",
            {"spec.workload.template.spec.containers.1": {"name": "engine"}},
            "spec.containers[1]",
        ),
        (
            "no container called engine",
            {"spec.workload.template.spec.containers.0.name": "server"},
            "template.spec.containers",
        ),
        ("no template", {"spec.workload": {}}, "spec.workload.template"),
        (
            "target without a kind",
            {"spec.workload": ABSENT, "spec.targetRef": {"apiVersion": "apps/v1", "name": "x"}},
            "spec.targetRef.kind",
        ),
        (
            "target with a bad version",
            {"spec.workload": ABSENT, "spec.targetRef": {"apiVersion": "apps", "kind": "D", "name": "x"}},
            "spec.targetRef.apiVersion",
        ),
        ("unknown engine", {"spec.engine": {"type": "vllm"}}, "spec.engine.type"),
        ("port zero", {"spec.engine": {"port": 0}}, "spec.engine.port"),
        ("port too high", {"spec.engine": {"port": 65_536}}, "spec.engine.port"),
        ("no models", {"spec.models": []}, "spec.models"),
        ("models absent", {"spec.models": ABSENT}, "spec.models"),
        ("models null", {"spec.models": None}, "spec.models"),
        ("models no list", {"spec.models": {"name": "x"}}, "spec.models"),
        ("seventeen models", {"spec.models": [{"name": f"m{i}"} for i in range(17)]}, "spec.models"),
        ("model twice", {"spec.models.1": {"name": "llama"}}, "spec.models"),
        ("model without a name", {"spec.models.0": {}}, "spec.models[0].name"),
        ("model name with a space", {"spec.models.0.name": "my model"}, "spec.models[0].name"),
        ("weights are no address", {"spec.models.0.weights": "/models/llama"}, "spec.models[0].weights"),
        (
            "adapter twice",
            {"spec.models.0.adapters": [{"name": "a", "weights": "hf://a"}, {"name": "a", "weights": "hf://b"}]},
            "spec.models[0].adapters",
        ),
        ("adapter without weights", {"spec.models.0.adapters": [{"name": "a"}]}, "spec.models[0].adapters[0].weights"),
        (
            "variants by rising quality",
            {"spec.models.0.variants": [{"name": "a", "qualityPermille": 900}, {"name": "b", "qualityPermille": 950}]},
            "models[].variants",
        ),
        (
            "quality out of reach",
            {
                "spec.models.0.minQualityPermille": 990,
                "spec.models.0.variants": [{"name": "a", "qualityPermille": 980}],
            },
            "models[].minQualityPermille",
        ),
        ("variant twice", {"spec.models.0.variants": [{"name": "a"}, {"name": "a"}]}, "spec.models[0].variants"),
        (
            "quality above 1000",
            {"spec.models.0.variants": [{"name": "a", "qualityPermille": 1001}]},
            "spec.models[0].variants[0].qualityPermille",
        ),
        (
            "negative GPUs",
            {"spec.models.0.variants": [{"name": "a", "gpus": -1}]},
            "spec.models[0].variants[0].gpus",
        ),
        (
            "busy below idle",
            {
                "spec.models.0.variants": [
                    {"name": "a", "profiles": [{"accelerator": "h100", "watts": {"idle": 9, "busy": 8}}]}
                ]
            },
            "watts.busy",
        ),
        (
            "profile twice",
            {"spec.models.0.variants": [{"name": "a", "profiles": [PROFILE, PROFILE]}]},
            "spec.models[0].variants[0].profiles",
        ),
        (
            "argument no text",
            {"spec.models.0.variants": [{"name": "a", "args": [4]}]},
            "spec.models[0].variants[0].args[0]",
        ),
        ("unknown scaling policy", {"spec.scaling": {"policy": "Auto"}}, "spec.scaling.policy"),
        (
            "bounds crossed",
            {"spec.scaling": {"policy": "External", "minReplicas": 5, "maxReplicas": 2}},
            "scaling.minReplicas",
        ),
        ("waiting time without bounds", {"spec.scaling": {"policy": "WaitingTime"}}, "scaling.maxReplicas"),
        ("at most none", {"spec.scaling": {"maxReplicas": 0}}, "spec.scaling.maxReplicas"),
        (
            "endless window",
            {"spec.scaling": {"scaleDownWindowSeconds": 86_401}},
            "spec.scaling.scaleDownWindowSeconds",
        ),
        ("level without a target", {"spec.serviceLevels": [{"name": "fast"}]}, "serviceLevels[]"),
        ("level twice", {"spec.serviceLevels": [LEVEL, LEVEL]}, "spec.serviceLevels"),
        (
            "two default levels",
            {"spec.serviceLevels": [LEVEL | {"default": True}, LEVEL | {"name": "b", "default": True}]},
            "serviceLevels",
        ),
        (
            "default as text",
            {"spec.serviceLevels": [LEVEL | {"default": "true"}]},
            "spec.serviceLevels[0].default",
        ),
        ("target of zero", {"spec.serviceLevels": [LEVEL | {"ttftMilliseconds": 0}]}, "spec.serviceLevels[0].ttft"),
        ("percentile 100", {"spec.serviceLevels": [LEVEL | {"percentile": 100}]}, "spec.serviceLevels[0].percentile"),
        (
            "unknown overload behavior",
            {"spec.serviceLevels": [LEVEL | {"onOverload": "Drop"}]},
            "spec.serviceLevels[0].onOverload",
        ),
        ("weight of zero", {"spec.serviceLevels": [LEVEL | {"weight": 0}]}, "spec.serviceLevels[0].weight"),
        ("unknown queue policy", {"spec.queue": {"policy": "LIFO"}}, "spec.queue.policy"),
        ("empty queue", {"spec.queue": {"maxRequests": 0}}, "spec.queue.maxRequests"),
        ("no waiting", {"spec.queue": {"maxWaitingSeconds": 0}}, "spec.queue.maxWaitingSeconds"),
        ("aging too strong", {"spec.queue": {"agingFactor": 1001}}, "spec.queue.agingFactor"),
        (
            "tenant of an unknown level",
            {"spec.serviceLevels": [LEVEL], "spec.tenants": [{"name": "a", "serviceLevels": ["batch"]}]},
            "tenants[].serviceLevels",
        ),
        (
            "tenant of a level, and none is defined",
            {"spec.tenants": [{"name": "a", "serviceLevels": ["batch"]}]},
            "tenants[].serviceLevels",
        ),
        ("tenant twice", {"spec.tenants": [{"name": "a"}, {"name": "a"}]}, "spec.tenants"),
        (
            "tenant's level twice",
            {"spec.serviceLevels": [LEVEL], "spec.tenants": [{"name": "a", "serviceLevels": ["interactive"] * 2}]},
            "spec.tenants[0].serviceLevels",
        ),
        ("unknown flexibility", {"spec.power": {"flexibility": "Yes"}}, "spec.power.flexibility"),
    ),
    *_cases(
        "MultimodalPipeline",
        ("minimal", {}),
        (
            "everything set",
            {
                "spec.media": {"image": {"preset": "InternVL2_5"}},
                "spec.serviceLevels": [LEVEL],
                "spec.stages.1": {
                    "name": "encode",
                    "role": "ImageEncode",
                    "workload": WORKLOAD,
                    "minReplicas": 0,
                    "maxReplicas": 48,
                    "tensorParallel": {"auto": [1, 2, 4]},
                    "maxBatch": {"auto": True},
                    "profiles": [
                        {
                            "accelerator": "nvidia-h100",
                            "tensorParallel": 1,
                            "batch": 8,
                            "latencyMilliseconds": 90,
                            "capacityTokensPerSecond": 40_000,
                        }
                    ],
                    "colocateWith": "text",
                },
                "spec.scaling": {"periodSeconds": 300, "attainmentTriggerPermille": 990, "maxStepDownPercent": 25},
                "spec.transport": "RDMA",
            },
        ),
        ("tiling in numbers", {"spec.media": {"image": {"tile": 448, "tokensPerTile": 256, "maxTiles": 12}}}),
        (
            "prefill and decode apart",
            {"spec.stages.0.role": "Prefill", "spec.stages.1": STAGE | {"name": "decode", "role": "Decode"}},
        ),
        ("no path", {"spec.stages.0.role": "ImageEncode"}, "spec.stages"),
        ("prefill alone", {"spec.stages.0.role": "Prefill"}, "spec.stages"),
        ("no stages", {"spec.stages": []}, "spec.stages"),
        ("stage twice", {"spec.stages.1": STAGE}, "spec.stages"),
        ("unknown role", {"spec.stages.0.role": "Encode"}, "spec.stages[0].role"),
        ("bounds crossed", {"spec.stages.0.minReplicas": 5}, "stages[].minReplicas"),
        ("no upper bound", {"spec.stages.0.maxReplicas": ABSENT}, "spec.stages[0].maxReplicas"),
        ("beside itself", {"spec.stages.0.colocateWith": "text"}, "stages[].colocateWith"),
        ("beside nobody", {"spec.stages.0.colocateWith": "vision"}, "stages[].colocateWith"),
        ("no degree", {"spec.stages.0.tensorParallel": {}}, "tensorParallel.fixed"),
        ("two kinds of degree", {"spec.stages.0.tensorParallel": {"fixed": 1, "auto": [1, 2]}}, "tensorParallel.fixed"),
        ("degree twice", {"spec.stages.0.tensorParallel": {"auto": [2, 2]}}, "spec.stages[0].tensorParallel.auto"),
        ("no batch", {"spec.stages.0.maxBatch": {"auto": False}}, "maxBatch.fixed"),
        (
            "preset and numbers",
            {"spec.media": {"image": {"preset": "Llama3_2", "tile": 560}}},
            "media.image.preset",
        ),
        ("half a tiling", {"spec.media": {"image": {"tile": 448, "maxTiles": 2}}}, "media.image.preset"),
        ("unknown preset", {"spec.media": {"image": {"preset": "GPT"}}}, "spec.media.image.preset"),
        ("no model", {"spec.model": ABSENT}, "spec.model"),
        ("unknown architecture", {"spec.model.architecture": "Encoder"}, "spec.model.architecture"),
        ("unknown transport", {"spec.transport": "UDP"}, "spec.transport"),
        ("hasty plans", {"spec.scaling": {"periodSeconds": 1}}, "spec.scaling.periodSeconds"),
    ),
    *_cases(
        "MultimodalStage",
        ("minimal", {}),
        ("of a pipeline", {"spec.pipelineRef": {"name": "internvl"}, "spec.replicas": 0}),
        ("no role", {"spec.role": ABSENT}, "spec.role"),
        ("no workload", {"spec.workload": ABSENT}, "spec.workload"),
        ("pipeline without a name", {"spec.pipelineRef": {}}, "spec.pipelineRef.name"),
        ("negative replicas", {"spec.replicas": -2}, "spec.replicas"),
        ("name begins with a digit", {"metadata.name": "0encode"}, "metadata.name"),
    ),
    *_cases(
        "MicroserviceSLO",
        ("minimal", {}),
        (
            "everything set",
            {
                "spec.objective": {"latencyMilliseconds": 250, "percentile": 99, "windowSeconds": 30},
                "spec.traces": {"source": "Jaeger", "url": "http://jaeger.observability:16686"},
                "spec.localization": {"minTraces": 30, "maxSuspects": 3},
                "spec.mitigation": {
                    "policy": "Auto",
                    "cpu": {"min": "100m", "max": "4", "maxStepPercent": 25},
                    "memory": {"min": "128Mi", "max": "8Gi"},
                    "replicas": {"min": 1, "max": 20},
                    "carryTo": "Template",
                    "memoryBandwidth": {"minPercent": 10},
                    "cache": {"minWays": 2},
                    "egress": {"minMbps": 50},
                    "budget": {"maxConcurrentPercent": 10, "cooldownSeconds": 60},
                },
            },
        ),
        ("CPU as a number", {"spec.mitigation": {"cpu": {"min": 1, "max": 4}}}),
        ("fractions of a core", {"spec.mitigation": {"cpu": {"min": "0.5", "max": "1500m"}}}),
        (
            "selected by expression",
            {
                "spec.application.selector": {
                    "matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "b"]}]
                }
            },
        ),
        ("CPU bounds crossed", {"spec.mitigation": {"cpu": {"min": "2", "max": "1500m"}}}, "cpu.min"),
        ("memory bounds crossed", {"spec.mitigation": {"memory": {"min": "1Gi", "max": "1G"}}}, "memory.min"),
        ("replica bounds crossed", {"spec.mitigation": {"replicas": {"min": 3, "max": 2}}}, "replicas.min"),
        ("CPU in words", {"spec.mitigation": {"cpu": {"min": "two", "max": "4"}}}, "spec.mitigation.cpu.min"),
        (
            "negative memory",
            {"spec.mitigation": {"memory": {"min": "-1Gi", "max": "4Gi"}}},
            "spec.mitigation.memory.min",
        ),
        ("everybody selected", {"spec.application.selector": {}}, "application.selector"),
        ("no selector", {"spec.application": {}}, "spec.application.selector"),
        (
            "In without values",
            {"spec.application.selector": {"matchExpressions": [{"key": "app", "operator": "In"}]}},
            "matchExpressions[].values",
        ),
        (
            "Exists with values",
            {"spec.application.selector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}},
            "matchExpressions[].values",
        ),
        (
            "unknown operator",
            {"spec.application.selector": {"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}},
            "spec.application.selector.matchExpressions[0].operator",
        ),
        ("bad label key", {"spec.application.selector": {"matchLabels": {"a b": "c"}}}, "matchLabels"),
        ("bad label value", {"spec.application.selector": {"matchLabels": {"a": "b c"}}}, "matchLabels.a"),
        ("no operation", {"spec.entry.operation": ABSENT}, "spec.entry.operation"),
        ("empty operation", {"spec.entry.operation": ""}, "spec.entry.operation"),
        ("no objective", {"spec.objective": {}}, "spec.objective.latencyMilliseconds"),
        ("Jaeger without an address", {"spec.traces": {"source": "Jaeger"}}, "traces.url"),
        ("OTLP with an address", {"spec.traces": {"url": "http://x"}}, "traces.url"),
        ("address of another kind", {"spec.traces": {"source": "Tempo", "url": "ftp://x"}}, "spec.traces.url"),
        ("no suspects", {"spec.localization": {"maxSuspects": 0}}, "spec.localization.maxSuspects"),
        ("step of zero", {"spec.mitigation": {"cpu": {"min": 1, "max": 2, "maxStepPercent": 0}}}, "cpu.maxStepPercent"),
        ("unknown carrier", {"spec.mitigation": {"carryTo": "Node"}}, "spec.mitigation.carryTo"),
    ),
    *_cases(
        "PowerDomain",
        ("minimal", {}),
        (
            "everything set",
            {
                "spec.parent": "site-a",
                "spec.limits": {"powerWatts": 180_000, "airflowCFM": 42_000, "inletCelsius": 27, "gpuCelsius": 83},
                "spec.marginPercent": 5,
                "spec.signals": {"power": {"promQL": "sum(w)"}, "inlet": {"promQL": "t"}, "outside": {"promQL": "o"}},
                "spec.derate": {
                    "powerPercent": 75,
                    "airflowPercent": 80,
                    "reason": "UPS-2 lost",
                    "until": "2031-01-01T00:00:00Z",
                },
            },
        ),
        ("a site of every node", {"spec.type": "Site", "spec.nodes": {}}),
        ("no margin", {"spec.marginPercent": 0}),
        ("frost", {"spec.limits": {"inletCelsius": -20}}),
        ("a row of every node", {"spec.nodes": {}}, "spec.nodes"),
        ("no nodes", {"spec.nodes": ABSENT}, "spec.nodes"),
        ("a site with a parent", {"spec.type": "Site", "spec.parent": "world"}, "spec.parent"),
        ("its own parent", {"spec.parent": "sample"}, "spec.parent"),
        ("unknown type", {"spec.type": "Hall"}, "spec.type"),
        ("no limits", {"spec.limits": {}}, "spec.limits"),
        ("limit of zero", {"spec.limits.powerWatts": 0}, "spec.limits.powerWatts"),
        ("limit beyond measure", {"spec.limits.powerWatts": 2**60}, "spec.limits.powerWatts"),
        ("limit with a unit", {"spec.limits.powerWatts": "180kW"}, "spec.limits.powerWatts"),
        ("too hot to be true", {"spec.limits.gpuCelsius": 451}, "spec.limits.gpuCelsius"),
        ("margin too wide", {"spec.marginPercent": 51}, "spec.marginPercent"),
        ("empty query", {"spec.signals": {"power": {"promQL": ""}}}, "spec.signals.power.promQL"),
        ("query misspelled", {"spec.signals": {"power": {"promQl": "w"}}}, "spec.signals.power.promQ"),
        ("derate without a reason", {"spec.derate": {"powerPercent": 75}}, "spec.derate.reason"),
        ("derate that says nothing", {"spec.derate": {"reason": "drill"}}, "spec.derate"),
        (
            "derate of a limit that is absent",
            {"spec.derate": {"airflowPercent": 75, "reason": "fan lost"}},
            "spec.derate.airflowPercent",
        ),
        (
            "derate to nothing",
            {"spec.derate": {"powerPercent": 0, "reason": "fire"}},
            "spec.derate.powerPercent",
        ),
        (
            "derate until tomorrow",
            {"spec.derate": {"powerPercent": 75, "reason": "drill", "until": "tomorrow"}},
            "spec.derate.until",
        ),
        (
            "derate until a day without a time",
            {"spec.derate": {"powerPercent": 75, "reason": "drill", "until": "2031-01-01"}},
            "spec.derate.until",
        ),
    ),
    *_cases(
        "SharedBudget",
        ("minimal", {}),
        (
            "everything set",
            {
                "spec.mode": "Propose",
                "spec.policy": "Equilibrium",
                "spec.members": [
                    {"namespace": "ai", "poolRef": {"kind": "ServingPool", "name": "chat"}, "weight": 2, "min": 4},
                    {"namespace": "ml", "poolRef": {"kind": "ServingPool", "name": "chat"}, "min": 60},
                    {"namespace": "ai", "poolRef": {"kind": "MultimodalPipeline", "name": "chat"}},
                ],
                "spec.equilibrium": {"horizonSteps": 8, "iterations": 3000, "maxGapPermille": 20},
                "spec.periodSeconds": 300,
            },
        ),
        ("nobody", {"spec.members": []}, "spec.members"),
        (
            "a pool twice",
            {"spec.members.1": {"namespace": "ai", "poolRef": {"kind": "ServingPool", "name": "chat"}, "weight": 5}},
            "spec.members",
        ),
        ("more promised than there is", {"spec.members.0.min": 65}, "members[].min"),
        ("equilibrium without its policy", {"spec.equilibrium": {"horizonSteps": 4}}, "spec.equilibrium"),
        ("no capacity", {"spec.capacity": 0}, "spec.capacity"),
        ("unknown resource", {"spec.resource": "TPU"}, "spec.resource"),
        ("unknown policy", {"spec.policy": "Nash"}, "spec.policy"),
        ("member of another kind", {"spec.members.0.poolRef.kind": "Deployment"}, "spec.members[0].poolRef.kind"),
        ("member without a namespace", {"spec.members.0.namespace": ABSENT}, "spec.members[0].namespace"),
        ("negative minimum", {"spec.members.0.min": -1}, "spec.members[0].min"),
    ),
    *_cases(
        "NodePolicy",
        ("minimal", {}),
        (
            "everything set",
            {
                "spec.isolation": {
                    "policy": "TimeShare",
                    "partitions": [
                        {"name": "big", "cachePercent": 45, "bandwidthPercent": 80},
                        {"name": "small", "cachePercent": 55, "bandwidthPercent": 20},
                    ],
                    "epochMilliseconds": 1000,
                    "applications": [
                        {
                            "name": "web",
                            "selector": SELECTOR,
                            "slo": {"latencyMilliseconds": 20, "latency": {"promQL": "p99"}},
                        }
                    ],
                },
                "spec.memoryTiering": {
                    "driver": "Auto",
                    "quotaMBps": {"min": 0, "max": 3200},
                    "guard": {"promQL": "misses > 0"},
                },
                "spec.network": {"highPercent": 85, "lowPercent": 60, "floorPercent": 15},
                "spec.accelerators": {"minClockMHz": 900, "minWatts": 300},
            },
        ),
        ("every node", {"spec.nodes": {}}),
        ("allows nothing", {"spec.accelerators": ABSENT}, "spec.isolation"),
        ("accelerators untouched", {"spec.accelerators": {}}, "spec.accelerators"),
        ("network upside down", {"spec.network": {"highPercent": 50}}, "network.lowPercent"),
        (
            "more cache than there is",
            {
                "spec.isolation": {
                    "partitions": [
                        {"name": "a", "cachePercent": 60, "bandwidthPercent": 50},
                        {"name": "b", "cachePercent": 60, "bandwidthPercent": 50},
                    ]
                }
            },
            "isolation.partitions[].cachePercent",
        ),
        ("no partitions", {"spec.isolation": {"partitions": []}}, "spec.isolation.partitions"),
        (
            "quota crossed",
            {"spec.memoryTiering": {"quotaMBps": {"min": 2, "max": 1}}},
            "memoryTiering.quotaMBps.min",
        ),
        ("quota absent", {"spec.memoryTiering": {}}, "spec.memoryTiering.quotaMBps"),
        ("clock of zero", {"spec.accelerators": {"minClockMHz": 0}}, "spec.accelerators.minClockMHz"),
        (
            "application of every pod",
            {
                "spec.isolation": {
                    "partitions": [{"name": "a", "cachePercent": 60, "bandwidthPercent": 50}],
                    "applications": [{"name": "web", "selector": {}}],
                }
            },
            "isolation.applications[].selector",
        ),
    ),
    *_cases(
        "NodeState",
        ("minimal", {}),
        ("no knobs", {"spec": {}}),
        ("safe value", {"spec.knobs.0": {"name": "gpu/0/watts", "value": "300", "onSilence": "Safe", "safe": "700"}}),
        ("named like a node", {"metadata.name": "node-1.row-2.example"}),
        ("safe without a value", {"spec.knobs.0.onSilence": "Safe"}, "knobs[].safe"),
        ("value that is never used", {"spec.knobs.0.safe": "700"}, "knobs[].safe"),
        ("knob twice", {"spec.knobs.1": MINIMAL["NodeState"]["knobs"][0]}, "spec.knobs"),
        ("value as a number", {"spec.knobs.0.value": 900}, "spec.knobs[0].value"),
        ("silence unspoken", {"spec.knobs.0.onSilence": ABSENT}, "spec.knobs[0].onSilence"),
        ("a mode", {"spec.mode": "Observe"}, "spec.mode"),
    ),
]
