"""Services as the process node sees them: which Ready pods stand behind a port, and the variables that name it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trimtab.local.process_node.spec import Container, Port


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port: the Service's own number, and the number or name on the pod."""

    number: int
    target: Port
    name: str = ""


@dataclass(frozen=True, slots=True)
class Service:
    """A Service with a selector."""

    namespace: str
    name: str
    uid: str
    selector: Mapping[str, str]
    ports: tuple[ServicePort, ...]
    publish_not_ready: bool = False

    @property
    def key(self) -> str:
        """Return `namespace/name`."""
        return f"{self.namespace}/{self.name}"

    def port(self, wanted: str) -> ServicePort | None:
        """Return the port of that name or number, or the first one if nothing is wanted."""
        if not wanted:
            return self.ports[0] if self.ports else None
        return next((port for port in self.ports if wanted in (port.name, str(port.number))), None)


@dataclass(frozen=True, slots=True)
class Backend:
    """A pod that may stand behind a Service."""

    namespace: str
    name: str
    ip: str
    ready: bool
    labels: Mapping[str, str] = field(default_factory=dict)
    containers: tuple[Container, ...] = ()


def parse_service(obj: Mapping[str, Any]) -> Service | None:
    """Read a Service; None for one without a selector or TCP port, which nothing here can stand behind."""
    spec = obj["spec"]
    ports = tuple(
        ServicePort(port["port"], port.get("targetPort", port["port"]), port.get("name", ""))
        for port in spec.get("ports") or ()
        if port.get("protocol", "TCP") == "TCP"
    )
    if not spec.get("selector") or not ports:
        return None
    metadata = obj["metadata"]
    return Service(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        selector=spec["selector"],
        ports=ports,
        publish_not_ready=spec.get("publishNotReadyAddresses", False),
    )


def selects(service: Service, backend: Backend) -> bool:
    """Return whether the Service's selector matches a pod."""
    return backend.namespace == service.namespace and service.selector.items() <= backend.labels.items()


def endpoints(service: Service, port: ServicePort, backends: Iterable[Backend]) -> tuple[tuple[str, int], ...]:
    """Return the addresses behind a port, in a stable order: Ready pods that have it."""
    found = set()
    for backend in backends:
        if not selects(service, backend) or not (backend.ready or service.publish_not_ready):
            continue
        number = _number(port.target, backend.containers)
        if number is not None:
            found.add((backend.ip, number))
    return tuple(sorted(found))


def _number(target: Port, containers: Iterable[Container]) -> int | None:
    numbers = (container.port(target) for container in containers)
    return next((number for number in numbers if number is not None), None)


def variables(service: Service, host: str) -> dict[str, str]:
    """Return the variables by which pods find a Service, in the form that the kubelet gives them."""
    prefix = service.name.upper().replace("-", "_").replace(".", "_")
    first = service.ports[0].number
    env = {f"{prefix}_SERVICE_HOST": host, f"{prefix}_SERVICE_PORT": str(first)}
    for port in service.ports:
        if port.name:
            env[f"{prefix}_SERVICE_PORT_{port.name.upper().replace('-', '_')}"] = str(port.number)
    return env
