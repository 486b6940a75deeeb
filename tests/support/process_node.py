"""Builders for the process node's tests: pods as the API server gives them."""

from typing import Any

from trimtab.api import keys
from trimtab.local.process_node.spec import Container, Pod, parse_container, parse_pod


def a_container(name: str = "main", **fields: Any) -> dict[str, Any]:
    return {"name": name, "image": "registry/trimtab:1", "imagePullPolicy": "IfNotPresent"} | fields


def a_pod_object(name: str = "web", **spec: Any) -> dict[str, Any]:
    """A pod on process-0 that may run as processes; keyword arguments replace fields of its spec."""
    return {
        "metadata": {
            "namespace": "shop",
            "name": name,
            "uid": f"uid-{name}",
            "generation": 1,
            "labels": {keys.RUN_AS: "process", "app": name},
        },
        "spec": {"nodeName": "process-0", "containers": [a_container()]} | spec,
        "status": {},
    }


def a_pod(name: str = "web", **spec: Any) -> Pod:
    return parse_pod(a_pod_object(name, **spec))


def container(name: str = "main", **fields: Any) -> Container:
    return parse_container(a_container(name, **fields))
