"""The process from outside: what it says when it cannot start, and that it then ends."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.api_server import write_kubeconfig

OPERATOR = Path(sys.executable).parent / "trimtab-operator"


def run(kubeconfig: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("TRIMTAB_OPERATOR_", "POD_"))}
    given = plain | environment | {"KUBECONFIG": str(kubeconfig)}
    return subprocess.run(
        [str(OPERATOR), *arguments], env=given, capture_output=True, text=True, timeout=60, check=False
    )


def last_line(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    line: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])
    return line


def test_without_access_to_a_cluster_it_says_what_it_tried(tmp_path: Path) -> None:
    done = run(tmp_path / "absent")
    assert done.returncode == 1
    assert last_line(done)["message"] == "cannot start"
    assert str(tmp_path / "absent") in last_line(done)["error"]


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", "http://127.0.0.1:9", "token")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(kubeconfig, "--health-port", str(port))
    assert done.returncode == 1
    assert last_line(done)["message"] == "cannot listen"
    assert str(port) in last_line(done)["ports"]


def test_a_bad_setting_is_named_and_nothing_is_started(tmp_path: Path) -> None:
    done = run(tmp_path / "absent", TRIMTAB_OPERATOR_CONCURRENCY="0")
    assert done.returncode == 1
    assert "concurrency" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("setting", ["--namespace", "--health-port", "--proposal-seconds", "--log-format"])
def test_help_lists_the_settings(tmp_path: Path, setting: str) -> None:
    done = run(tmp_path / "absent", "--help")
    assert done.returncode == 0
    assert setting in done.stdout
