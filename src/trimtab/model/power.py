"""Power as it is declared: domains with limits, and pods that say what they draw."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

_NOTHING: Mapping[str, int] = MappingProxyType({})


class NodeSelector(Protocol):
    """Chooses nodes by their labels."""

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Say whether a node with these labels is chosen."""
        ...


@dataclass(frozen=True, slots=True)
class Derate:
    """A temporary cut of a domain's limit.

    Attributes:
        power_percent: how much of the limit is left, 1 to 100.
        until: when the cut ends, seconds since the epoch; None: until somebody ends it.
    """

    power_percent: int
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Domain:
    """A site, row, rack or aisle whose nodes share a power limit.

    Attributes:
        name: the PowerDomain's name.
        level: what it is (`Site`, `Row`, `Rack`, `Aisle`); a node belongs to at most one domain of each level.
        nodes: which nodes belong to it directly; those of domains that name it as parent belong to it too.
        parent: name of the domain that feeds it; empty for none.
        limit_watts: its power limit; None when it has none.
        margin_percent: how much of the limit stays unused.
        derate: a temporary cut of the limit.
        enforced: whether the limit turns pods away (mode `Enforce`), or is only watched.
        created: when it was created, seconds since the epoch; the oldest of two domains of one level holds the node.
    """

    name: str
    level: str
    nodes: NodeSelector
    parent: str = ""
    limit_watts: int | None = None
    margin_percent: int = 0
    derate: Derate | None = None
    enforced: bool = True
    created: float = 0.0

    def usable_watts(self, at: float) -> int | None:
        """Return what pods may draw together at time `at`: limit x derate x (1 - margin), rounded down."""
        if self.limit_watts is None:
            return None
        derate = self.derate
        left_percent = derate.power_percent if derate and (derate.until is None or at < derate.until) else 100
        return self.limit_watts * left_percent * (100 - self.margin_percent) // 10_000


@dataclass(frozen=True, slots=True)
class Demand:
    """What one pod draws when busy, as somebody declared it.

    Attributes:
        by_accelerator: watts on nodes with that accelerator label.
        elsewhere: watts on any other node; None when nobody declared it.
    """

    by_accelerator: Mapping[str, int] = field(default_factory=lambda: _NOTHING, hash=False)
    elsewhere: int | None = None

    def watts_on(self, accelerator: str) -> int | None:
        """Return the declared watts on a node with this accelerator label (empty: no label), or None."""
        return self.by_accelerator.get(accelerator, self.elsewhere)

    @property
    def declared(self) -> bool:
        """Whether anybody declared anything."""
        return bool(self.by_accelerator) or self.elsewhere is not None


UNDECLARED = Demand()

PoolKey = tuple[str, str]
"""A ServingPool: its namespace and its name."""


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What placement knows of one pod.

    Attributes:
        uid: its uid.
        namespace: its namespace.
        name: its name.
        watts: what the pod itself declares; it wins over its pool's profile.
        pool: the pool that it serves.
        node: the node that it is bound to; empty while it is not.
        nominated: the node that the scheduler intends for it; empty for none.
    """

    uid: str
    namespace: str
    name: str
    watts: int | None = None
    pool: PoolKey | None = None
    node: str = ""
    nominated: str = ""
