"""What the several-model queue wants done at one moment."""

from dataclasses import dataclass

from trimtab.decide.queueing.request import Request


@dataclass(frozen=True, slots=True)
class Start:
    """A request goes to a machine, which carries it from this moment on.

    Attributes:
        produced: Tokens of its answer that it has from before an eviction; the machine makes the rest.
        generation: Of the plan that this follows from.
    """

    request: Request
    endpoint: str
    produced: int
    generation: int


@dataclass(frozen=True, slots=True)
class Evict:
    """A machine stops a request and keeps what it has produced; `ModelsQueue.evicted` is to be told."""

    key: int
    endpoint: str


@dataclass(frozen=True, slots=True)
class Swap:
    """A machine that carries nothing makes another model resident; `ModelsQueue.swapped` is to be told."""

    endpoint: str
    model: str


@dataclass(frozen=True, slots=True)
class Orders:
    """Everything to be done at one moment, evictions before swaps before starts.

    Attributes:
        reason: Why the plan that they follow is not the policy's, if one was just made that is not; else empty.
    """

    starts: tuple[Start, ...] = ()
    evictions: tuple[Evict, ...] = ()
    swaps: tuple[Swap, ...] = ()
    reason: str = ""

    def then(self, other: "Orders") -> "Orders":
        """Return both together."""
        if other == NO_ORDERS:
            return self
        return Orders(
            self.starts + other.starts,
            self.evictions + other.evictions,
            self.swaps + other.swaps,
            self.reason or other.reason,
        )


NO_ORDERS = Orders()
