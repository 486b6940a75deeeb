"""Ready pods as scrape targets: a file for Prometheus's file-based discovery, from the usual annotations.

prometheus.io/scrape: "true"      prometheus.io/port: "8000"
prometheus.io/path: /metrics      prometheus.io/scheme: http
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import orjson

from trimtab.api import keys
from trimtab.local.process_node.services import Backend

FILE_NAME: Final = "prometheus-targets.json"
_PREFIX: Final = "prometheus.io"


def scrape_targets(backends: Iterable[Backend], node_name: str) -> list[dict[str, Any]]:
    """Return one group per Ready pod that asks to be scraped, ordered by name."""
    found = [
        _group(backend, node_name)
        for backend in sorted(backends, key=lambda backend: (backend.namespace, backend.name))
        if backend.ready and backend.annotations.get(f"{_PREFIX}/scrape") == "true"
    ]
    return [group for group in found if group is not None]


def _group(backend: Backend, node_name: str) -> dict[str, Any] | None:
    port = backend.annotations.get(f"{_PREFIX}/port") or _first_port(backend)
    if port is None:
        return None
    labels = {
        "__metrics_path__": backend.annotations.get(f"{_PREFIX}/path", "/metrics"),
        "__scheme__": backend.annotations.get(f"{_PREFIX}/scheme", "http"),
        "namespace": backend.namespace,
        "pod": backend.name,
        "node": node_name,
    }
    if pool := backend.labels.get(keys.POOL):
        labels["pool"] = pool
    return {"targets": [f"{backend.ip}:{port}"], "labels": labels}


def _first_port(backend: Backend) -> str | None:
    return next((str(port.number) for container in backend.containers for port in container.ports), None)


def write_targets(path: Path, groups: list[dict[str, Any]]) -> None:
    """Replace the file at once, so that Prometheus never reads half of it.

    Raises:
        OSError: it could not be written.
    """
    fresh = path.with_suffix(".new")
    fresh.write_bytes(orjson.dumps(groups, option=orjson.OPT_INDENT_2))
    fresh.replace(path)
