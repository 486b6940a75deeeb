"""The shipped alerts in a real Prometheus."""

import asyncio
import json
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.until import until
from trimtab.local.cluster import LocalCluster

FILE = Path(__file__).parents[2] / "manifests" / "monitoring" / "alerts.yaml"


@pytest.fixture
def address(cluster: LocalCluster, tmp_path: Path) -> Iterator[str]:
    """A Prometheus that has the alerts and scrapes nothing."""
    config = tmp_path / "prometheus.yaml"
    config.write_text(yaml.safe_dump({"global": {"evaluation_interval": "1s"}, "rule_files": [str(FILE)]}))
    with socket.create_server(("127.0.0.1", 0)) as free:
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    flags = [f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}", f"--web.listen-address={listen}"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([str(cluster.program("prometheus")), *flags], stdout=log, stderr=log)
    try:
        yield f"http://{listen}"
    finally:
        process.terminate()
        process.wait(20)


def evaluated(address: str) -> list[Any] | None:
    """Return all rules once each has been evaluated."""
    try:
        with urllib.request.urlopen(f"{address}/api/v1/rules", timeout=5) as answer:
            groups = json.load(answer)["data"]["groups"]
    except OSError:
        return None
    rules = [rule for group in groups for rule in group["rules"]]
    return rules if rules and all(rule["health"] != "unknown" for rule in rules) else None


async def test_prometheus_takes_every_alert_and_misses_who_does_not_report(address: str) -> None:
    rules = await until(lambda: asyncio.to_thread(evaluated, address))
    shipped = [rule["alert"] for group in yaml.safe_load(FILE.read_text())["groups"] for rule in group["rules"]]
    assert sorted(rule["name"] for rule in rules) == sorted(shipped)
    assert {rule["health"] for rule in rules} == {"ok"}
    pending = {rule["name"] for rule in rules if rule["state"] != "inactive"}
    assert pending == {"TrimtabOperatorHasNoLeader", "TrimtabExtenderNotFresh"}
