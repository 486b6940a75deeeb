"""MultimodalPipeline: a multimodal model split into stages, with one end-to-end service level."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from trimtab.api.common import ONE_DEFAULT_LEVEL, CommonStatus, PolicySpec, ServiceLevels, Workload
from trimtab.api.definition import MODE, READY, REASON, Column, Definition
from trimtab.api.multimodal_stage import StageRole
from trimtab.api.wire import (
    SERVICE_NAME_RULE,
    BigCount,
    Count,
    CustomObject,
    DnsLabel,
    Keyed,
    LabelValue,
    Milliseconds,
    ModelName,
    Percent,
    Permille,
    Plain,
    Positive,
    Record,
    Replicas,
    Rule,
    Ruled,
    Switch,
)

Parallelism = Annotated[int, Field(strict=True, ge=1, le=64)]


class PipelineModel(Record):
    """The model that is split."""

    name: ModelName
    """name is what clients put into `model`."""

    architecture: Literal["DecoderOnly", "CrossAttention"]
    """architecture is how media enter the language model: `DecoderOnly` puts their tokens into the prompt,
    `CrossAttention` keeps them beside it."""


class ImageTokens(Ruled):
    """How many tokens an image becomes, from its size in pixels."""

    preset: Literal["InternVL2_5", "LLaVAOneVision", "Llama3_2", "NVLM_D"] | None = None
    """preset is a model family whose tiling is known: `InternVL2_5`, `LLaVAOneVision`, `Llama3_2` or `NVLM_D`. Absent:
    tile, tokensPerTile and maxTiles say it."""

    tile: Annotated[int, Field(strict=True, ge=1, le=8192)] | None = None
    """tile is the edge of a tile, in pixels. 1 to 8192; absent with a preset."""

    tokens_per_tile: Annotated[int, Field(strict=True, ge=1, le=65_536)] | None = None
    """tokensPerTile is how many tokens one tile becomes. 1 to 65536; absent with a preset."""

    max_tiles: Annotated[int, Field(strict=True, ge=1, le=1024)] | None = None
    """maxTiles is the most tiles of one image; larger images are scaled down. 1 to 1024; absent with a preset."""

    thumbnail: Switch | None = None
    """thumbnail adds one tile that shows the whole image; absent with a preset, else absent means false."""

    rules: ClassVar = (
        Rule(
            lambda image: image.said_once,
            "has(self.preset)"
            " ? !has(self.tile) && !has(self.tokensPerTile) && !has(self.maxTiles) && !has(self.thumbnail)"
            " : has(self.tile) && has(self.tokensPerTile) && has(self.maxTiles)",
            "media.image.preset: set either preset alone, or all of tile, tokensPerTile and maxTiles",
        ),
    )

    @property
    def said_once(self) -> bool:
        """Whether the tiling is given either by the preset or by all the numbers."""
        numbers = (self.tile, self.tokens_per_tile, self.max_tiles)
        if self.preset is None:
            return None not in numbers
        return numbers == (None, None, None) and self.thumbnail is None


class Media(Record):
    """How media become tokens."""

    image: ImageTokens | None = None
    """image is how many tokens an image becomes. Absent: the model takes no images, or engines report the tokens."""


class TensorParallel(Ruled):
    """Over how many accelerators one replica of the stage is split."""

    fixed: Parallelism | None = None
    """fixed is the one degree to use. 1 to 64. Exactly one of fixed and auto."""

    auto: Annotated[tuple[Parallelism, ...], Field(max_length=8), Plain("set")] = ()
    """auto are the degrees to choose from. At most 8, each 1 to 64. Exactly one of fixed and auto."""

    rules: ClassVar = (
        Rule(
            lambda parallel: (parallel.fixed is None) != (parallel.auto == ()),
            "has(self.fixed) != (has(self.auto) && size(self.auto) > 0)",
            "tensorParallel.fixed: set exactly one of fixed (one degree) and auto (degrees to choose from)",
        ),
    )


class MaxBatch(Ruled):
    """How many requests one replica of the stage processes together."""

    fixed: Annotated[int, Field(strict=True, ge=1, le=65_536)] | None = None
    """fixed is the one size to use. 1 to 65536. Exactly one of fixed and `auto: true`."""

    auto: Switch = False
    """auto lets the pipeline choose from the profiles. Exactly one of fixed and `auto: true`. Default: false."""

    rules: ClassVar = (
        Rule(
            lambda batch: (batch.fixed is not None) != batch.auto,
            "has(self.fixed) != self.auto",
            "maxBatch.fixed: set exactly one of fixed (one size) and `auto: true`",
        ),
    )


class StageProfile(Record):
    """What one replica of a stage does in one configuration, as measured."""

    accelerator: Annotated[LabelValue, Field(min_length=1)]
    """accelerator is a value of the node label `trimtab.dev/accelerator`, e.g. `nvidia-h100`."""

    tensor_parallel: Parallelism
    """tensorParallel is the degree that was measured. 1 to 64."""

    batch: Annotated[int, Field(strict=True, ge=1, le=65_536)]
    """batch is the number of requests processed together. 1 to 65536."""

    latency_milliseconds: Milliseconds
    """latencyMilliseconds is the time of one batch, in milliseconds. 1 to 3600000."""

    capacity_tokens_per_second: Positive
    """capacityTokensPerSecond is the load that one replica carries within that latency. At least 1."""


class StageTemplate(Ruled):
    """One stage of the pipeline."""

    name: DnsLabel
    """name is the name of the stage; unique in the pipeline. The MultimodalStage is called PIPELINE-NAME."""

    role: StageRole
    """role is what the stage does: `ImageEncode`, `AudioEncode`, `VideoEncode`, `Prefill`, `Decode` or
    `PrefillDecode`."""

    workload: Workload
    """workload describes the pods of the stage, which Trimtab creates and owns."""

    min_replicas: Replicas = 1
    """minReplicas is the lower bound; 0 is allowed, and takes the stage away while nobody needs it. 0 to 10000.
    Default: 1."""

    max_replicas: Annotated[int, Field(strict=True, ge=1, le=10_000)]
    """maxReplicas is the upper bound. 1 to 10000."""

    tensor_parallel: TensorParallel | None = None
    """tensorParallel is over how many accelerators a replica is split. Absent: as the template says."""

    max_batch: MaxBatch | None = None
    """maxBatch is how many requests a replica processes together. Absent: as the template says."""

    profiles: Annotated[
        tuple[StageProfile, ...], Field(max_length=128), Keyed(("accelerator", "tensor_parallel", "batch"))
    ] = ()
    """profiles are what a replica does in each configuration. At most 128; absent: learned online."""

    colocate_with: DnsLabel | None = None
    """colocateWith is the name of a stage to be placed close to; absent: anywhere."""

    rules: ClassVar = (
        Rule(
            lambda stage: stage.min_replicas <= stage.max_replicas,
            "self.minReplicas <= self.maxReplicas",
            "stages[].minReplicas: must not exceed maxReplicas: lower one or raise the other",
        ),
    )


class PipelineScaling(Record):
    """When and how fast stages are scaled."""

    period_seconds: Annotated[int, Field(strict=True, ge=10, le=86_400)] = 300
    """periodSeconds is the time between two plans, in seconds. 10 to 86400. Default: 300."""

    attainment_trigger_permille: Permille = 990
    """attainmentTriggerPermille is the attainment below which a plan is made at once, in thousandths. 0 to 1000.
    Default: 990."""

    scale_down_periods: Annotated[int, Field(strict=True, ge=1, le=100)] = 3
    """scaleDownPeriods is for how many periods fewer replicas must have been enough before any is removed. 1 to 100.
    Default: 3."""

    max_step_down_percent: Percent = 25
    """maxStepDownPercent is the largest part of a stage that is removed at once, in percent. 1 to 100. Default: 25."""


TEXT_PATH = "Prefill and Decode, or PrefillDecode"


def _has_text_path(spec: "MultimodalPipelineSpec") -> bool:
    roles = {stage.role for stage in spec.stages}
    return "PrefillDecode" in roles or roles >= {"Prefill", "Decode"}


def _neighbors_exist(spec: "MultimodalPipelineSpec") -> bool:
    names = {stage.name for stage in spec.stages}
    return all(stage.colocate_with is None or stage.colocate_with in names - {stage.name} for stage in spec.stages)


class MultimodalPipelineSpec(PolicySpec):
    """The model, its stages, and what is promised."""

    model: PipelineModel
    """model is the model that is split into stages."""

    media: Media = Media()
    """media is how media become tokens. Absent: the engines report it."""

    service_levels: ServiceLevels = ()
    """serviceLevels are what is promised end to end, over all stages. At most 16; absent: best effort."""

    stages: Annotated[tuple[StageTemplate, ...], Field(min_length=1, max_length=16), Keyed()]
    """stages are the parts that scale on their own; some path from a prompt to an answer must exist. 1 to 16."""

    scaling: PipelineScaling = PipelineScaling()
    """scaling says when and how fast stages are scaled. Default: a plan every 300 seconds."""

    transport: Literal["RDMA", "TCP"] = "TCP"
    """transport is how stages hand over tensors; it enters the latency budget: `RDMA` or `TCP`. Default: TCP."""

    rules: ClassVar = (
        Rule(
            _has_text_path,
            "self.stages.exists(stage, stage.role == 'PrefillDecode')"
            " || (self.stages.exists(stage, stage.role == 'Prefill')"
            " && self.stages.exists(stage, stage.role == 'Decode'))",
            f"spec.stages: no path from a prompt to an answer: add {TEXT_PATH}",
        ),
        Rule(
            _neighbors_exist,
            "self.stages.all(stage, !has(stage.colocateWith)"
            " || self.stages.exists(other, other.name == stage.colocateWith && other.name != stage.name))",
            "stages[].colocateWith: must name another stage of this pipeline: correct it, or remove it",
        ),
        ONE_DEFAULT_LEVEL,
    )


class StageStatus(Record):
    """How one stage is doing."""

    name: DnsLabel
    """name is the stage's name in spec.stages."""

    load_tokens_per_second: BigCount | None = None
    """loadTokensPerSecond is what arrives at the stage; absent without data."""

    capacity_tokens_per_second: BigCount | None = None
    """capacityTokensPerSecond is what its ready replicas carry; absent if unknown."""

    desired: Count = 0
    """desired is how many replicas the plan asks for."""

    ready: Count = 0
    """ready is how many replicas are Ready."""

    budget_milliseconds: Milliseconds | None = None
    """budgetMilliseconds is the stage's share of the end-to-end target; absent without a target."""

    attainment_permille: Permille | None = None
    """attainmentPermille is the share of recent requests that kept the budget, in thousandths; absent without data."""


class MultimodalPipelineStatus(CommonStatus):
    """What is true of the pipeline."""

    stages: Annotated[tuple[StageStatus, ...], Field(max_length=16), Keyed()] = ()
    """stages are how each stage is doing. At most 16."""


class MultimodalPipeline(CustomObject):
    """A MultimodalPipeline is a multimodal model in stages that scale on their own, with one end-to-end promise.

    It creates a MultimodalStage for each stage, and is Ready only if some path through them exists.
    """

    api_version: Literal["trimtab.dev/v1alpha1"] = "trimtab.dev/v1alpha1"
    kind: Literal["MultimodalPipeline"] = "MultimodalPipeline"
    spec: MultimodalPipelineSpec
    """spec is the model, its stages, and what is promised."""
    status: MultimodalPipelineStatus = MultimodalPipelineStatus()
    """status is what is true of the pipeline; written by the operator."""

    rules: ClassVar = (SERVICE_NAME_RULE,)


MULTIMODAL_PIPELINE = Definition(
    model=MultimodalPipeline,
    plural="multimodalpipelines",
    short="mmp",
    namespaced=True,
    columns=(
        READY,
        REASON,
        Column("Model", ".spec.model.name", "The model that is split."),
        Column(
            "Objectives", '.status.conditions[?(@.type=="ObjectivesMet")].status', "Whether service levels are met."
        ),
        MODE,
    ),
)
