"""Why something was decided, as data. The words for each code are in `trimtab.obs.wording`, and only there."""

from dataclasses import dataclass
from enum import StrEnum

from trimtab.model.ref import Ref


class ReasonCode(StrEnum):
    """Stable names of reasons: CamelCase, never renamed and never reused."""

    NOT_YET_IMPLEMENTED = "NotYetImplemented"

    # Serving pools: what holds
    NOT_YET_OBSERVED = "NotYetObserved"
    NOT_MEASURED = "NotMeasured"
    NO_OBJECTIVES = "NoObjectives"
    NO_PODS = "NoPods"
    ALL_SCHEDULED = "AllScheduled"
    UNSCHEDULABLE = "Unschedulable"
    ALL_REPLICAS_READY = "AllReplicasReady"
    REPLICAS_NOT_READY = "ReplicasNotReady"
    SCALED_TO_ZERO = "ScaledToZero"
    NOT_CONTESTED = "NotContested"

    # Serving pools: what keeps them from being as specified
    OVERLAPS = "Overlaps"
    TEMPLATE_INVALID = "TemplateInvalid"
    SPEC_INVALID = "SpecInvalid"
    NAME_TAKEN = "NameTaken"
    APPLY_REFUSED = "ApplyRefused"
    PODS_REFUSED = "PodsRefused"
    WORKLOAD_MISSING = "WorkloadMissing"
    TARGET_NOT_FOUND = "TargetNotFound"
    TARGET_NOT_SCALABLE = "TargetNotScalable"
    TARGET_FORBIDDEN = "TargetForbidden"
    SCHEMA_MISMATCH = "SchemaMismatch"

    # Serving pools: replicas
    REPLICAS_FROM_SPEC = "ReplicasFromSpec"
    REPLICAS_FROM_SCALE = "ReplicasFromScale"
    REPLICAS_REPAIRED = "ReplicasRepaired"
    NO_REPLICAS_GIVEN = "NoReplicasGiven"
    POLICY_NOT_YET_IMPLEMENTED = "PolicyNotYetImplemented"
    SCALED_BY_AUTOSCALER = "ScaledByAutoscaler"
    KNOB_CONTESTED = "KnobContested"
    WAITS_FOR_APPROVAL = "WaitsForApproval"
    REPLICAS_SET = "ReplicasSet"
    REPLICAS_WOULD_BE_SET = "ReplicasWouldBeSet"
    REPLICAS_PROPOSED = "ReplicasProposed"
    REPLICAS_REFUSED = "ReplicasRefused"
    GAVE_WAY = "GaveWay"
    RELEASED = "Released"
    RESTORED = "Restored"
    KEPT = "Kept"
    RESTORE_REFUSED = "RestoreRefused"
    DRIFT_REPAIRED = "DriftRepaired"
    OBJECT_RECREATED = "ObjectRecreated"
    QUEUE_FULL = "QueueFull"
    QUEUE_TIMEOUT = "QueueTimeout"
    NO_READY_ENDPOINT = "NoReadyEndpoint"

    # Placement
    POWER_DOMAIN_FULL = "PowerDomainFull"
    POWER_DOMAIN_HELD = "PowerDomainHeld"
    POWER_DOMAIN_TOO_SMALL = "PowerDomainTooSmall"


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason for a decision, including the decision to do nothing.

    Attributes:
        code: which reason.
        subject: what it is about.
        numbers: named numbers with their unit in the name, e.g. `("predicted_wait_seconds", 4.2)`.
        words: named short texts, e.g. `("holder", "ai/chat")`; never free prose, never user content.
    """

    code: ReasonCode
    subject: Ref
    numbers: tuple[tuple[str, float], ...] = ()
    words: tuple[tuple[str, str], ...] = ()
