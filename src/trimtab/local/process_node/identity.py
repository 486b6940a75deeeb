"""Who a pod's processes are: a kubeconfig that points to the pod's own service account token."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from trimtab.kube import Kube
from trimtab.kube.resources import SERVICE_ACCOUNTS
from trimtab.local.process_node.spec import Pod, TokenFile
from trimtab.model.problem import Problem


@dataclass(frozen=True, slots=True)
class Cluster:
    """How to reach the API server: the `cluster` entry of a kubeconfig, with absolute paths."""

    entry: Mapping[str, Any]

    @property
    def address(self) -> tuple[str, int]:
        """Return host and port."""
        url = urlsplit(self.entry["server"])
        return url.hostname or "127.0.0.1", url.port or (443 if url.scheme == "https" else 80)


def read_cluster(kubeconfig: Path) -> Cluster:
    """Return the cluster of the kubeconfig's current context.

    Raises:
        Problem: the file is missing, or names no cluster.
    """
    try:
        config = yaml.safe_load(kubeconfig.read_text())
        contexts = {context["name"]: context["context"] for context in config["contexts"]}
        clusters = {cluster["name"]: cluster["cluster"] for cluster in config["clusters"]}
        entry = dict(clusters[contexts[config["current-context"]]["cluster"]])
    except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
        raise Problem(f"kubeconfig {kubeconfig} is not usable: {error!r}", fix="pass --kubeconfig FILE") from error
    if authority := entry.get("certificate-authority"):
        entry["certificate-authority"] = str((kubeconfig.parent / authority).resolve())
    return Cluster(entry)


def pod_kubeconfig(cluster: Cluster, namespace: str, token: Path) -> str:
    """Return a kubeconfig that acts with the token in a file, which is read again when it is renewed."""
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "local", "cluster": dict(cluster.entry)}],
            "users": [{"name": "pod", "user": {"tokenFile": str(token)}}],
            "contexts": [{"name": "pod", "context": {"cluster": "local", "user": "pod", "namespace": namespace}}],
            "current-context": "pod",
        }
    )


async def issue_token(kube: Kube, pod: Pod, wanted: TokenFile) -> str:
    """Ask the API server for a token of the pod's service account that dies with the pod.

    Raises:
        KubeError: the account does not exist, or the server did not answer.
    """
    spec: dict[str, Any] = {
        "expirationSeconds": wanted.expiration_seconds,
        "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid},
    }
    if wanted.audience:
        spec["audiences"] = [wanted.audience]
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    answer = await kube.request("POST", SERVICE_ACCOUNTS.path(pod.namespace, pod.service_account, "token"), body)
    return str(answer["status"]["token"])
