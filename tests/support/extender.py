"""A running extender, and what it says of itself."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.controlplane.conftest import kubectl
from tests.support.placement import Hall
from tests.support.processes import Running, running
from tests.support.until import until
from trimtab.actuate.nudge import carry_nudges
from trimtab.kube import Kube
from trimtab.local import ports
from trimtab.local.cluster import LocalCluster

CRDS = Path(__file__).parents[2] / "crds"


class Served:
    """An extender at an address."""

    def __init__(self, address: str, port: int = 8888, metrics_port: int = 9090) -> None:
        self._url = f"http://{address}:{port}"
        self._metrics_url = f"http://{address}:{metrics_port}/metrics"

    def state(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self._url}/v1/state", timeout=5) as answer:
            state: dict[str, Any] = json.load(answer)
            return state

    def readiness(self) -> tuple[int, str]:
        """The status and text of /readyz; 0 when nobody listens."""
        try:
            with urllib.request.urlopen(f"{self._url}/readyz", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def passing(self, pod: dict[str, Any], nodes: list[str]) -> list[str]:
        """Ask as the scheduler does, and return the nodes that the pod may go to."""
        body = json.dumps({"Pod": pod, "NodeNames": nodes}).encode()
        asked = urllib.request.Request(f"{self._url}/v1/filter", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=5) as answer:
            names: list[str] = json.load(answer)["NodeNames"]
            return names

    def domain(self, name: str) -> dict[str, Any]:
        return next((domain for domain in self.state()["domains"] if domain["name"] == name), {})

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric over all series that carry these labels."""
        with urllib.request.urlopen(self._metrics_url, timeout=5) as answer:
            text = answer.read().decode()
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return sum(one.value for one in samples if one.name == name and labels.items() <= one.labels.items())


class Extender(Served):
    """An extender that is a process of the test."""

    def __init__(self, process: Running, port: int, metrics_port: int) -> None:
        super().__init__("127.0.0.1", port, metrics_port)
        self.process = process


def prepare(cluster: LocalCluster) -> None:
    """Apply the custom resources and make the namespace."""
    kubectl(cluster, "apply", "--server-side", "--force-conflicts", "-f", str(CRDS))
    kubectl(cluster, "create", "namespace", "trimtab-system", check=False)


@contextmanager
def start_extender(
    cluster: LocalCluster, log: Path, *, port: int | None = None, wait: bool = True, **settings: object
) -> Iterator[Extender]:
    """Run an extender, where the cluster's scheduler looks for it unless `port` says otherwise."""
    prepare(cluster)
    port = port or cluster.ports["extender"]
    (metrics_port,) = ports.free(1, (port,))
    chosen = {"port": port, "metrics_port": metrics_port, "tick_seconds": 0.2, "drain_seconds": 1} | settings
    with running("trimtab-extender", chosen, cluster.kubeconfig, f"http://127.0.0.1:{port}/readyz", log) as process:
        if wait:
            process.wait_until_ready()
        yield Extender(process, port, metrics_port)


@asynccontextmanager
async def nudging(kube: Kube) -> AsyncIterator[None]:
    """The operator's part in waking rejected pods."""
    carrying = asyncio.create_task(carry_nudges(kube, "trimtab-system"))
    try:
        yield
    finally:
        carrying.cancel()
        with suppress(asyncio.CancelledError):
            await carrying


async def charged(extender: Served, domain: str, watts: int) -> None:
    """Wait until a domain is charged so much."""

    async def is_charged() -> bool:
        return extender.domain(domain).get("charged_watts") == watts

    await until(is_charged)


async def known(extender: Served, where: Hall, /, **limits: int) -> None:
    """Wait until the extender knows these limits."""

    async def all_known() -> bool:
        usable = {domain["name"]: domain["usable_watts"] for domain in extender.state()["domains"]}
        return all(usable.get(where.row(row)) == watts for row, watts in limits.items())

    await until(all_known)
