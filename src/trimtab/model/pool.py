"""A serving pool as the decisions see it: what is asked for, what is there, what is remembered."""

from dataclasses import dataclass, field
from enum import StrEnum

from trimtab.model.decision import Mode
from trimtab.model.knob import REPLICAS, Bounds, Knob
from trimtab.model.reason import Reason
from trimtab.model.ref import Ref


class Scaling(StrEnum):
    """Who says how many replicas a pool has."""

    FIXED = "Fixed"
    EXTERNAL = "External"
    WAITING_TIME = "WaitingTime"


class Deletion(StrEnum):
    """What happens to sizes that we set when the pool goes."""

    KEEP = "Keep"
    RESTORE = "Restore"


class Carrier(StrEnum):
    """Which write moves the replicas of a pool's workload."""

    APPLY = "Apply"  # they are part of the Deployment that we apply
    SCALE = "Scale"  # they are set through the workload's `/scale`
    NOBODY = "Nobody"  # an autoscaler owns them; we never write


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """The workload that a pool claims, in the pool's own namespace."""

    api_version: str
    kind: str
    name: str

    @property
    def group(self) -> str:
        """Return the API group, without the version: two versions of one kind are the same object."""
        group, slash, _ = self.api_version.partition("/")
        return group if slash else ""


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """What a person asks of a pool.

    Attributes:
        ref: the pool.
        uid: its identity: a new pool of the same name has another.
        created_at: creation time in RFC 3339; the oldest of two claimants wins.
        generation: version of the spec.
        target: the workload it claims: its own Deployment, or the one named by `targetRef`.
        owned: whether the workload is ours, made from `workload.template`.
        mode: what policies may change.
        scaling: who says how many replicas there are.
        replicas: the number given in the spec, if any.
        bounds: minimum and maximum replicas for everybody but a person under `Fixed`.
        deletion: what happens to a foreign target's size when the pool goes.
        service_levels: names of the declared objectives.
    """

    ref: Ref
    uid: str
    created_at: str
    generation: int
    target: Target
    owned: bool
    mode: Mode = Mode.OBSERVE
    scaling: Scaling = Scaling.FIXED
    replicas: int | None = None
    bounds: Bounds = field(default_factory=Bounds)
    deletion: Deletion = Deletion.KEEP
    service_levels: tuple[str, ...] = ()

    @property
    def knob(self) -> Knob:
        """Return the replicas knob of this pool."""
        return Knob(self.ref, REPLICAS)

    @property
    def claim(self) -> tuple[str, str, str, str]:
        """Return what two pools must not share: namespace, group, kind and name of the workload."""
        return self.ref.namespace, self.target.group, self.target.kind, self.target.name

    @property
    def seniority(self) -> tuple[str, str, str]:
        """Return the sort key by which the holder of a contested claim is found: oldest, then namespace and name."""
        return self.created_at, self.ref.namespace, self.ref.name


@dataclass(frozen=True, slots=True, order=True)
class Writer:
    """Another field manager that owns a workload's replicas.

    Attributes:
        manager: its name in `managedFields`.
        declarative: whether it applied them (Git tools do), and so will write them again.
    """

    manager: str
    declarative: bool = False


@dataclass(frozen=True, slots=True)
class Workload:
    """A pool's workload as last seen.

    Attributes:
        resource_version: of the object, to write only on what was seen.
        desired: replicas in its spec.
        current: replicas that exist.
        ready: replicas that are ready.
        settled: whether its own controller has acted on its latest spec.
        ours: whether we are among the managers that own its replicas.
        writers: the other managers that own its replicas, sorted.
        failure: why its controller cannot create pods; empty when it can.
        selector: label selector of its pods.
    """

    resource_version: str
    desired: int
    current: int = 0
    ready: int = 0
    settled: bool = True
    ours: bool = False
    writers: tuple[Writer, ...] = ()
    failure: str = ""
    selector: str = ""


@dataclass(frozen=True, slots=True)
class Pods:
    """Counts over a pool's own pods.

    Attributes:
        total: pods that are not being deleted.
        ready: of these, the ready ones.
        unschedulable: of these, the ones the scheduler found no node for.
        message: the scheduler's words about one of them.
    """

    total: int = 0
    ready: int = 0
    unschedulable: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class PoolSeen:
    """Everything a step of a pool looks at.

    Attributes:
        at: time in seconds since the epoch.
        workload: the workload, None when there is none.
        scaler: the autoscaler that owns the workload's replicas, e.g. `HorizontalPodAutoscaler chat`; empty for none.
        holder: the older pool that claims the same workload.
        fault: what keeps the pool's objects from being as specified.
        pods: counts over its pods; None when its pods are not watched.
        approvals: ids of proposals that a person has approved.
        resumed: whether a person has asked to take the replicas back from another manager.
        released: whether a person has asked to give every knob back.
    """

    at: float
    workload: Workload | None = None
    scaler: str = ""
    holder: Ref | None = None
    fault: Reason | None = None
    pods: Pods | None = None
    approvals: frozenset[str] = frozenset()
    resumed: bool = False
    released: bool = False


@dataclass(frozen=True, slots=True)
class Hold:
    """A knob of a foreign object that we have turned.

    Attributes:
        knob: which one.
        was: its value before our first write.
        since: time of that write, in seconds since the epoch.
        active: whether our value is in it: False before our first write, and after a person resumed it.
    """

    knob: Knob
    was: int
    since: float
    active: bool = False


@dataclass(frozen=True, slots=True)
class Proposal:
    """A change that waits for approval."""

    id: str
    knob: Knob
    was: int | None
    value: int
    policy: str
    reason: Reason
    proposed_at: float
    expires_at: float


@dataclass(frozen=True, slots=True)
class PoolState:
    """What is remembered of a pool from one step to the next; it is kept in the pool's status.

    Attributes:
        hold: the replicas knob of a foreign target, while we hold it.
        proposals: what waits for approval.
        contested_by: the managers that took our knob; empty when nobody did.
    """

    hold: Hold | None = None
    proposals: tuple[Proposal, ...] = ()
    contested_by: tuple[str, ...] = ()
