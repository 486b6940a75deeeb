"""MultimodalStage: one stage of a multimodal pipeline, with its own pods and its own `/scale`."""

from typing import ClassVar, Literal

from trimtab.api.common import NameRef, PolicySpec, ScaledStatus, Workload
from trimtab.api.definition import MODE, READY, REASON, Column, Definition
from trimtab.api.wire import SERVICE_NAME_RULE, ChangeRule, CustomObject, Replicas

StageRole = Literal["ImageEncode", "AudioEncode", "VideoEncode", "Prefill", "Decode", "PrefillDecode"]


class MultimodalStageSpec(PolicySpec):
    """The stage's role and pods."""

    replicas: Replicas | None = None
    """replicas is how many pods there should be: written by the pipeline, by people, or by an autoscaler through
    `/scale`. 0 to 10000; absent: none are asked for yet."""

    pipeline_ref: NameRef | None = None
    """pipelineRef is the MultimodalPipeline that this stage belongs to; it cannot be changed. Absent: the stage stands
    alone."""

    role: StageRole
    """role is what the stage does; it cannot be changed: `ImageEncode`, `AudioEncode`, `VideoEncode`, `Prefill`,
    `Decode` or `PrefillDecode`."""

    workload: Workload
    """workload describes the pods of the stage, which Trimtab creates and owns."""

    changes: ClassVar = (
        ChangeRule(
            "self.role == oldSelf.role",
            "spec.role: cannot be changed: create another stage with the new role, then delete this one",
        ),
        ChangeRule(
            "has(self.pipelineRef) == has(oldSelf.pipelineRef)"
            " && (!has(self.pipelineRef) || self.pipelineRef == oldSelf.pipelineRef)",
            "spec.pipelineRef: cannot be changed: create another stage for the other pipeline",
        ),
    )


class MultimodalStageStatus(ScaledStatus):
    """What is true of the stage."""


class MultimodalStage(CustomObject):
    """A MultimodalStage is one stage of a multimodal model: encoding media, reading the prompt, or writing the answer.

    A MultimodalPipeline creates its stages; one can also be written by hand.
    """

    api_version: Literal["trimtab.dev/v1alpha1"] = "trimtab.dev/v1alpha1"
    kind: Literal["MultimodalStage"] = "MultimodalStage"
    spec: MultimodalStageSpec
    """spec is the stage's role and pods."""
    status: MultimodalStageStatus = MultimodalStageStatus()
    """status is what is true of the stage; written by the operator."""

    rules: ClassVar = (SERVICE_NAME_RULE,)


MULTIMODAL_STAGE = Definition(
    model=MultimodalStage,
    plural="multimodalstages",
    short="mms",
    namespaced=True,
    scaled=True,
    columns=(
        READY,
        REASON,
        Column("Role", ".spec.role", "What the stage does."),
        Column("Desired", ".spec.replicas", "Replicas asked for.", "integer"),
        Column("Ready Replicas", ".status.readyReplicas", "Replicas that are Ready.", "integer"),
        Column("Pipeline", ".spec.pipelineRef.name", "The pipeline that the stage belongs to.", wide=True),
        MODE,
    ),
)
