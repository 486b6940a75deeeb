"""The rights that the chart grants, for processes that a test runs by itself.

A process that a test starts would otherwise have an administrator's rights, and a missing grant would show only in a
cluster of a user. Each gets a service account of its own, bound to the rules of `manifests/install.yaml`, and the audit
log shows what it used of them.
"""

import atexit
import json
import os
import shutil
import subprocess
import tempfile
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from trimtab.local.programs import Programs

MANIFEST = Path(__file__).resolve().parents[2] / "manifests" / "install.yaml"
NAMESPACE = "trimtab-system"
SUFFIX = "-under-test"
_RIGHTS = frozenset({"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"})


def granted(process: str) -> list[dict[str, Any]]:
    """Return the service account of a process, its roles and their bindings, as the chart renders them."""
    documents = yaml.safe_load_all(MANIFEST.read_text(encoding="utf-8"))
    return [one for one in documents if one["kind"] in _RIGHTS and one["metadata"]["name"] == process]


def kubeconfig_for(process: str, administrator: Path) -> Path:
    """Grant what the chart grants to `process`, and return a kubeconfig that has these rights and no others.

    Args:
        process: e.g. `trimtab-operator`.
        administrator: a kubeconfig that may create roles.
    """
    return _kubeconfig(process, administrator, administrator.stat().st_mtime_ns)


@cache
def _kubeconfig(process: str, administrator: Path, _written: int) -> Path:
    """Once for each process and cluster: one that is brought up anew has a new administrator's file."""
    kubectl = shutil.which("kubectl") or Programs.standard().path("kubectl")

    def run(*arguments: str, stdin: str = "") -> str:
        command = [str(kubectl), "--kubeconfig", str(administrator), *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(arguments)}: {done.stderr}"
        return done.stdout

    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    wanted = {"apiVersion": "v1", "kind": "List", "items": [namespace, *map(_renamed, granted(process))]}
    run("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(wanted))
    token = run("create", "token", process + SUFFIX, "--namespace", NAMESPACE, "--duration", "24h").strip()
    access = json.loads(run("config", "view", "--raw", "--minify", "--flatten", "-o", "json"))
    access["users"] = [{"name": access["users"][0]["name"], "user": {"token": token}}]
    descriptor, path = tempfile.mkstemp(prefix=f"{process}-")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(access, file)
    atexit.register(Path(path).unlink, missing_ok=True)
    return Path(path)


def _renamed(document: dict[str, Any]) -> dict[str, Any]:
    """Keep clear of the chart's own objects, which a test may install into the same cluster."""
    copy = deepcopy(document)
    copy["metadata"]["name"] += SUFFIX
    copy["metadata"].pop("labels", None)
    for named in [copy.get("roleRef", {}), *copy.get("subjects", [])]:
        if named:
            named["name"] += SUFFIX
    return copy
