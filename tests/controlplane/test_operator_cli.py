"""The commands for people, against a real API server and a real operator."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.controlplane.conftest import kubectl as run_kubectl
from tests.support import operators
from tests.support.operators import (
    a_deployment,
    a_pool,
    because,
    condition,
    deployment,
    gone,
    in_background,
    pool,
    replicas,
    target,
)
from trimtab.api import keys
from trimtab.cli.main import cli
from trimtab.kube import Kube
from trimtab.kube.resources import DEPLOYMENTS, SERVING_POOLS
from trimtab.model.problem import Problem

CRDS = Path(__file__).parents[2] / "crds"
Trimtab = Callable[..., Awaitable[Result]]


@pytest.fixture(scope="module", autouse=True)
def crds(cluster: Any) -> None:
    run_kubectl(cluster, "create", "namespace", operators.LEASE_NAMESPACE, check=False)
    run_kubectl(cluster, "apply", "--server-side", "--force-conflicts", "-f", str(CRDS))


@pytest.fixture
def operator(cluster: Any, tmp_path: Path) -> Iterator[Any]:
    with operators.an_operator(cluster.kubeconfig, tmp_path) as process:
        process.wait_until_ready()
        yield process


@pytest.fixture
def trimtab(cluster: Any) -> Trimtab:
    """`trimtab ...` as a person runs it, but in this process."""

    async def run(*arguments: str) -> Result:
        environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig)}
        return await asyncio.to_thread(CliRunner().invoke, cli, arguments, env=environment)

    return run


async def attach(kube: Kube, namespace: str, **spec: Any) -> None:
    await kube.create(DEPLOYMENTS, a_deployment("web", namespace))
    await kube.create(SERVING_POOLS, a_pool("chat", namespace, targetRef=target("web"), replicas=3, **spec))


@pytest.mark.usefixtures("operator")
async def test_a_proposal_is_explained_and_approved(kube: Kube, namespace: str, trimtab: Trimtab) -> None:
    await attach(kube, namespace, mode="Propose")
    found = await pool(kube, "chat", namespace, lambda one: bool(one.get("status", {}).get("proposals")))
    (proposal,) = found["status"]["proposals"]
    shown = await trimtab("explain", "spool/chat", "-n", namespace)
    assert proposal["id"] in shown.output
    refused = await trimtab("approve", "spool/chat", "-n", namespace, "nonsense")
    assert isinstance(refused.exception, Problem)
    assert proposal["id"] in refused.exception.fix
    assert (await trimtab("approve", "spool/chat", "-n", namespace, proposal["id"])).exit_code == 0
    await deployment(kube, "web", namespace, replicas(3))
    reached = lambda one: one["status"]["recentDecisions"][0].get("observedEffect")  # noqa: E731
    await pool(kube, "chat", namespace, reached)
    shown = await trimtab("explain", "spool/chat", "-n", namespace)
    assert "3 of 3 replicas ready after" in shown.output


@pytest.mark.usefixtures("operator")
async def test_a_contested_knob_is_resumed(cluster: Any, kube: Kube, namespace: str, trimtab: Trimtab) -> None:
    await attach(kube, namespace, mode="Enforce")
    await deployment(kube, "web", namespace, replicas(3))
    early = await trimtab("resume", "spool/chat", "replicas", "-n", namespace)
    assert isinstance(early.exception, Problem)
    await in_background(run_kubectl, cluster, "scale", "deployment/web", "-n", namespace, "--replicas=5")
    await pool(kube, "chat", namespace, because("KnobContested", "KnobContested"))
    assert (await trimtab("resume", "spool/chat", "replicas", "-n", namespace)).exit_code == 0
    await deployment(kube, "web", namespace, replicas(3))


@pytest.mark.usefixtures("operator")
async def test_top_lists_the_pools(kube: Kube, namespace: str, trimtab: Trimtab) -> None:
    await kube.create(SERVING_POOLS, a_pool("chat", namespace, replicas=0))
    await pool(kube, "chat", namespace)
    shown = await trimtab("top", "-n", namespace)
    assert shown.exit_code == 0
    assert shown.output.splitlines()[1].split()[:5] == [namespace, "chat", "True", "0", "0"]


@pytest.mark.usefixtures("operator")
async def test_everything_is_released_by_the_operator_and_acts_again_when_undone(
    kube: Kube, namespace: str, trimtab: Trimtab
) -> None:
    await attach(kube, namespace, mode="Enforce", deletionPolicy="Restore")
    await deployment(kube, "web", namespace, replicas(3))
    done = await trimtab("release", "--all")
    assert f"ServingPool {namespace}/chat: released by the operator" in done.output
    await deployment(kube, "web", namespace, replicas(1))
    assert not (await kube.get(SERVING_POOLS, "chat", namespace))["metadata"].get("finalizers")
    await trimtab("release", "--undo", "spool/chat", "-n", namespace)
    await deployment(kube, "web", namespace, replicas(3))


async def test_without_an_operator_release_does_it_from_here(
    cluster: Any, kube: Kube, namespace: str, trimtab: Trimtab, tmp_path: Path
) -> None:
    with operators.an_operator(cluster.kubeconfig, tmp_path) as process:
        await in_background(process.wait_until_ready)
        await attach(kube, namespace, mode="Enforce", deletionPolicy="Restore")
        await deployment(kube, "web", namespace, replicas(3))
    done = await trimtab("release", "--all", "--wait-seconds", "0")
    assert "set back from 3 to 1" in done.output
    await deployment(kube, "web", namespace, replicas(1))
    found = await kube.get(SERVING_POOLS, "chat", namespace)
    assert keys.FINALIZER not in found["metadata"].get("finalizers", [])
    assert found["status"]["heldKnobs"] == []
    assert (await trimtab("release", "--all", "--wait-seconds", "0")).output == "nothing is held\n"
    await kube.delete(SERVING_POOLS, "chat", namespace)
    await gone(kube, SERVING_POOLS, "chat", namespace)


async def test_without_an_operator_an_explanation_says_so(kube: Kube, namespace: str, trimtab: Trimtab) -> None:
    await kube.create(SERVING_POOLS, a_pool("chat", namespace))
    shown = await trimtab("explain", "spool/chat", "-n", namespace)
    assert "is the operator running?" in shown.output
    assert condition(await kube.get(SERVING_POOLS, "chat", namespace)) == {}
