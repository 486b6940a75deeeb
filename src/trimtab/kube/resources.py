"""Where each kind lives on the API server."""

from dataclasses import dataclass
from urllib.parse import quote

from trimtab.api import keys


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource type.

    Attributes:
        group: API group; empty for the core group.
        version: API version, e.g. `v1`.
        plural: the name in paths, e.g. `deployments`.
        kind: the object's kind.
        namespaced: whether objects live in namespaces.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """Return what goes into `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str = "") -> str:
        """Return the URL path of the collection (all namespaces, or one), of an object, or of its subresource."""
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if namespace is not None and self.namespaced:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        if name is not None:
            parts.append(quote(name, safe=""))
        if subresource:
            parts.append(subresource)
        return "/".join(parts)


PODS = Resource("", "v1", "pods", "Pod")
NODES = Resource("", "v1", "nodes", "Node", namespaced=False)
SERVICES = Resource("", "v1", "services", "Service")
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
SECRETS = Resource("", "v1", "secrets", "Secret")
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
EVENTS = Resource("", "v1", "events", "Event")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
REPLICA_SETS = Resource("apps", "v1", "replicasets", "ReplicaSet")
STATEFUL_SETS = Resource("apps", "v1", "statefulsets", "StatefulSet")
PDBS = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
HPAS = Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
CRDS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False)


def _own(plural: str, kind: str, *, namespaced: bool = True) -> Resource:
    return Resource(keys.GROUP, keys.VERSION, plural, kind, namespaced)


SERVING_POOLS = _own("servingpools", "ServingPool")
MULTIMODAL_PIPELINES = _own("multimodalpipelines", "MultimodalPipeline")
MULTIMODAL_STAGES = _own("multimodalstages", "MultimodalStage")
MICROSERVICE_SLOS = _own("microserviceslos", "MicroserviceSLO")
POWER_DOMAINS = _own("powerdomains", "PowerDomain", namespaced=False)
SHARED_BUDGETS = _own("sharedbudgets", "SharedBudget", namespaced=False)
NODE_POLICIES = _own("nodepolicies", "NodePolicy", namespaced=False)
NODE_STATES = _own("nodestates", "NodeState", namespaced=False)

TRIMTAB_KINDS = (
    SERVING_POOLS,
    MULTIMODAL_PIPELINES,
    MULTIMODAL_STAGES,
    MICROSERVICE_SLOS,
    POWER_DOMAINS,
    SHARED_BUDGETS,
    NODE_POLICIES,
    NODE_STATES,
)
