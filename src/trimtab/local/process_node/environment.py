"""A container's environment: variables, references, expansion. Pure: what is referred to is fetched before."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from trimtab.local.process_node import quantity
from trimtab.local.process_node.spec import (
    Bundle,
    Container,
    FieldRef,
    KeyFiles,
    KeyRef,
    Pod,
    ResourceRef,
    Variable,
    Volume,
)

Source = tuple[str, str]  # (`ConfigMap` or `Secret`, name)
Contents = Mapping[Source, Mapping[str, str]]  # what exists; a source that does not is absent

_REFERENCE: Final = re.compile(r"\$(\$|\([-._a-zA-Z][-._a-zA-Z0-9]*\))")
_SUBSCRIPT: Final = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")


class ConfigError(Exception):
    """A container cannot start as it is configured; the text names the reference that leads nowhere."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What only the node knows about a pod.

    Attributes:
        pod_ip: the pod's address.
        host_ip: the node's address.
        capacity: the node's allocatable resources, which stand in for absent limits.
    """

    pod_ip: str
    host_ip: str
    capacity: Mapping[str, str] = field(default_factory=dict)


def sources(variables: Iterable[Variable], bundles: Iterable[Bundle], volumes: Iterable[Volume]) -> frozenset[Source]:
    """Return every ConfigMap and Secret that these refer to."""
    refs = [v.value for v in variables if isinstance(v.value, KeyRef)]
    files = [source for volume in volumes for source in volume.sources if isinstance(source, KeyFiles)]
    found: list[KeyRef | Bundle | KeyFiles] = [*refs, *bundles, *files]
    return frozenset((ref.kind, ref.name) for ref in found)


def pod_field(pod: Pod, path: str, facts: Facts) -> str:
    """Return a field of the pod as the downward API gives it.

    Raises:
        ConfigError: the downward API has no such field.
    """
    plain = {
        "metadata.name": pod.name,
        "metadata.namespace": pod.namespace,
        "metadata.uid": pod.uid,
        "spec.nodeName": pod.node_name,
        "spec.serviceAccountName": pod.service_account,
        "status.podIP": facts.pod_ip,
        "status.podIPs": facts.pod_ip,
        "status.hostIP": facts.host_ip,
        "status.hostIPs": facts.host_ip,
    }
    if path in plain:
        return plain[path]
    maps = {"labels": pod.labels, "annotations": pod.annotations}
    if match := _SUBSCRIPT.fullmatch(path):
        return maps[match[1]].get(match[2], "")
    if path.removeprefix("metadata.") in maps:
        pairs = sorted(maps[path.removeprefix("metadata.")].items())
        return "\n".join(f'{key}="{_escaped(value)}"' for key, value in pairs)
    raise ConfigError(f"fieldRef {path!r} is not a field of the downward API")


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def resource_field(pod: Pod, asking: Container, ref: ResourceRef, facts: Facts) -> str:
    """Return a request or limit in units of the divisor; an absent limit is the node's allocatable amount.

    Raises:
        ConfigError: no such container or resource.
    """
    container = next((c for c in pod.all_containers if c.name == (ref.container or asking.name)), None)
    kind, _, resource = ref.resource.partition(".")
    if container is None or kind not in {"limits", "requests"}:
        raise ConfigError(f"resourceFieldRef {ref.container or asking.name}/{ref.resource} does not exist")
    amounts = container.limits if kind == "limits" else container.requests
    default = facts.capacity.get(resource, "0") if kind == "limits" else "0"
    return str(quantity.divide(amounts.get(resource, default), ref.divisor))


def downward(pod: Pod, asking: Container, ref: FieldRef | ResourceRef, facts: Facts) -> str:
    """Return what a field or resource reference stands for.

    Raises:
        ConfigError: it stands for nothing.
    """
    if isinstance(ref, FieldRef):
        return pod_field(pod, ref.path, facts)
    return resource_field(pod, asking, ref, facts)


def expand(text: str, known: Mapping[str, str]) -> str:
    """Replace `$(NAME)` by its value; unknown names stay as they are, `$$` is one dollar."""

    def one(match: re.Match[str]) -> str:
        inner = match[1]
        return "$" if inner == "$" else known.get(inner[1:-1], match[0])

    return _REFERENCE.sub(one, text)


def variables(
    pod: Pod, container: Container, facts: Facts, contents: Contents, given: Mapping[str, str]
) -> dict[str, str]:
    """Return the container's environment.

    Args:
        pod: the pod.
        container: one of its containers.
        facts: what the node knows.
        contents: every ConfigMap and Secret of `sources` that exists.
        given: variables of the node (Services, paths); the container's own win over them.

    Raises:
        ConfigError: a reference that is not optional leads nowhere.
    """
    env = dict(given)
    for bundle in container.env_from:
        env.update(_bundled(bundle, contents))
    for variable in container.env:
        value = _value(pod, container, variable, facts, contents, env)
        if value is not None:
            env[variable.name] = value
    return env


def _bundled(bundle: Bundle, contents: Contents) -> dict[str, str]:
    keys = contents.get((bundle.kind, bundle.name))
    if keys is None:
        if bundle.optional:
            return {}
        raise ConfigError(f"{bundle.kind} {bundle.name!r} not found")
    return {bundle.prefix + key: value for key, value in keys.items()}


def _value(
    pod: Pod, container: Container, variable: Variable, facts: Facts, contents: Contents, env: Mapping[str, str]
) -> str | None:
    value = variable.value
    if isinstance(value, str):
        return expand(value, env)
    if isinstance(value, KeyRef):
        return _keyed(value, contents)
    return downward(pod, container, value, facts)


def _keyed(ref: KeyRef, contents: Contents) -> str | None:
    keys = contents.get((ref.kind, ref.name))
    if keys is not None and ref.key in keys:
        return keys[ref.key]
    if ref.optional:
        return None
    missing = f"{ref.kind} {ref.name!r} not found" if keys is None else f"no key {ref.key!r} in {ref.kind} {ref.name!r}"
    raise ConfigError(missing)
