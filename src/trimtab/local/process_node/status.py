"""A pod's status, computed from what its containers do. Pure: time is an argument."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from trimtab.local.process_node.resize import Judged, ResizeVerdict
from trimtab.local.process_node.spec import Container, Pod

Conditions = Iterable[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Waiting:
    """Not started, or between two starts."""

    reason: str = "ContainerCreating"
    message: str = ""


@dataclass(frozen=True, slots=True)
class Running:
    """Started at this Unix time."""

    started_at: float


@dataclass(frozen=True, slots=True)
class Terminated:
    """Ended. Times are Unix times; a signal is 0 when the process exited by itself."""

    exit_code: int
    started_at: float
    finished_at: float
    reason: str = "Completed"
    message: str = ""
    signal: int = 0


State = Waiting | Running | Terminated


@dataclass(frozen=True, slots=True)
class ContainerView:
    """One container at one moment.

    Attributes:
        spec: the container, with the resources that it was given.
        state: what it does.
        last: how its previous run ended.
        restarts: how often it was started again.
        ready: its readiness verdict.
        started: its startup verdict.
        container_id: names the process; empty before the first start.
        program: the path of the program that stands for the image.
    """

    spec: Container
    state: State = field(default_factory=Waiting)
    last: Terminated | None = None
    restarts: int = 0
    ready: bool = False
    started: bool = False
    container_id: str = ""
    program: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a pod as a whole has failed."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class PodView:
    """One pod at one moment.

    Attributes:
        host_ip: the node's address.
        ip: the pod's address; empty before it has one.
        started_at: when the node took it, Unix time.
        inits: its init containers.
        containers: its main containers.
        prepared: address, volumes and credentials are there.
        resize: the verdict on the resources it asks for.
        refusal: why it failed as a whole, if it did.
        leaving: it is being deleted, so it counts as not ready.
    """

    host_ip: str
    ip: str
    started_at: float
    inits: tuple[ContainerView, ...] = ()
    containers: tuple[ContainerView, ...] = ()
    prepared: bool = False
    resize: Judged | None = None
    refusal: Refusal | None = None
    leaving: bool = False


def timestamp(seconds: float) -> str:
    """Return a Unix time as the API writes times."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def init_done(view: ContainerView) -> bool:
    """Return whether the next container may start after this init container."""
    if view.spec.sidecar:
        return view.started
    return isinstance(view.state, Terminated) and view.state.exit_code == 0


def initialized(view: PodView) -> bool:
    """Return whether every init container lets the next one start."""
    return all(map(init_done, view.inits))


def begun(view: PodView) -> bool:
    """Return whether any main container was ever started; sidecars may have ended since."""
    return any(not isinstance(c.state, Waiting) or c.last is not None for c in view.containers)


def phase(pod: Pod, view: PodView) -> str:
    """Return the pod's phase as the kubelet defines it."""
    if view.refusal is not None:
        return "Failed"
    if not initialized(view) and not begun(view):
        return "Failed" if pod.restart_policy == "Never" and any(map(_init_failed, view.inits)) else "Pending"
    if any(isinstance(c.state, Waiting) and c.last is None for c in view.containers):
        return "Pending"
    return _started_phase(pod, view)


def _init_failed(view: ContainerView) -> bool:
    return isinstance(view.state, Terminated) and view.state.exit_code != 0 and not view.spec.sidecar


def _started_phase(pod: Pod, view: PodView) -> str:
    """Return the phase of a pod whose main containers have all been started at least once."""
    codes = [c.state.exit_code for c in view.containers if isinstance(c.state, Terminated)]
    if len(codes) < len(view.containers) or (pod.restart_policy == "Always" and not view.leaving):
        return "Running"
    if not any(codes):
        return "Succeeded"
    return "Failed" if pod.restart_policy == "Never" or view.leaving else "Running"


def pod_status(pod: Pod, view: PodView, before: Conditions, now: float) -> dict[str, Any]:
    """Return the status to write. Conditions keep the transition time of those before while their status stays."""
    status: dict[str, Any] = {
        "observedGeneration": pod.generation,
        "phase": phase(pod, view),
        "hostIP": view.host_ip,
        "hostIPs": [{"ip": view.host_ip}],
        "startTime": timestamp(view.started_at),
        "conditions": conditions(pod, view, before, now),
        "containerStatuses": [container_status(container) for container in view.containers],
    }
    if view.inits:
        status["initContainerStatuses"] = [container_status(container) for container in view.inits]
    if view.ip:
        status |= {"podIP": view.ip, "podIPs": [{"ip": view.ip}]}
    if view.refusal is not None:
        status |= {"reason": view.refusal.reason, "message": view.refusal.message}
    return status


# Conditions


@dataclass(frozen=True, slots=True)
class _Condition:
    type: str
    good: bool
    reason: str = ""
    message: str = ""


def _yes(type_: str, reason: str = "", message: str = "") -> _Condition:
    return _Condition(type_, good=True, reason=reason, message=message)


def _no(type_: str, reason: str = "", message: str = "") -> _Condition:
    return _Condition(type_, good=False, reason=reason, message=message)


def is_ready(pod: Pod, view: PodView) -> bool:
    """Return whether the pod receives traffic: containers ready and every readiness gate True."""
    return _ready(pod, view, phase(pod, view)).good


def conditions(pod: Pod, view: PodView, before: Conditions, now: float) -> list[dict[str, Any]]:
    """Return our conditions of the pod; those of others (PodScheduled, readiness gates) are not among them."""
    at = phase(pod, view)
    found = [
        _Condition("PodReadyToStartContainers", view.prepared and at not in {"Failed", "Succeeded"}),
        _initialized(view, at),
        _containers_ready(view, at),
        _ready(pod, view, at),
    ]
    if view.resize is not None and view.resize.verdict is not ResizeVerdict.ACCEPTED:
        found.append(_yes("PodResizePending", view.resize.verdict, view.resize.message))
    known = {condition["type"]: condition for condition in before}
    return [_written(condition, known.get(condition.type), pod.generation, now) for condition in found]


def _written(condition: _Condition, before: Mapping[str, Any] | None, generation: int, now: float) -> dict[str, Any]:
    status = "True" if condition.good else "False"
    same = before is not None and before.get("status") == status
    written = {
        "type": condition.type,
        "status": status,
        "observedGeneration": generation,
        "lastTransitionTime": (before or {}).get("lastTransitionTime") if same else timestamp(now),
    }
    if condition.reason:
        written["reason"] = condition.reason
    if condition.message:
        written["message"] = condition.message
    return written


def _initialized(view: PodView, at: str) -> _Condition:
    if at == "Succeeded":
        return _yes("Initialized", "PodCompleted")
    missing = [c.spec.name for c in view.inits if not init_done(c)]
    if not missing or begun(view):
        return _yes("Initialized")
    words = f"containers with incomplete status: [{' '.join(missing)}]"
    return _no("Initialized", "ContainersNotInitialized", words)


def _containers_ready(view: PodView, at: str) -> _Condition:
    if at == "Succeeded":
        return _no("ContainersReady", "PodCompleted")
    if at == "Failed":
        return _no("ContainersReady", "PodFailed")
    counted = [*(c for c in view.inits if c.spec.sidecar), *view.containers]
    missing = [c.spec.name for c in counted if not c.ready]
    if not missing:
        return _yes("ContainersReady")
    words = f"containers with unready status: [{' '.join(missing)}]"
    return _no("ContainersReady", "ContainersNotReady", words)


def _ready(pod: Pod, view: PodView, at: str) -> _Condition:
    containers = _containers_ready(view, at)
    if not containers.good:
        return _no("Ready", containers.reason, containers.message)
    closed = closed_gates(pod)
    if closed:
        words = "; ".join(f'the status of pod readiness gate "{gate}" is not "True"' for gate in closed)
        return _no("Ready", "ReadinessGatesNotReady", words)
    return _yes("Ready")


def closed_gates(pod: Pod) -> tuple[str, ...]:
    """Return the readiness gates whose condition is not True."""
    true = {c["type"] for c in pod.status.get("conditions") or () if c.get("status") == "True"}
    return tuple(gate for gate in pod.readiness_gates if gate not in true)


# Containers


def container_status(view: ContainerView) -> dict[str, Any]:
    """Return one entry of `containerStatuses`."""
    status: dict[str, Any] = {
        "name": view.spec.name,
        "image": view.spec.image,
        "imageID": view.program and f"file://{view.program}",
        "ready": view.ready,
        "started": view.started,
        "restartCount": view.restarts,
        "state": _state(view.state, view.container_id),
        "resources": _resources(view.spec),
    }
    if view.spec.requests:
        status["allocatedResources"] = dict(view.spec.requests)
    if view.container_id:
        status["containerID"] = view.container_id
    if view.last is not None:
        status["lastState"] = _state(view.last, view.container_id)
    return status


def _resources(spec: Container) -> dict[str, Any]:
    given = {"requests": dict(spec.requests), "limits": dict(spec.limits)}
    return {kind: amounts for kind, amounts in given.items() if amounts}


def _state(state: State, container_id: str) -> dict[str, Any]:
    if isinstance(state, Waiting):
        return {"waiting": {"reason": state.reason} | ({"message": state.message} if state.message else {})}
    if isinstance(state, Running):
        return {"running": {"startedAt": timestamp(state.started_at)}}
    written = {
        "exitCode": state.exit_code,
        "reason": state.reason,
        "startedAt": timestamp(state.started_at),
        "finishedAt": timestamp(state.finished_at),
    }
    optional = {"message": state.message, "signal": state.signal, "containerID": container_id}
    return {"terminated": written | {key: value for key, value in optional.items() if value}}


# What a restarted node finds


def started_at(status: Mapping[str, Any], now: float) -> float:
    """Return when the pod was first taken by its node: as its status says, or now."""
    return _seconds(status.get("startTime")) or now


def _seconds(text: str | None) -> float:
    return datetime.fromisoformat(text).timestamp() if text else 0.0


def parse_terminated(obj: Mapping[str, Any]) -> Terminated:
    """Read back an end that was written before."""
    return Terminated(
        exit_code=obj.get("exitCode", 0),
        started_at=_seconds(obj.get("startedAt")),
        finished_at=_seconds(obj.get("finishedAt")),
        reason=obj.get("reason", ""),
        message=obj.get("message", ""),
        signal=obj.get("signal", 0),
    )


def recover(spec: Container, statuses: Iterable[Mapping[str, Any]], now: float) -> ContainerView:
    """Return a container as the API server last knew it, with the resources that it had been given.

    One that ran then has died with the node that ran it.
    """
    known = next((status for status in statuses if status.get("name") == spec.name), None)
    if known is None:
        return ContainerView(spec)
    state, last = known.get("state") or {}, (known.get("lastState") or {}).get("terminated")
    view = ContainerView(
        _with_resources(spec, known.get("resources")),
        last=parse_terminated(last) if last else None,
        restarts=known.get("restartCount", 0),
        container_id=known.get("containerID", ""),
    )
    return _recovered(view, state, now)


def _with_resources(spec: Container, given: Mapping[str, Any] | None) -> Container:
    if given is None:
        return spec
    return replace(spec, requests=given.get("requests") or {}, limits=given.get("limits") or {})


def _recovered(view: ContainerView, state: Mapping[str, Any], now: float) -> ContainerView:
    if "terminated" in state:
        return replace(view, state=parse_terminated(state["terminated"]))
    if "running" in state:
        lost = Terminated(
            exit_code=137,
            started_at=_seconds(state["running"].get("startedAt")),
            finished_at=now,
            reason="ContainerStatusUnknown",
            message="The process ended together with the process node that ran it",
            signal=9,
        )
        return replace(view, state=lost)
    return view
