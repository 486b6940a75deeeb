"""One real control plane for the whole run, a connection and a namespace for each test."""

import os
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.existing_cluster import ExistingCluster
from tests.support.processes import Running, running
from trimtab.kube import Kube
from trimtab.kube.resources import NAMESPACES
from trimtab.local import paths, ports
from trimtab.local.cluster import LocalCluster, Options

NODES = 8
_FOLDER = Path(__file__).parent
_CRDS = _FOLDER.parents[1] / "crds"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--existing-cluster", action="store_true", help="test the cluster of $KUBECONFIG instead of starting one"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _FOLDER in item.path.parents:
            item.add_marker(pytest.mark.controlplane)


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
class Installed:
    """Trimtab's processes, ready.

    Attributes:
        operator, extender, gateway: The processes.
        gateway_url: Where clients send requests.
    """

    operator: Running
    extender: Running
    gateway: Running
    gateway_url: str = field(default="")


@pytest.fixture(scope="module")
def installed(cluster: LocalCluster | ExistingCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """Custom resources and the three processes, as plain processes with administrator's rights."""
    logs = tmp_path_factory.mktemp("installed")
    kubectl(cluster, "create", "namespace", "trimtab-system", check=False)
    kubectl(cluster, "apply", "--server-side", "--force-conflicts", "-f", str(_CRDS))
    extender_port, gateway_port = cluster.ports["extender"], cluster.ports["gateway"]
    operator_health, operator_metrics, extender_metrics, gateway_admin, gateway_metrics = ports.free(5, ())
    with ExitStack() as stack:

        def start(name: str, ready_port: int, **settings: object) -> Running:
            ready = f"http://127.0.0.1:{ready_port}/readyz"
            log = logs / f"{name}.log"
            return stack.enter_context(running(name, settings, cluster.kubeconfig, ready, log))

        found = Installed(
            start("trimtab-operator", operator_health, health_port=operator_health, metrics_port=operator_metrics),
            start("trimtab-extender", extender_port, port=extender_port, metrics_port=extender_metrics),
            start(
                "trimtab-gateway",
                gateway_admin,
                port=gateway_port,
                admin_port=gateway_admin,
                metrics_port=gateway_metrics,
            ),
            f"http://127.0.0.1:{gateway_port}",
        )
        for process in (found.operator, found.extender, found.gateway):
            process.wait_until_ready()
        yield found


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
