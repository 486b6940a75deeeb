"""What the operator keeps of each object: parsed, small, and no raw body."""

from dataclasses import dataclass, field

from trimtab.actuate.manifests import Blueprint
from trimtab.model.pool import PoolSpec, PoolState, Workload
from trimtab.model.reason import Reason
from trimtab.obs.journal import Journal

Key = tuple[str, str]  # namespace, name


@dataclass(frozen=True, slots=True)
class Asked:
    """What a pool's own object says.

    Attributes:
        uid: the object's identity.
        generation: version of its spec.
        spec: the parsed spec; None when it cannot be read.
        blueprint: how to write its objects; None for a target, or an unreadable spec.
        fault: why it cannot be read.
        approvals: ids in the approve annotation.
        resume: the knob in the resume annotation; empty for none.
        released: whether the release annotation is there.
        finalizers: all of them.
        deleting: whether deletion has begun.
    """

    uid: str
    generation: int
    spec: PoolSpec | None
    blueprint: Blueprint | None = None
    fault: Reason | None = None
    approvals: frozenset[str] = frozenset()
    resume: str = ""
    released: bool = False
    finalizers: tuple[str, ...] = ()
    deleting: bool = False


@dataclass(frozen=True, slots=True)
class Applied:
    """What was applied of one owned object: hash of what we wanted, uid and fingerprint of what the server stored."""

    wanted: str
    uid: str
    fingerprint: str
    version: int


@dataclass(slots=True)
class StatusMemory:
    """What was last written to an object's status: hashes, not a copy.

    Attributes:
        states: hash of everything but numbers that move by themselves.
        whole: hash of everything.
        ready: the number of ready replicas in it.
        at: when it was written, in seconds since the epoch.
        since: for each condition type its status, the time of its last transition, and its reason.
    """

    states: bytes = b""
    whole: bytes = b""
    ready: int = 0
    at: float = 0.0
    since: dict[str, tuple[str, str, str]] = field(default_factory=dict)


@dataclass(slots=True)
class PoolRecord:
    """Everything remembered of one pool."""

    asked: Asked
    state: PoolState = field(default_factory=PoolState)
    journal: Journal = ()
    applied: dict[str, Applied] = field(default_factory=dict)  # by kind
    built: tuple[int, int | None] | None = None  # generation and replicas for which `wanted` was computed
    wanted: dict[str, str] = field(default_factory=dict)  # by kind: hash of the object as we want it
    status: StatusMemory = field(default_factory=StatusMemory)
    faults: int = 0  # looks in a row that found the pool unable to be as specified
    await_version: int = 0  # of the workload: our own last write must be seen before the next decision,
    await_until: float = 0.0  # or this time must be past


@dataclass(frozen=True, slots=True)
class Owned:
    """A Deployment, Service or PodDisruptionBudget, or a target, as last seen.

    Attributes:
        uid: its identity.
        version: its resource version, as a number: versions of one resource type are ordered.
        owner: kind, name and uid of its controller; empty strings for none.
        fingerprint: of the fields that we hold by apply.
        workload: what matters of a Deployment or StatefulSet.
        replicas_alone: whether nothing but our plain apply owns its replicas.
    """

    uid: str
    version: int
    owner: tuple[str, str, str] = ("", "", "")
    fingerprint: str = ""
    workload: Workload | None = None
    replicas_alone: bool = False


@dataclass(frozen=True, slots=True)
class PodSeen:
    """A pod of a pool, as last seen."""

    pool: str
    ready: bool
    unschedulable: str  # the scheduler's words; empty when it has a node or has not been tried
    leaving: bool


@dataclass(slots=True)
class PlaceholderRecord:
    """An object of a kind that nothing reconciles yet."""

    uid: str
    generation: int
    status: StatusMemory = field(default_factory=StatusMemory)
