"""A pod as the process node reads it: parsed once, at the edge, from the API server's object."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Object = Mapping[str, Any]
Port = int | str  # a number, or the name of one of the container's ports

SERVICE_ACCOUNT_PATH: Final = "/var/run/secrets/kubernetes.io/serviceaccount"


@dataclass(frozen=True, slots=True)
class HttpGet:
    """A GET that succeeds with a status from 200 to 399. An empty host is the pod's address."""

    port: Port
    path: str = "/"
    scheme: str = "http"
    host: str = ""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class TcpConnect:
    """A connection that succeeds when it is accepted. An empty host is the pod's address."""

    port: Port
    host: str = ""


@dataclass(frozen=True, slots=True)
class GrpcCheck:
    """A call of `grpc.health.v1.Health/Check` that succeeds with SERVING."""

    port: Port
    service: str = ""


@dataclass(frozen=True, slots=True)
class Exec:
    """A command that succeeds with exit code 0."""

    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sleep:
    """A pause, as a life-cycle hook."""

    seconds: float


ProbeAction = HttpGet | TcpConnect | GrpcCheck | Exec
HookAction = HttpGet | Exec | Sleep


@dataclass(frozen=True, slots=True)
class Probe:
    """One probe with the API's defaults.

    Attributes:
        action: what is tried.
        initial_delay_seconds: from the container's start to the first try.
        period_seconds: from one try to the next.
        timeout_seconds: a try that takes longer has failed.
        success_threshold: successes in a row that turn the verdict good.
        failure_threshold: failures in a row that turn the verdict bad.
        grace_seconds: grace period of a container that this probe ends; None is the pod's.
    """

    action: ProbeAction
    initial_delay_seconds: float = 0.0
    period_seconds: float = 10.0
    timeout_seconds: float = 1.0
    success_threshold: int = 1
    failure_threshold: int = 3
    grace_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class FieldRef:
    """A field of the pod, e.g. `metadata.labels['app']` or `status.podIP`."""

    path: str


@dataclass(frozen=True, slots=True)
class ResourceRef:
    """A container's request or limit in units of a divisor; no container name means the one that asks."""

    resource: str
    divisor: str = "0"
    container: str = ""


@dataclass(frozen=True, slots=True)
class KeyRef:
    """One key of a ConfigMap or Secret."""

    kind: Literal["ConfigMap", "Secret"]
    name: str
    key: str
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable: a text in which `$(NAME)` is expanded, or a reference."""

    name: str
    value: str | FieldRef | ResourceRef | KeyRef


@dataclass(frozen=True, slots=True)
class Bundle:
    """All keys of a ConfigMap or Secret as variables with a common prefix."""

    kind: Literal["ConfigMap", "Secret"]
    name: str
    prefix: str = ""
    optional: bool = False


@dataclass(frozen=True, slots=True)
class KeyFiles:
    """Keys of a ConfigMap or Secret as files; no items means every key under its own name."""

    kind: Literal["ConfigMap", "Secret"]
    name: str
    items: tuple[tuple[str, str], ...] = ()
    optional: bool = False


@dataclass(frozen=True, slots=True)
class FieldFiles:
    """Fields of the pod as files: (path, field)."""

    items: tuple[tuple[str, FieldRef | ResourceRef], ...]


@dataclass(frozen=True, slots=True)
class TokenFile:
    """A renewed token of the pod's service account as a file."""

    path: str = "token"
    audience: str = ""
    expiration_seconds: int = 3600


Files = KeyFiles | FieldFiles | TokenFile


@dataclass(frozen=True, slots=True)
class Volume:
    """A directory of the pod, filled from its sources; no sources is an empty directory."""

    name: str
    sources: tuple[Files, ...] = ()


@dataclass(frozen=True, slots=True)
class Mount:
    """Where a container expects a volume, or one path in it."""

    volume: str
    path: str
    sub_path: str = ""


@dataclass(frozen=True, slots=True)
class NamedPort:
    """A port that a container declares."""

    number: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class Container:
    """One container.

    Attributes:
        name: unique in the pod.
        image: what it would run in a cluster; here its last path component may name the entry point.
        command: the program and its first arguments; empty means the image's own.
        args: further arguments.
        env: variables in order; later ones may refer to earlier ones.
        env_from: whole ConfigMaps and Secrets as variables, before `env`.
        ports: declared ports, which probes and Services may name.
        mounts: volumes at paths.
        startup: probe that holds the other two back until it succeeds.
        readiness: probe that decides whether the pod receives traffic.
        liveness: probe whose failure restarts the container.
        post_start: hook after the start.
        pre_stop: hook before TERM.
        requests: requested resources, as written.
        limits: resource limits, as written.
        restart_on_resize: resources whose resize restarts the container.
        sidecar: an init container that keeps running beside the main ones.
        log_as_message: use the end of the log as the termination message of a failure.
    """

    name: str
    image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: tuple[Variable, ...] = ()
    env_from: tuple[Bundle, ...] = ()
    ports: tuple[NamedPort, ...] = ()
    mounts: tuple[Mount, ...] = ()
    startup: Probe | None = None
    readiness: Probe | None = None
    liveness: Probe | None = None
    post_start: HookAction | None = None
    pre_stop: HookAction | None = None
    requests: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, str] = field(default_factory=dict)
    restart_on_resize: frozenset[str] = frozenset()
    sidecar: bool = False
    log_as_message: bool = False

    def port(self, port: Port) -> int | None:
        """Return the number of a declared port name, or the number itself; None for an unknown name."""
        if isinstance(port, int):
            return port
        if port.isdigit():
            return int(port)
        return next((known.number for known in self.ports if known.name == port), None)


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod.

    Attributes:
        namespace: its namespace.
        name: its name.
        uid: its identity; a pod of the same name with another uid is another pod.
        generation: of the spec, for `observedGeneration`.
        labels: its labels.
        annotations: its annotations.
        node_name: the node it is bound to.
        service_account: the account that it runs as.
        restart_policy: `Always`, `OnFailure` or `Never`.
        grace_seconds: from TERM to KILL.
        active_deadline_seconds: the pod fails when it has run longer; None is no limit.
        inits: init containers in order, sidecars among them.
        containers: main containers.
        volumes: its volumes.
        readiness_gates: condition types that must be True, too, before the pod is Ready.
        service_links: whether Services of the namespace become variables.
        unhonored: paths of fields that the process node ignores.
        deletion_grace_seconds: grace period of a pod that is being deleted; None for one that is not.
        status: the status as the API server has it.
    """

    namespace: str
    name: str
    uid: str
    generation: int = 1
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    node_name: str = ""
    service_account: str = "default"
    restart_policy: str = "Always"
    grace_seconds: float = 30.0
    active_deadline_seconds: float | None = None
    inits: tuple[Container, ...] = ()
    containers: tuple[Container, ...] = ()
    volumes: tuple[Volume, ...] = ()
    readiness_gates: tuple[str, ...] = ()
    service_links: bool = True
    unhonored: tuple[str, ...] = ()
    deletion_grace_seconds: float | None = None
    status: Object = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Return `namespace/name`."""
        return f"{self.namespace}/{self.name}"

    @property
    def all_containers(self) -> tuple[Container, ...]:
        """Return init containers, then main containers."""
        return self.inits + self.containers


def parse_pod(obj: Object) -> Pod:
    """Read a pod. Fields that are absent have the API's defaults."""
    metadata, spec = obj["metadata"], obj["spec"]
    deleted = metadata.get("deletionTimestamp") is not None
    return Pod(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 1),
        labels=metadata.get("labels") or {},
        annotations=metadata.get("annotations") or {},
        node_name=spec.get("nodeName", ""),
        service_account=spec.get("serviceAccountName", "default"),
        restart_policy=spec.get("restartPolicy", "Always"),
        grace_seconds=float(spec.get("terminationGracePeriodSeconds", 30)),
        active_deadline_seconds=spec.get("activeDeadlineSeconds"),
        inits=tuple(map(parse_container, spec.get("initContainers") or ())),
        containers=tuple(map(parse_container, spec["containers"])),
        volumes=tuple(map(parse_volume, spec.get("volumes") or ())),
        readiness_gates=tuple(gate["conditionType"] for gate in spec.get("readinessGates") or ()),
        service_links=spec.get("enableServiceLinks", True),
        unhonored=tuple(sorted(set(unhonored(spec)))),
        deletion_grace_seconds=float(metadata.get("deletionGracePeriodSeconds") or 0) if deleted else None,
        status=obj.get("status") or {},
    )


def parse_container(obj: Object) -> Container:
    """Read one container of any kind."""
    resources = obj.get("resources") or {}
    lifecycle = obj.get("lifecycle") or {}
    return Container(
        name=obj["name"],
        image=obj.get("image", ""),
        command=tuple(obj.get("command") or ()),
        args=tuple(obj.get("args") or ()),
        env=tuple(map(_variable, obj.get("env") or ())),
        env_from=tuple(map(_bundle, obj.get("envFrom") or ())),
        ports=tuple(NamedPort(port["containerPort"], port.get("name", "")) for port in obj.get("ports") or ()),
        mounts=tuple(
            Mount(mount["name"], mount["mountPath"].rstrip("/") or "/", mount.get("subPath", ""))
            for mount in obj.get("volumeMounts") or ()
        ),
        startup=_probe(obj.get("startupProbe")),
        readiness=_probe(obj.get("readinessProbe")),
        liveness=_probe(obj.get("livenessProbe")),
        post_start=_hook(lifecycle.get("postStart")),
        pre_stop=_hook(lifecycle.get("preStop")),
        requests=resources.get("requests") or {},
        limits=resources.get("limits") or {},
        restart_on_resize=frozenset(
            policy["resourceName"]
            for policy in obj.get("resizePolicy") or ()
            if policy["restartPolicy"] == "RestartContainer"
        ),
        sidecar=obj.get("restartPolicy") == "Always",
        log_as_message=obj.get("terminationMessagePolicy") == "FallbackToLogsOnError",
    )


def parse_volume(obj: Object) -> Volume:
    """Read a volume; one of a kind that the process node does not have becomes an empty directory."""
    if "projected" in obj:
        return Volume(obj["name"], tuple(_files(source) for source in obj["projected"].get("sources") or ()))
    if obj.keys() & {"configMap", "secret", "downwardAPI"}:
        return Volume(obj["name"], (_files(obj),))
    return Volume(obj["name"])


def _files(obj: Object) -> Files:
    """Read a volume's content; a Secret's name is `secretName` in a volume and `name` in a projection."""
    if "downwardAPI" in obj:
        return FieldFiles(tuple((item["path"], _field(item)) for item in obj["downwardAPI"].get("items") or ()))
    if "serviceAccountToken" in obj:
        token = obj["serviceAccountToken"]
        return TokenFile(token["path"], token.get("audience", ""), token.get("expirationSeconds", 3600))
    kind: Literal["ConfigMap", "Secret"] = "ConfigMap" if "configMap" in obj else "Secret"
    source = obj.get("configMap") or obj.get("secret") or {}
    items = tuple((item["key"], item["path"]) for item in source.get("items") or ())
    return KeyFiles(kind, source.get("name") or source.get("secretName", ""), items, source.get("optional", False))


def _field(obj: Object) -> FieldRef | ResourceRef:
    if "fieldRef" in obj:
        return FieldRef(obj["fieldRef"]["fieldPath"])
    source = obj["resourceFieldRef"]
    return ResourceRef(source["resource"], str(source.get("divisor", "0")), source.get("containerName", ""))


def _variable(obj: Object) -> Variable:
    source = obj.get("valueFrom")
    if not source:
        return Variable(obj["name"], obj.get("value", ""))
    if "configMapKeyRef" in source or "secretKeyRef" in source:
        kind: Literal["ConfigMap", "Secret"] = "ConfigMap" if "configMapKeyRef" in source else "Secret"
        ref = source.get("configMapKeyRef") or source["secretKeyRef"]
        return Variable(obj["name"], KeyRef(kind, ref.get("name", ""), ref["key"], ref.get("optional", False)))
    if source.keys() & {"fieldRef", "resourceFieldRef"}:
        return Variable(obj["name"], _field(source))
    return Variable(obj["name"], "")


def _bundle(obj: Object) -> Bundle:
    kind: Literal["ConfigMap", "Secret"] = "ConfigMap" if "configMapRef" in obj else "Secret"
    ref = obj.get("configMapRef") or obj.get("secretRef") or {}
    return Bundle(kind, ref.get("name", ""), obj.get("prefix", ""), ref.get("optional", False))


def _http(obj: Object) -> HttpGet:
    return HttpGet(
        port=obj["port"],
        path=obj.get("path") or "/",
        scheme=obj.get("scheme", "HTTP").lower(),
        host=obj.get("host", ""),
        headers=tuple((header["name"], header["value"]) for header in obj.get("httpHeaders") or ()),
    )


def _probe(obj: Object | None) -> Probe | None:
    if not obj:
        return None
    action: ProbeAction
    if "httpGet" in obj:
        action = _http(obj["httpGet"])
    elif "tcpSocket" in obj:
        action = TcpConnect(obj["tcpSocket"]["port"], obj["tcpSocket"].get("host", ""))
    elif "grpc" in obj:
        action = GrpcCheck(obj["grpc"]["port"], obj["grpc"].get("service") or "")
    else:
        action = Exec(tuple((obj.get("exec") or {}).get("command") or ()))
    grace = obj.get("terminationGracePeriodSeconds")
    return Probe(
        action=action,
        initial_delay_seconds=float(obj.get("initialDelaySeconds", 0)),
        period_seconds=float(obj.get("periodSeconds") or 10),
        timeout_seconds=float(obj.get("timeoutSeconds") or 1),
        success_threshold=obj.get("successThreshold") or 1,
        failure_threshold=obj.get("failureThreshold") or 3,
        grace_seconds=None if grace is None else float(grace),
    )


def _hook(obj: Object | None) -> HookAction | None:
    if not obj:
        return None
    if "sleep" in obj:
        return Sleep(float(obj["sleep"]["seconds"]))
    if "httpGet" in obj:
        return _http(obj["httpGet"])
    if "exec" in obj:
        return Exec(tuple(obj["exec"].get("command") or ()))
    return None


# What is ignored

_HONORED_VOLUMES: Final = frozenset({"name", "configMap", "secret", "downwardAPI", "emptyDir", "projected"})
_POD_FIELDS: Final = (
    "dnsConfig",
    "ephemeralContainers",
    "hostAliases",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "imagePullSecrets",
    "resourceClaims",
    "runtimeClassName",
    "securityContext",
    "setHostnameAsFQDN",
    "shareProcessNamespace",
)
_CONTAINER_FIELDS: Final = ("restartPolicyRules", "securityContext", "stdin", "tty", "volumeDevices", "workingDir")


def unhonored(spec: Object) -> list[str]:
    """Return the paths of set fields that have no effect on the process node."""
    found = [f"spec.{name}" for name in _POD_FIELDS if spec.get(name)]
    found += _unhonored_volumes(spec.get("volumes") or ())
    for kind in ("initContainers", "containers"):
        for container in spec.get(kind) or ():
            found += _unhonored_in(f"spec.{kind}[{container['name']}]", container)
    return found


def _unhonored_volumes(volumes: Iterable[Object]) -> list[str]:
    found = []
    for volume in volumes:
        path = f"spec.volumes[{volume['name']}]"
        found += [f"{path}.{kind}" for kind in volume if kind not in _HONORED_VOLUMES]
        empty_dir = volume.get("emptyDir") or {}
        found += [f"{path}.emptyDir.{name}" for name in ("medium", "sizeLimit") if empty_dir.get(name)]
    return found


def _unhonored_in(path: str, container: Object) -> list[str]:
    found = [f"{path}.{name}" for name in _CONTAINER_FIELDS if container.get(name)]
    if container.get("imagePullPolicy") == "Always":
        found.append(f"{path}.imagePullPolicy")
    limits: Mapping[str, str] = (container.get("resources") or {}).get("limits") or {}
    found += [f"{path}.resources.limits.{name}" for name in ("cpu", "memory") if name in limits]
    if container.get("terminationMessagePath", "/dev/termination-log") != "/dev/termination-log":
        found.append(f"{path}.terminationMessagePath")
    return found
