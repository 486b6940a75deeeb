"""`trimtab demo`, shortened: all of it once, then Ctrl-C in a second run on the same cluster."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trimtab.local import owned
from trimtab.local.cluster import LocalCluster

NAME = f"demo-test-{os.getpid()}"
COMMAND = (sys.executable, "-m", "trimtab.cli", "demo", "--name", NAME, "--trace-seconds", "60")


@pytest.fixture(scope="module")
def local(request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
    if request.config.getoption("--existing-cluster", default=False):
        pytest.skip("the demo brings its own cluster")
    cluster = LocalCluster(NAME)
    yield cluster
    cluster.down()


def start(out: Path) -> subprocess.Popen[str]:
    """The demo in a process group of its own, as a terminal has it."""
    return subprocess.Popen(
        [*COMMAND, "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def read_until(demo: subprocess.Popen[str], text: str) -> str:
    assert demo.stderr is not None
    said = ""
    for line in demo.stderr:
        said += line
        if text in line:
            return said
    raise AssertionError(f"the demo ended before it said {text!r}:\n{said}")


@pytest.mark.timeout(240)
def test_the_whole_demo_then_an_interrupted_one(local: LocalCluster, tmp_path: Path) -> None:
    out, err = start(tmp_path).communicate(timeout=150)
    assert "Ready" in err
    assert re.search(r"ai/chat +True +3/3 +Enforce", err), err
    assert re.search(r"summarize +row-1-rack-\d", err), err
    assert "scale spool chat --replicas=3" in err
    assert "delete pod chat-" in err
    _check_figures(tmp_path, out)
    assert "kubectl get trimtab -A" in out
    assert local.status().well

    again = start(tmp_path)
    said = read_until(again, "replaying 60 s of azure-conv")
    assert "is already up" in said
    os.killpg(again.pid, signal.SIGINT)
    _, err = again.communicate(timeout=60)
    assert again.returncode == 130, err
    assert "removed" in err
    assert not local.exists
    assert not owned.processes(local.root)
    assert not tmp_path.exists()


def _check_figures(folder: Path, out: str) -> None:
    """What the table says is what the files say, and nearly all requests were served."""
    summary = json.loads((folder / "summary.json").read_text())
    with (folder / "requests.csv").open() as file:
        rows = list(csv.DictReader(file))
    served = sum(row["outcome"] == "ok" for row in rows)
    assert len(rows) == 191 == summary["total"]["offered"]
    assert f"{served} ok" in out
    # One engine is deleted on purpose, and with it the streams that it had.
    assert served >= 0.85 * len(rows), summary["total"]["outcomes"]
    assert summary["about"]["timeScale"] == 5
    assert (folder / "replay.png").read_bytes().startswith(b"\x89PNG")


def test_down_without_a_demo_says_so() -> None:
    done = subprocess.run(
        [*COMMAND[:4], "--name", f"{NAME}-none", "--down"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0
    assert "there was nothing to remove" in done.stderr
