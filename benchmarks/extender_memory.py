"""Memory of an extender that reads a large cluster: `python benchmarks/extender_memory.py [--pods N]`.

A scripted API server hands out pods of about 7 KB each, as a cluster of engines has them, in the pages that it is asked
for. A process of its own reads them as the extender does; its resident set is printed before, after and at its highest.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.support.api_server import api_server
from tests.support.large_pods import large_pod
from tests.support.until import until

from trimtab.kube import Kube
from trimtab_extender.runtime import Runtime, build, watch
from trimtab_extender.settings import Settings
from trimtab_extender.world import WATCHED

_MIB = 1024 * 1024


async def serve_and_measure(pods: int) -> dict[str, int]:
    """Return the child's figures, in bytes."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if "watch" in request.query:
            await asyncio.Event().wait()
        metadata: dict[str, str] = {"resourceVersion": "1"}
        items: list[dict[str, Any]] = []
        if request.path == "/api/v1/pods":
            begin = int(request.query.get("continue", 0))
            end = min(begin + int(request.query["limit"]), pods)
            items = [large_pod(number) for number in range(begin, end)]
            metadata |= {"continue": str(end)} if end < pods else {}
        return web.Response(body=orjson.dumps({"items": items, "metadata": metadata}), content_type="application/json")

    with tempfile.TemporaryDirectory() as folder:
        async with api_server(answer, Path(folder)) as kubeconfig:
            child = await asyncio.create_subprocess_exec(
                sys.executable, __file__, "--read", str(kubeconfig), stdout=asyncio.subprocess.PIPE
            )
            output, _ = await child.communicate()
    figures: dict[str, int] = json.loads(output.splitlines()[-1])  # after what it logs
    return figures


async def read(kubeconfig: Path) -> dict[str, int]:
    """Read the cluster as the extender does, and return resident bytes before, after and at the highest."""
    runtime = build(Settings(kubeconfig=kubeconfig, election=False))
    async with Kube.connect(kubeconfig) as kube:
        before = _resident("VmRSS")
        jobs = [asyncio.create_task(watch(runtime, kube, resource)) for resource in WATCHED]
        await until(lambda: is_current(runtime), seconds=300)
        figures = {"before": before, "after": _resident("VmRSS"), "peak": _resident("VmHWM")}
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
    return figures | {"charged_pods": runtime.world.ledger.charged_pods}


async def is_current(runtime: Runtime) -> bool:
    return not runtime.world.doubt


def _resident(which: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(which):
            return int(line.split()[1]) * 1024
    raise LookupError(which)


def main() -> None:
    """Measure, or be the process that is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, default=10_000)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.read:
        print(json.dumps(asyncio.run(read(chosen.read))))
        return
    figures = asyncio.run(serve_and_measure(chosen.pods))
    print(f"{chosen.pods} pods of {len(orjson.dumps(large_pod(0)))} bytes, {figures['charged_pods']} charged")
    for name in ("before", "after", "peak"):
        print(f"{name:>7}: {figures[name] / _MIB:6.0f} MiB")


if __name__ == "__main__":
    main()
