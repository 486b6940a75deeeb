"""The objects that a serving pool owns: a Deployment, a headless Service and a PodDisruptionBudget."""

from dataclasses import dataclass
from typing import Any, Final

import orjson

from trimtab.api import ServingPool, keys
from trimtab.api.common import ENGINE_CONTAINER
from trimtab.kube.client import Object
from trimtab.kube.resources import DEPLOYMENTS, PDBS, SERVICES, SERVING_POOLS, Resource

OWNED: Final = (DEPLOYMENTS, SERVICES, PDBS)  # in the order of their writing: a bad template stops the rest


@dataclass(frozen=True, slots=True)
class Blueprint:
    """What is needed to write a pool's objects; the template stays serialized, which is small and hashable.

    Attributes:
        name: of the pool and of all its objects.
        namespace: of the pool and of all its objects.
        uid: of the pool, for the owner reference.
        port: where the engine answers.
        template: the PodTemplateSpec with the pool's label and variant, as JSON.
    """

    name: str
    namespace: str
    uid: str
    port: int
    template: bytes

    @classmethod
    def of(cls, pool: ServingPool) -> "Blueprint | None":
        """Return the blueprint of a pool that owns its workload, None for one that attaches to a target."""
        if pool.spec.workload is None:
            return None
        metadata = pool.metadata
        template = orjson.dumps(_template(pool, pool.spec.workload.template))
        return cls(metadata.name, metadata.namespace, metadata.uid, pool.spec.engine.port, template)

    def build(self, resource: Resource, replicas: int | None = None) -> Object:
        """Return one owned object as it is applied; without `replicas` a Deployment leaves them to others."""
        specs = {DEPLOYMENTS: self._deployment, SERVICES: self._service, PDBS: self._disruption_budget}
        return {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": self._metadata(),
            "spec": specs[resource](replicas),
        }

    @property
    def selector(self) -> dict[str, str]:
        """Return the labels by which the pool's pods are found."""
        return {keys.POOL: self.name}

    def _metadata(self) -> Object:
        return {
            "name": self.name,
            "namespace": self.namespace,
            "labels": {**self.selector, "app.kubernetes.io/name": self.name, "app.kubernetes.io/managed-by": "trimtab"},
            "ownerReferences": [
                {
                    "apiVersion": SERVING_POOLS.api_version,
                    "kind": SERVING_POOLS.kind,
                    "name": self.name,
                    "uid": self.uid,
                    "controller": True,
                }
            ],
        }

    def _deployment(self, replicas: int | None) -> Object:
        count = {} if replicas is None else {"replicas": replicas}
        return count | {"selector": {"matchLabels": self.selector}, "template": orjson.loads(self.template)}

    def _service(self, _: int | None) -> Object:
        port = {"name": "http", "port": self.port, "targetPort": self.port, "protocol": "TCP"}
        return {"clusterIP": "None", "selector": self.selector, "ports": [port]}

    def _disruption_budget(self, _: int | None) -> Object:
        return {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": self.selector},
        }


def selector_text(pool: str) -> str:
    """Return the selector of a pool's pods in the form that `/scale` shows."""
    return f"{keys.POOL}={pool}"


def _template(pool: ServingPool, template: dict[str, Any]) -> dict[str, Any]:
    """Return the template with the pool's label, and with the arguments and GPUs of the variant in use."""
    metadata = template.get("metadata") or {}
    labels = {**(metadata.get("labels") or {}), keys.POOL: pool.metadata.name}
    spec = template["spec"]
    containers = [_engine(pool, one) if one.get("name") == ENGINE_CONTAINER else one for one in spec["containers"]]
    return {**template, "metadata": {**metadata, "labels": labels}, "spec": {**spec, "containers": containers}}


def _engine(pool: ServingPool, container: dict[str, Any]) -> dict[str, Any]:
    """Add the best variant of the first model, which is the one in use while nothing chooses another."""
    variants = pool.spec.models[0].variants
    if not variants:
        return container
    variant = variants[0]
    changed = dict(container)
    if variant.args:
        changed["args"] = [*(container.get("args") or ()), *variant.args]
    resources = container.get("resources") or {}
    limits = resources.get("limits") or {}
    if variant.gpus and keys.GPU_RESOURCE not in limits:  # a template that names its GPUs knows better
        changed["resources"] = {**resources, "limits": {**limits, keys.GPU_RESOURCE: str(variant.gpus)}}
    return changed
