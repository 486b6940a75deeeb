"""Pods as large as those of a cluster that serves models: volumes, environment, conditions, four field managers."""

from typing import Any

from trimtab.api import keys


def large_pod(number: int) -> dict[str, Any]:
    """Return a bound pod of about 7 KB as JSON that asks for an accelerator."""
    return {
        "metadata": {
            "name": f"chat-7d9c6b5f4-{number:05}",
            "namespace": "ai",
            "uid": f"uid-{number:032}",
            "resourceVersion": str(number + 1),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {keys.POOL: "chat", "pod-template-hash": "7d9c6b5f4", "app.kubernetes.io/name": "chat"},
            "annotations": {keys.WATTS: "400", "prometheus.io/scrape": "true", "prometheus.io/port": "8000"},
            "managedFields": [_managed(manager) for manager in ("controller", "scheduler", "kubelet", "mesh")],
        },
        "spec": {
            "nodeName": f"node-{number % 500}",
            "containers": [_container(name) for name in ("engine", "proxy")],
            "volumes": [
                {"name": f"v{at}", "configMap": {"name": f"config-{at}", "defaultMode": 420}} for at in range(8)
            ],
            "tolerations": [{"key": f"k{at}", "operator": "Exists", "effect": "NoExecute"} for at in range(4)],
        },
        "status": {
            "phase": "Running",
            "conditions": [
                {"type": kind, "status": "True", "lastProbeTime": None, "lastTransitionTime": "2026-01-01T00:00:00Z"}
                for kind in ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
            ],
        },
    }


def _container(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "image": f"registry/{name}:1",
        "resources": {"limits": {keys.GPU_RESOURCE: "1", "memory": "64Gi"}, "requests": {"cpu": "4"}},
        "env": [{"name": f"VARIABLE_{at}", "value": f"value-{at}"} for at in range(15)],
        "volumeMounts": [{"name": f"v{at}", "mountPath": f"/mnt/{at}", "readOnly": True} for at in range(8)],
    }


def _managed(manager: str) -> dict[str, Any]:
    fields: dict[str, Any] = {f"f:field{at}": {".": {}, "f:name": {}, "f:value": {}} for at in range(14)}
    return {
        "manager": manager,
        "operation": "Update",
        "apiVersion": "v1",
        "time": "2026-01-01T00:00:00Z",
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:metadata": {"f:labels": fields}, "f:spec": {}},
    }
