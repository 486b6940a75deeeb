"""What holds of an object: the pure form of a Kubernetes condition."""

from dataclasses import dataclass
from enum import StrEnum

from trimtab.model.reason import Reason


class Truth(StrEnum):
    """Whether a condition holds; `UNKNOWN` is an honest answer and never the same as `FALSE`."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class ConditionType(StrEnum):
    """The conditions that Trimtab's objects carry."""

    READY = "Ready"
    OBJECTIVES_MET = "ObjectivesMet"
    TELEMETRY_FRESH = "TelemetryFresh"
    CAPACITY_AVAILABLE = "CapacityAvailable"
    KNOB_CONTESTED = "KnobContested"
    WITHIN_POWER = "WithinPower"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One condition with its reason."""

    type: ConditionType
    truth: Truth
    reason: Reason
