"""A process node of the test's own, beside the cluster's, which may run a shell and Python as well."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.until import until
from trimtab.api import keys
from trimtab.kube import Kube, NotFound
from trimtab.kube.resources import NODES, PODS
from trimtab.local.process_node import processes

_NODE_UP_SECONDS = 30.0


class ProcessNode:
    """The command `trimtab process-node`, started and ended as often as a test likes."""

    def __init__(self, name: str, kube: Kube, kubeconfig: Path, state_dir: Path, *arguments: str) -> None:
        self.name = name
        self.state_dir = state_dir
        self._kube = kube
        self._command = [
            *(sys.executable, "-m", "trimtab.cli", "process-node"),
            *("--kubeconfig", str(kubeconfig), "--state-dir", str(state_dir), "--node-name", name),
            *("--allow", "sh", "--allow", "python", "--allow", "sleep"),
            *("--back-off", "0.2", "--stop-grace", "1"),
            *arguments,
        ]
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it and wait until its Node is ready."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(  # noqa: ASYNC220 waited for by `end`, which is not asynchronous
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
        await until(self._is_ready, seconds=_NODE_UP_SECONDS)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        if self.process is None:
            return 0
        self.process.send_signal(number)
        code = self.process.wait(timeout=20)
        self.process = None
        return code

    @property
    def log(self) -> Path:
        return self.state_dir.with_suffix(".log")

    def children(self) -> list[int]:
        """The processes of its pods, descendants included."""
        return processes.marked(self.state_dir)

    async def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        try:
            node = await self._kube.get(NODES, self.name)
        except NotFound:
            return False
        addresses = node.get("status", {}).get("addresses") or [{}]
        claimed = (self.state_dir / "network").read_text() if (self.state_dir / "network").exists() else "none"
        ready = {c["type"]: c["status"] for c in node["status"].get("conditions") or ()}.get("Ready")
        taints = {taint["key"] for taint in node["spec"].get("taints") or ()}
        return (
            ready == "True" and addresses[0].get("address") == f"127.{claimed}.0.1" and taints == {keys.PROCESS_TAINT}
        )

    def pod(self, namespace: str, name: str = "web", *, script: str = "", **fields: Any) -> dict[str, Any]:
        """A pod for this node whose main container runs a shell script; keyword arguments replace spec fields."""
        main = {"name": "main", "image": "none", "command": ["sh", "-c", script or "sleep 1000"]}
        return {
            "metadata": {"namespace": namespace, "name": name, "labels": {keys.RUN_AS: "process", "app": name}},
            "spec": {
                "nodeSelector": {"kubernetes.io/hostname": self.name},
                "tolerations": [{"key": keys.PROCESS_TAINT, "operator": "Exists"}],
                "terminationGracePeriodSeconds": 1,
                "containers": [main | fields.pop("container", {})],
            }
            | fields,
        }

    async def wait_for(self, namespace: str, name: str, wanted: Any, *, seconds: float = 30.0) -> dict[str, Any]:
        """Return the pod as soon as `wanted` of it is true."""
        last: dict[str, Any] = {}

        async def look() -> dict[str, Any] | None:
            last.update(await self._kube.get(PODS, name, namespace))
            return last if wanted(last) else None

        try:
            return await until(look, seconds=seconds)
        except TimeoutError as error:
            raise AssertionError(f"pod stayed {last.get('status')}; {self.log.read_text()[-2000:]}") from error


def is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def main_status(pod: dict[str, Any]) -> dict[str, Any]:
    """The status of the container called main; empty before there is one."""
    found = [c for c in pod["status"].get("containerStatuses") or () if c["name"] == "main"]
    return found[0] if found else {}


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
