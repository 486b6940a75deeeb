"""Virtual queues: what waits for each machine, in the order in which it is to be served, and what the machine does."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf

from trimtab.decide.queueing.group import Group
from trimtab.decide.queueing.instance import Instance
from trimtab.decide.queueing.request import Request


@dataclass(slots=True)
class Member:
    """One request on its way through the queue.

    Attributes:
        deadline: When its first token is due; after an eviction, when it should be served again.
        late: Whether it counts as late.
        produced: Tokens of its answer that it has already.
        evictions: How often it had to give way.
        started_at: When a machine last began with it.
    """

    request: Request
    deadline: float
    late: bool = False
    produced: int = 0
    evictions: int = 0
    started_at: float = -inf

    @property
    def key(self) -> int:
        """What the queue knows the request by."""
        return self.request.key

    @property
    def model(self) -> str:
        """The model that it needs resident."""
        return self.request.model

    @property
    def input_tokens(self) -> int:
        """The length of its prompt."""
        return self.request.input_tokens


@dataclass(slots=True, eq=False)
class Lot:
    """A group as a plan places it, with sums over its members that wait.

    Attributes:
        model: What all members ask for.
        level: The service level of its first member.
        late: Whether its members are late already.
        tokens: Of the prompts that wait.
        produced: Answer tokens that those have already.
    """

    group: Group[Member]
    model: str
    level: str
    late: bool
    tokens: int = 0
    produced: int = 0

    @property
    def key(self) -> int:
        """Unique; grows with creation."""
        return self.group.key

    @property
    def waiting(self) -> int:
        """How many members wait."""
        return self.group.waiting

    @property
    def deadline(self) -> float:
        """The earliest deadline of a member that waits."""
        return self.group.deadline

    def count(self, member: Member, sign: int = 1) -> None:
        """Take account of a member that waits from now on, or with -1 no longer does."""
        self.tokens += sign * member.input_tokens
        self.produced += sign * member.produced


@dataclass(slots=True, eq=False)
class Virtual:
    """A machine and its queue.

    Attributes:
        queue: Lots in the order of service; those in which nobody waits are dropped when they surface.
        resident: The model that it holds, or that it is changing to.
        ready_at: When the change under way will have ended, as far as is known; None without one.
        running: What it carries.
        giving_way: Requests that it has been told to stop.
        stopped_at: When it last was told so.
        full: Whether its KV cache is above the limit.
        look_at: When an eviction becomes possible that was not yet.
    """

    instance: Instance
    queue: list[Lot] = field(default_factory=list)
    resident: str | None = None
    ready_at: float | None = None
    running: dict[int, Member] = field(default_factory=dict)
    giving_way: set[int] = field(default_factory=set)
    stopped_at: float = -inf
    full: bool = False
    look_at: float = inf

    @property
    def load(self) -> float:
        """The share of its slots in use."""
        return len(self.running) / self.instance.slots

    @property
    def is_busy(self) -> bool:
        """Whether it carries requests or is changing its model."""
        return bool(self.running) or self.ready_at is not None

    @property
    def has_room(self) -> bool:
        """Whether it may be sent a request."""
        return len(self.running) < self.instance.slots and not self.full and not self.giving_way

    def head(self) -> Lot | None:
        """Return the lot to be served next."""
        while self.queue and not self.queue[0].waiting:
            del self.queue[0]
        return self.queue[0] if self.queue else None

    def waiting(self) -> Iterator[Lot]:
        """Yield the lots in which somebody waits, in order."""
        return (lot for lot in self.queue if lot.waiting)
