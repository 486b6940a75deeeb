"""Why something was decided, as data. The words for each code are in `trimtab.obs.wording`, and only there."""

from dataclasses import dataclass
from enum import StrEnum

from trimtab.model.ref import Ref


class ReasonCode(StrEnum):
    """Stable names of reasons: CamelCase, never renamed and never reused."""

    NOT_YET_IMPLEMENTED = "NotYetImplemented"
    QUEUE_FULL = "QueueFull"
    QUEUE_TIMEOUT = "QueueTimeout"
    NO_READY_ENDPOINT = "NoReadyEndpoint"


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
