"""What the operator is made of: built once, passed explicitly."""

from dataclasses import dataclass, field
from typing import Self

from trimtab.kube import Kube
from trimtab.model.reason import Reason
from trimtab.obs.metrics import OperatorMetrics
from trimtab.ports import Clock
from trimtab_operator.events import Events
from trimtab_operator.pulse import Pulse
from trimtab_operator.settings import OperatorSettings
from trimtab_operator.store import Store

MANAGER = "trimtab-operator"


@dataclass(slots=True)
class Refusal:
    """Why the operator does not act at all, e.g. on an old schema; None when it does."""

    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class Runtime:
    """The parts of one operator process."""

    settings: OperatorSettings
    kube: Kube
    clock: Clock
    metrics: OperatorMetrics
    events: Events
    pulse: Pulse
    store: Store = field(default_factory=Store)
    refusal: Refusal = field(default_factory=Refusal)

    def __copy__(self) -> Self:
        """Return itself: kopf copies its memo for every object, and ours is one for all."""
        return self
