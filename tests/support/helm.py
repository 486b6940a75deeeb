"""Helm, as a user runs it, with the chart of this checkout."""

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Any

import yaml

from tests.support.kubectl import kubectl

CHART = Path(__file__).resolve().parents[2] / "helm" / "trimtab"
LOCAL = CHART / "values-local.yaml"
NAMESPACE = "trimtab-system"


async def helm(program: Path, *arguments: str, kubeconfig: Path | None = None, check: bool = True) -> str:
    """Run Helm and return what it prints; without `check`, also what it complains about.

    Raises:
        AssertionError: it failed; the message is what it said.
    """
    with tempfile.TemporaryDirectory() as home:  # nothing of the user's, and no stale discovery
        environment = os.environ | {"HELM_CACHE_HOME": home, "HELM_CONFIG_HOME": home, "HELM_DATA_HOME": home}
        environment |= {"KUBECACHEDIR": home} | ({"KUBECONFIG": str(kubeconfig)} if kubeconfig else {})
        process = await asyncio.create_subprocess_exec(
            str(program),
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
        )
        output, complaint = await process.communicate()
    assert not check or process.returncode == 0, f"helm {' '.join(arguments)}: {complaint.decode()}"
    return output.decode() + ("" if check else complaint.decode())


async def install(cluster: Any, *arguments: str) -> str:
    """Install or upgrade the chart with the values for a local cluster; returns once everything is Ready."""
    program = await asyncio.to_thread(cluster.program, "helm")
    return await helm(
        program,
        "upgrade",
        "--install",
        "trimtab",
        str(CHART),
        "--namespace",
        NAMESPACE,
        "--create-namespace",
        "--values",
        str(LOCAL),
        "--wait",
        "--timeout",
        "90s",
        *arguments,
        kubeconfig=cluster.kubeconfig,
    )


async def rendered(cluster: Any, component: str) -> list[dict[str, Any]]:
    """Return what the chart would install of a component, with the values for a local cluster."""
    program = await asyncio.to_thread(cluster.program, "helm")
    text = await helm(program, "template", "trimtab", str(CHART), "--namespace", NAMESPACE, "--values", str(LOCAL))
    documents = [document for document in yaml.safe_load_all(text) if document]
    return [one for one in documents if one["metadata"]["labels"].get("app.kubernetes.io/component") == component]


async def uninstall(cluster: Any, *arguments: str) -> str:
    """Uninstall the chart, its pre-delete hook included."""
    program = await asyncio.to_thread(cluster.program, "helm")
    command = ("uninstall", "trimtab", "--namespace", NAMESPACE, "--wait", "--timeout", "120s", "--ignore-not-found")
    said = await helm(program, *command, *arguments, kubeconfig=cluster.kubeconfig)
    # Roles go before processes do, so Leases are not given up, and the next installation would wait until they expire.
    await kubectl(cluster, "delete", "leases", "--namespace", NAMESPACE, "--all")
    return said
