"""One real control plane for the whole run, a connection and a namespace for each test."""

import asyncio
import os
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import helm
from tests.support.existing_cluster import ExistingCluster
from trimtab.kube import Kube
from trimtab.kube.resources import NAMESPACES
from trimtab.local import paths
from trimtab.local.cluster import LocalCluster, Options

NODES = 8
_FOLDER = Path(__file__).parent
_CRDS = _FOLDER.parents[1] / "crds"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--existing-cluster", action="store_true", help="test the cluster of $KUBECONFIG instead of starting one"
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _FOLDER in item.path.parents:
            item.add_marker(pytest.mark.controlplane)
    # What the processes did is compared with what they may do after they have done everything.
    items.sort(key=lambda item: item.path == _FOLDER / "test_rights.py")


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[LocalCluster | ExistingCluster]:
    """The cluster that all tests of the run share: 8 fake nodes, a process node, Prometheus."""
    if request.config.getoption("--existing-cluster", default=False):
        yield ExistingCluster()
        return
    _take_down_what_killed_runs_left()
    local = LocalCluster(f"test-{os.getpid()}")
    try:
        local.up(Options(nodes=NODES, disable_qps_limits=True))
        yield local
    finally:
        local.down()


@pytest.fixture
async def kube(cluster: LocalCluster | ExistingCluster) -> AsyncIterator[Kube]:
    """An administrator's connection."""
    async with Kube.connect(cluster.kubeconfig, field_manager="tests") as connection:
        yield connection


@pytest.fixture
async def namespace(kube: Kube) -> AsyncIterator[str]:
    """A new namespace, deleted (not awaited) after the test."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    await kube.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    await kube.delete(NAMESPACES, name)


@dataclass(frozen=True)
class Deployed:
    """A process of the chart, in its pod.

    Attributes:
        name: its Deployment.
        ready: address that answers 200 when it is ready.
    """

    name: str
    ready: str


@dataclass(frozen=True)
class Installed:
    """Trimtab as the chart installs it: pods that are processes, with their own service accounts.

    Attributes:
        operator, extender, gateway: The processes.
        gateway_url: Where clients send requests.
    """

    operator: Deployed
    extender: Deployed
    gateway: Deployed
    gateway_url: str


@pytest.fixture(scope="module")
def installed(cluster: LocalCluster | ExistingCluster) -> Iterator[Installed]:
    """The chart, installed with the values for a local cluster, and uninstalled after the module."""
    asyncio.run(helm.install(cluster))
    kubectl(cluster, "apply", "--server-side", "--force-conflicts", "-f", str(_CRDS))
    yield Installed(
        _deployed(cluster, "operator", 8081),
        _deployed(cluster, "extender", 8888),
        _deployed(cluster, "gateway", 8081),
        f"http://127.0.0.1:{cluster.ports['gateway']}",
    )
    asyncio.run(helm.uninstall(cluster, "--no-hooks"))  # `test_helm.py` tries the hook


def _deployed(cluster: LocalCluster | ExistingCluster, component: str, port: int) -> Deployed:
    selector = f"app.kubernetes.io/name=trimtab,app.kubernetes.io/component={component}"
    where = ("-n", helm.NAMESPACE, "-l", selector, "-o", "jsonpath={.items[0].status.podIP}")
    address = kubectl(cluster, "get", "pods", *where)
    return Deployed(f"trimtab-{component}", f"http://{address}:{port}/readyz")


def kubectl(cluster: LocalCluster | ExistingCluster, *arguments: str, check: bool = True) -> str:
    """What kubectl prints."""
    command = [str(cluster.program("kubectl")), "--kubeconfig", str(cluster.kubeconfig), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done.stdout


def _take_down_what_killed_runs_left() -> None:
    for name in LocalCluster.names(paths.home()):
        pid = name.removeprefix("test-")
        if name.startswith("test-") and pid.isdigit() and not Path("/proc", pid).exists():
            LocalCluster(name).down()
