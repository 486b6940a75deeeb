"""`trimtab top`: the live numbers of all pools, which are metrics and not in any status."""

import asyncio

import click

from trimtab.cli.objects import connected
from trimtab.kube import Kube, Object
from trimtab.kube.resources import SERVING_POOLS
from trimtab.telemetry.prometheus import POOL_QUERIES, Prometheus

Numbers = dict[str, dict[str, float]]

_HEADINGS = ("NAMESPACE", "POOL", "READY", "DESIRED", "REPLICAS", "WAITING", "IN FLIGHT", "REQ/S", "TTFT P99")


@click.command()
@click.option("-n", "--namespace", default=None, help="Only pools of this namespace.")
@click.option(
    "--prometheus",
    envvar="TRIMTAB_PROMETHEUS",
    default=None,
    metavar="URL",
    help="Prometheus with the gateway's metrics; without it only what statuses say is shown.",
)
def top(namespace: str | None, prometheus: str | None) -> None:
    """Show every ServingPool with its replicas and, from Prometheus, its requests.

    `-` means that nothing measures it: no data is not zero.
    """

    async def work(kube: Kube) -> tuple[list[Object], Numbers]:
        pools = (await kube.list(SERVING_POOLS, namespace)).items
        return pools, await _numbers(prometheus) if prometheus else {}

    pools, numbers = connected(work)
    click.echo(render(pools, numbers))
    if not prometheus:
        click.echo("live numbers need Prometheus: --prometheus URL, or $TRIMTAB_PROMETHEUS", err=True)


async def _numbers(url: str) -> Numbers:
    server = Prometheus(url)
    answers = await asyncio.gather(*(server.by_pool(query) for query in POOL_QUERIES.values()))
    return dict(zip(POOL_QUERIES, answers, strict=True))


def render(pools: list[Object], numbers: Numbers) -> str:
    """Return the table, in columns as kubectl prints them; `numbers` is by query and pool."""
    ordered = sorted(pools, key=lambda one: (one["metadata"]["namespace"], one["metadata"]["name"]))
    rows = [_HEADINGS, *((*_status(pool), *_live(pool, numbers)) for pool in ordered)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("   ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _status(pool: Object) -> list[str]:
    metadata, status = pool["metadata"], pool.get("status") or {}
    ready: dict[str, str] = next((one for one in status.get("conditions") or () if one["type"] == "Ready"), {})
    desired = pool["spec"].get("replicas")
    return [
        metadata["namespace"],
        metadata["name"],
        ready.get("status", "-"),
        "-" if desired is None else str(desired),
        str(status.get("readyReplicas", "-")),
    ]


def _live(pool: Object, numbers: Numbers) -> list[str]:
    name = f"{pool['metadata']['namespace']}/{pool['metadata']['name']}"
    shapes = {"waiting": "{:.0f}", "in_flight": "{:.0f}", "requests": "{:.1f}", "ttft_p99": "{:.2f} s"}
    found = {key: numbers.get(key, {}).get(name) for key in shapes}
    return ["-" if found[key] is None else shape.format(found[key]) for key, shape in shapes.items()]
