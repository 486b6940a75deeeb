import json
from pathlib import Path
from typing import Any

from tests.support.process_node import container
from trimtab.api import keys
from trimtab.local.process_node.services import Backend
from trimtab.local.process_node.targets import scrape_targets, write_targets


def a_backend(name: str = "web", **annotations: str) -> Backend:
    written = {f"prometheus.io/{key}": value for key, value in annotations.items()}
    ports = (container(ports=[{"containerPort": 8000}]),)
    return Backend("shop", name, "127.20.1.0", True, {keys.POOL: "chat"}, ports, written)


def groups(*backends: Backend) -> list[dict[str, Any]]:
    return scrape_targets(backends, "process-0")


def test_a_pod_that_asks_for_it_is_scraped_with_its_labels() -> None:
    assert groups(a_backend(scrape="true", port="9090", path="/m")) == [
        {
            "targets": ["127.20.1.0:9090"],
            "labels": {
                "__metrics_path__": "/m",
                "__scheme__": "http",
                "namespace": "shop",
                "pod": "web",
                "node": "process-0",
                "pool": "chat",
            },
        }
    ]


def test_the_first_declared_port_stands_for_an_absent_one() -> None:
    assert groups(a_backend(scrape="true"))[0]["targets"] == ["127.20.1.0:8000"]


def test_others_are_not_scraped() -> None:
    unready = Backend("shop", "x", "127.20.1.1", False, {}, (), {"prometheus.io/scrape": "true"})
    portless = Backend("shop", "y", "127.20.1.2", True, {}, (), {"prometheus.io/scrape": "true"})

    assert groups(a_backend(), a_backend(scrape="false"), unready, portless) == []


def test_groups_are_ordered_by_name() -> None:
    found = groups(a_backend("b", scrape="true"), a_backend("a", scrape="true"))

    assert [group["labels"]["pod"] for group in found] == ["a", "b"]


def test_the_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "prometheus-targets.json"
    write_targets(path, groups(a_backend(scrape="true")))
    write_targets(path, [])

    assert json.loads(path.read_bytes()) == []
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
