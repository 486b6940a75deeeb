"""Local clusters that are killed, left behind or get in each other's way."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trimtab.local import owned, ports
from trimtab.local.cluster import LocalCluster, Options
from trimtab.model.problem import Problem

SMALL = Options(nodes=1, prometheus=False, process_node=False)
FLAGS = ("--nodes", "1", "--no-prometheus", "--no-process-node")


@pytest.fixture(autouse=True)
def _only_here(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--existing-cluster"):
        pytest.skip("needs clusters of its own from the local launcher, and --existing-cluster was given")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home for clusters, in which whatever a test leaves is taken down."""
    folder = tmp_path / "home"
    yield folder
    for name in {*LocalCluster.names(folder), "one"}:
        LocalCluster(name, home=folder).down()


@pytest.fixture
def one(home: Path) -> LocalCluster:
    """A small cluster that is up."""
    cluster = LocalCluster("one", home=home)
    cluster.up(SMALL)
    return cluster


@pytest.fixture(scope="module")
def steady(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A small cluster that several tests hurt and repair."""
    cluster = LocalCluster("steady", home=tmp_path_factory.mktemp("steady"))
    if not request.config.getoption("--existing-cluster"):
        cluster.up(SMALL)
    yield cluster
    cluster.down()


@pytest.fixture
def kept(steady: LocalCluster) -> str:
    """A namespace that must survive."""
    name = f"kept-{uuid.uuid4().hex[:8]}"
    kubectl(steady, "create", "namespace", name)
    return name


def launch(home: Path, *arguments: str) -> subprocess.Popen[str]:
    """The command line, as a process that can be killed."""
    return subprocess.Popen(
        [sys.executable, "-m", "trimtab.cli", "cluster", *arguments],
        env={**os.environ, "TRIMTAB_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def runs(cluster: LocalCluster, program: str) -> bool:
    return any(process.argv[0].endswith(f"/{program}") for process in owned.processes(cluster.root))


def kill(cluster: LocalCluster, *names: str) -> None:
    for health in cluster.status().components:
        if health.component in names and health.pid:
            os.kill(health.pid, signal.SIGKILL)


def kubectl(cluster: LocalCluster, *arguments: str) -> str:
    command = [str(cluster.program("kubectl")), "--kubeconfig", str(cluster.kubeconfig), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def assert_nothing_is_left(cluster: LocalCluster, home: Path, used: set[int]) -> None:
    assert owned.processes(cluster.root) == []
    assert not home.exists()
    for port in used:
        assert ports.free(1, (), range(port, port + 1)) == [port]


def test_down_leaves_no_process_port_or_file(one: LocalCluster, home: Path) -> None:
    used = set(one.ports.values())
    assert one.down() is True
    assert_nothing_is_left(one, home, used)


def test_two_clusters_run_side_by_side(steady: LocalCluster, cluster: LocalCluster) -> None:
    assert not set(steady.ports.values()) & set(cluster.ports.values())
    kubectl(steady, "create", "namespace", "only-here")
    assert "only-here" not in kubectl(cluster, "get", "namespaces")
    assert cluster.status().well


def test_a_killed_component_is_named_with_its_fix_and_the_fix_repairs_it(steady: LocalCluster, kept: str) -> None:
    kill(steady, "kube-scheduler")
    wait_for(lambda: not runs(steady, "kube-scheduler"))
    status = steady.status()
    assert not status.well
    (health,) = [item for item in status.components if item.problem]
    assert (health.component, health.pid, health.problem) == ("kube-scheduler", None, "does not run")
    assert health.fix == "trimtab cluster restart kube-scheduler --name steady"
    steady.restart("kube-scheduler")
    assert steady.status().well
    assert kept in kubectl(steady, "get", "namespaces")


def test_a_killed_etcd_shows_in_the_api_server_and_its_restart_repairs_both(steady: LocalCluster, kept: str) -> None:
    kill(steady, "etcd")
    wait_for(lambda: not runs(steady, "etcd"))

    def problems() -> dict[str, str]:
        return {item.component: item.problem for item in steady.status().components if item.problem}

    assert problems()["etcd"] == "does not run"
    wait_for(lambda: "etcd" in problems().get("kube-apiserver", ""))
    steady.restart("etcd")
    assert steady.status().well
    assert kept in kubectl(steady, "get", "namespaces")


def test_a_cluster_whose_every_process_was_killed_can_be_restarted_with_its_objects(
    steady: LocalCluster, kept: str
) -> None:
    kill(steady, *(item.component for item in steady.status().components))
    wait_for(lambda: not owned.processes(steady.root))
    steady.restart()
    assert kept in kubectl(steady, "get", "namespaces")


def test_a_stopped_component_is_seen_not_to_answer(steady: LocalCluster) -> None:
    (pid,) = [item.pid for item in steady.status().components if item.component == "kwok-controller"]
    assert pid
    os.kill(pid, signal.SIGSTOP)
    (health,) = [item for item in steady.status().components if item.problem]
    assert health.component == "kwok-controller"
    assert "does not answer" in health.problem
    os.kill(pid, signal.SIGCONT)
    wait_for(lambda: steady.status().well)


def test_yesterdays_cluster_does_not_block_and_pids_that_are_strangers_now_are_left_alone(
    one: LocalCluster, home: Path
) -> None:
    """After a reboot there are files, but no processes, and the recorded pids belong to others."""
    kill(one, *(item.component for item in one.status().components))
    wait_for(lambda: not owned.processes(one.root))
    with subprocess.Popen(["sleep", "60"]) as stranger:
        for file in (one.root / "kwok" / "clusters" / "one" / "pids").iterdir():
            file.write_text(str(stranger.pid))
        assert {item.problem for item in one.status().components} == {"does not run"}
        one.up(SMALL)
        assert one.status().well
        one.down()
        assert stranger.poll() is None
        stranger.kill()
    assert not home.exists()


@pytest.mark.parametrize("moment", ["etcd", "kwok"])
def test_a_launcher_killed_on_the_way_up_does_not_block_the_next(home: Path, moment: str) -> None:
    cluster = LocalCluster("one", home=home)
    with launch(home, "up", "--name", "one", *FLAGS) as launcher:
        wait_for(lambda: runs(cluster, {"etcd": "etcd", "kwok": "kwok-controller"}[moment]))
        launcher.kill()
        launcher.communicate()
    cluster.up(SMALL)
    assert cluster.status().well
    used = set(cluster.ports.values())
    cluster.down()
    assert_nothing_is_left(cluster, home, used)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_launcher_takes_everything_down(home: Path, number: signal.Signals) -> None:
    cluster = LocalCluster("one", home=home)
    with launch(home, "up", "--name", "one", *FLAGS) as launcher:
        wait_for(lambda: runs(cluster, "kube-apiserver"))
        used = set(cluster.ports.values())
        launcher.send_signal(number)
        said, _ = launcher.communicate(timeout=30)
        assert launcher.returncode == 130
    assert said.endswith("interrupted\n")
    assert_nothing_is_left(cluster, home, used)


def test_a_second_launcher_waits_for_the_first(home: Path) -> None:
    cluster = LocalCluster("one", home=home)
    with launch(home, "up", "--name", "one", *FLAGS) as first:
        wait_for(lambda: runs(cluster, "etcd"))
        with launch(home, "up", "--name", "one", *FLAGS) as second:
            said = second.communicate(timeout=60)[0]
            assert second.returncode == 0
        first.communicate(timeout=60)
        assert first.returncode == 0
    assert f"waiting for pid {first.pid}, which works on cluster one" in said
    assert "cluster one is already up" in said


def test_without_free_ports_nothing_is_started(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_PORTS", "23990-23994")
    cluster = LocalCluster("one", home=home)
    with pytest.raises(Problem, match=r"only \d of 10 ports that a cluster needs are free in 23990-23994\nfix: "):
        cluster.up(SMALL)
    assert not home.exists()


def test_a_home_that_kwokctl_would_put_elsewhere_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "home of clusters"
    with pytest.raises(Problem, match=r"home of clusters/clusters/one' has characters .*\nfix: .*TRIMTAB_HOME=FOLDER"):
        LocalCluster("one", home=home).up(SMALL)
    assert not home.exists()


def test_a_component_that_cannot_start_is_named_with_its_last_words(home: Path, tmp_path: Path) -> None:
    """An etcd that gives up at once: everything that was started beside it is taken down again."""
    cluster = LocalCluster("one", home=home)
    assets = tmp_path / "assets"
    assets.mkdir()
    (assets / "etcd").write_text(
        "#!/bin/sh\n[ \"$1\" = --version ] && echo 'etcd Version: 3.7.3' && exit\necho I will not >&2\n"
    )
    (assets / "etcd").chmod(0o755)
    with launch_with(home, {"TRIMTAB_ASSETS": str(assets)}) as launcher:
        said, _ = launcher.communicate(timeout=100)
    assert launcher.returncode == 1
    assert "I will not" in said
    assert "fix: " in said
    assert owned.processes(cluster.root) == []
    assert not home.exists()


def launch_with(home: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "trimtab.cli", "cluster", "up", "--name", "one", *FLAGS]
    environ = {**os.environ, "TRIMTAB_HOME": str(home), **environment}
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_the_command_line_tells_a_whole_story(home: Path) -> None:
    def say(*arguments: str) -> tuple[int, str]:
        with launch(home, *arguments) as process:
            return (process.communicate(timeout=90)[0], process.returncode)[::-1]

    code, said = say("up", "--name", "one", *FLAGS)
    assert code == 0
    assert f"export KUBECONFIG={home}/clusters/one/kubeconfig" in said
    code, said = say("status", "--name", "one", "-o", "json")
    assert code == 0
    assert json.loads(said)["well"] is True
    assert say("kubeconfig", "--name", "one") == (0, f"{home}/clusters/one/kubeconfig\n")
    assert "one: well, 1 nodes" in say("list")[1]
    assert '"auditID"' in say("logs", "audit", "--name", "one", "--tail", "1")[1]
    assert "choose from etcd, " in say("logs", "nonsense", "--name", "one")[1]
    kill(LocalCluster("one", home=home), "kube-scheduler")
    code, said = say("status", "--name", "one")
    assert code == 1
    assert "fix kube-scheduler: trimtab cluster restart kube-scheduler --name one" in said
    assert say("restart", "kube-scheduler", "--name", "one")[0] == 0
    assert say("down", "--all") == (0, "cluster one is down\n")
    assert say("down", "--name", "one") == (0, "there is no cluster one\n")
    assert not home.exists()
