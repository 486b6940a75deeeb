"""The files that a local cluster's components read, as text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from trimtab.api import keys
from trimtab.local import paths
from trimtab.local.catalog import KUBERNETES

# What kwokctl calls its options and its components, by our name of the port.
_KWOKCTL_PORTS: Final = {
    "etcd": "etcdPort",
    "etcd_peer": "etcdPeerPort",
    "apiserver": "kubeApiserverPort",
    "controller_manager": "kubeControllerManagerPort",
    "scheduler": "kubeSchedulerPort",
    "kwok": "kwokControllerPort",
}
_KWOKCTL_BINARIES: Final = {
    "etcd": "etcdBinary",
    "kube-apiserver": "kubeApiserverBinary",
    "kube-controller-manager": "kubeControllerManagerBinary",
    "kube-scheduler": "kubeSchedulerBinary",
    "kwok": "kwokControllerBinary",
}

# Enough to tell which process made which call: verb, resource, subresource and user of every request.
AUDIT_POLICY: Final = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
"""


def kwokctl(
    ports: Mapping[str, int], programs: Mapping[str, Path], folder: Path, *, disable_qps_limits: bool = False
) -> str:
    """The configuration of `kwokctl create cluster`, stages of fake pods included.

    Args:
        ports: Port of each component.
        programs: Path of each program.
        folder: Where `scheduler.yaml` and `audit-policy.yaml` are.
        disable_qps_limits: Lift the client-side rate limits of the controllers, for tests at scale.
    """
    options: dict[str, Any] = {
        "bindAddress": "127.0.0.1",  # the default is 0.0.0.0, etcd without authentication included
        "kubeVersion": KUBERNETES,
        "kubeSchedulerConfig": str(folder / "scheduler.yaml"),
        "kubeAuditPolicy": str(folder / "audit-policy.yaml"),
        "disableQPSLimits": disable_qps_limits,
        **{option: ports[name] for name, option in _KWOKCTL_PORTS.items()},
        **{option: str(programs[name]) for name, option in _KWOKCTL_BINARIES.items()},
    }
    patches = [
        # Nodes without the annotation belong to the process node. As KwokConfiguration this is refused.
        _arguments(
            "kwok-controller",
            {"manage-all-nodes": "false", "manage-nodes-with-annotation-selector": f"{keys.FAKE_TAINT}=fake"},
        ),
        _arguments(
            "kube-controller-manager",
            {
                # EndpointSlice refuses the 127.x addresses of process pods, and these would complain for ever.
                "controllers": "*,-endpointslice-controller,-endpoints-controller",
                "leader-elect": "false",  # the only one; and one that loses a Lease while etcd restarts ends for good
            },
        ),
        _arguments("kube-apiserver", {"audit-log-maxsize": "500", "audit-log-maxbackup": "1"}),
    ]
    head = {
        "apiVersion": "config.kwok.x-k8s.io/v1alpha1",
        "kind": "KwokctlConfiguration",
        "options": options,
        "componentsPatches": patches,
    }
    return f"{yaml.safe_dump(head, sort_keys=False)}---\n{paths.shipped('stages.yaml').read_text()}"


def scheduler(extender_port: int) -> str:
    """The scheduler configuration that is shipped for clusters, with our extender's port in it."""
    config = yaml.safe_load(_scheduler_file().read_text())
    for extender in config["extenders"]:
        extender["urlPrefix"] = f"http://127.0.0.1:{extender_port}/v1"
    config["leaderElection"] = {"leaderElect": False}  # as for the controller-manager
    return yaml.safe_dump(config, sort_keys=False)


def prometheus(ports: Mapping[str, int], kubeconfig: Path, credentials: Path) -> str:
    """A Prometheus that scrapes the control plane, and every process pod that the API server knows.

    Args:
        ports: Port of each component.
        kubeconfig: How Prometheus finds pods.
        credentials: Folder with `admin.crt` and `admin.key`, for components behind HTTPS.
    """
    secure = {
        "scheme": "https",
        "tls_config": {
            "cert_file": str(credentials / "admin.crt"),
            "key_file": str(credentials / "admin.key"),
            "insecure_skip_verify": True,  # controller-manager and scheduler sign their own certificates
        },
    }
    port = "__meta_kubernetes_pod_container_port_name"
    jobs = [
        _static("etcd", ports["etcd"]),
        _static("kube-apiserver", ports["apiserver"], **secure),
        _static("kube-controller-manager", ports["controller_manager"], **secure),
        _static("kube-scheduler", ports["scheduler"], **secure),
        _static("kwok", ports["kwok"]),
        _static("prometheus", ports["prometheus"]),
        _pods("trimtab-pods", kubeconfig, [_keep(port, "metrics")]),
        # An engine has its metrics on the port that it serves on, which pools name `http` or not at all.
        _pods("engines", kubeconfig, [_keep(_label(keys.POOL), ".+"), _keep(port, "|http.*")]),
    ]
    config = {"global": {"scrape_interval": "5s", "scrape_timeout": "4s"}, "scrape_configs": jobs}
    return yaml.safe_dump(config, sort_keys=False)


def _scheduler_file() -> Path:
    return paths.shipped("manifests") / "scheduler-config.yaml"


def _arguments(component: str, values: Mapping[str, str]) -> dict[str, Any]:
    return {"name": component, "extraArgs": [{"key": key, "value": value} for key, value in values.items()]}


def _static(job: str, port: int, **more: Any) -> dict[str, Any]:
    return {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}], **more}


def _pods(job: str, kubeconfig: Path, keep: list[dict[str, Any]]) -> dict[str, Any]:
    """A job over the ready process pods that pass the `keep` rules, with namespace, pod and pool as labels."""
    names = {"__meta_kubernetes_namespace": "namespace", "__meta_kubernetes_pod_name": "pod", _label(keys.POOL): "pool"}
    copy = [{"source_labels": [source], "target_label": target} for source, target in names.items()]
    process = [_keep(_label(keys.RUN_AS), "process"), _keep("__meta_kubernetes_pod_ready", "true")]
    discovery = {"role": "pod", "kubeconfig_file": str(kubeconfig)}
    return {"job_name": job, "kubernetes_sd_configs": [discovery], "relabel_configs": [*process, *keep, *copy]}


def _keep(label: str, pattern: str) -> dict[str, Any]:
    return {"source_labels": [label], "regex": pattern, "action": "keep"}


def _label(key: str) -> str:
    """What Prometheus calls a pod label."""
    return "__meta_kubernetes_pod_label_" + "".join(letter if letter.isalnum() else "_" for letter in key)
