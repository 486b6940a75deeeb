"""Paths of resources on the API server."""

import pytest

from trimtab.kube.resources import DEPLOYMENTS, NODES, PODS, SERVING_POOLS, Resource


@pytest.mark.parametrize(
    ("resource", "namespace", "name", "subresource", "path"),
    [
        (PODS, None, None, "", "/api/v1/pods"),
        (PODS, "ai", None, "", "/api/v1/namespaces/ai/pods"),
        (PODS, "ai", "x", "resize", "/api/v1/namespaces/ai/pods/x/resize"),
        (NODES, "ignored", "n1", "status", "/api/v1/nodes/n1/status"),
        (DEPLOYMENTS, "ai", "chat", "scale", "/apis/apps/v1/namespaces/ai/deployments/chat/scale"),
        (SERVING_POOLS, "ai", "a/b", "", "/apis/trimtab.dev/v1alpha1/namespaces/ai/servingpools/a%2Fb"),
    ],
)
def test_paths(resource: Resource, namespace: str | None, name: str | None, subresource: str, path: str) -> None:
    assert resource.path(namespace, name, subresource) == path


def test_api_versions() -> None:
    assert PODS.api_version == "v1"
    assert DEPLOYMENTS.api_version == "apps/v1"
