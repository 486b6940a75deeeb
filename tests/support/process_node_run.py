"""A process node of the test's own, beside the cluster's, which may run a shell and Python as well."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.support.until import until
from trimtab.api import keys
from trimtab.kube import Kube
from trimtab.kube.resources import PODS
from trimtab.local.process_node import processes

_NODE_UP_SECONDS = 30.0


class ProcessNode:
    """The command `trimtab process-node`, started and ended as often as a test likes."""

    def __init__(self, name: str, kubeconfig: Path, state_dir: Path, *arguments: str) -> None:
        self.name = name
        self.state_dir = state_dir
        self._command = [
            *(sys.executable, "-m", "trimtab.cli", "process-node"),
            *("--kubeconfig", str(kubeconfig), "--state-dir", str(state_dir), "--node-name", name),
            *("--allow", "sh", "--allow", "python", "--allow", "sleep"),
            *("--back-off", "0.2", "--stop-grace", "1"),
            *arguments,
        ]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it says that it is ready."""
        with self.log.open("ab") as output:
            known = output.tell()
            self.process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + _NODE_UP_SECONDS
        while "process node ready" not in self.log.read_text()[known:]:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, f"{self.name} is not ready: {self.log.read_text()}"
            time.sleep(0.05)

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

    def children(self, uid: str = "") -> list[int]:
        """The processes of its pods, or of one pod, descendants included."""
        return processes.marked(processes.Mark(self.state_dir, uid))

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

    async def wait_for(
        self, kube: Kube, namespace: str, name: str, wanted: Any, *, seconds: float = 30.0
    ) -> dict[str, Any]:
        """Return the pod as soon as `wanted` of it is true."""
        last: dict[str, Any] = {}

        async def look() -> dict[str, Any] | None:
            last.update(await kube.get(PODS, name, namespace))
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
