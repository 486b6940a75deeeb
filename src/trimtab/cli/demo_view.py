"""How the demo looks while the trace runs."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from trimtab.cli.replay_view import live_view
from trimtab.local.demo import Placement, Seen, condition_of
from trimtab.workload.replay import Replay

_EVENTS = 6


def demo_view(replay: Replay, seen: Seen, narration: list[str]) -> RenderableType:
    """Show the load, the pools, where their pods are, and what happened last."""
    return Group(
        Panel(live_view(replay), title=f"{replay.trace.name} through the gateway", title_align="left"),
        Panel(pools_table(seen), title="pools", title_align="left"),
        Panel(placements_table(seen), title="placement", title_align="left"),
        Panel(_events(seen, narration), title="events", title_align="left"),
    )


def pools_table(seen: Seen) -> Table:
    """Show each pool: whether it is Ready, how many replicas, how many requests."""
    table = _table("pool", "Ready", "replicas", "mode", "waiting", "in flight", "why")
    for name in sorted(seen.pools):
        pool = seen.pools[name]
        ready = condition_of(pool, "Ready")
        status = pool.get("status", {})
        table.add_row(
            name,
            Text(str(ready.get("status", "-")), style="green" if ready.get("status") == "True" else "yellow"),
            f"{status.get('readyReplicas', 0)}/{pool['spec'].get('replicas', '-')}",
            str(pool["spec"].get("mode", "")),
            _count(seen.waiting, name),
            _count(seen.in_flight, name),
            str(ready.get("message", "")),
        )
    return table


def _count(counts: Mapping[str, float], pool: str) -> str:
    return f"{counts[pool]:.0f}" if pool in counts else "-"


def placements_table(seen: Seen) -> Table:
    """Show where each pool's pods are, and how much of each rack's power they may draw."""
    table = _table("pool", "where", "pods", "declared watts", "rack allows")
    for place in seen.placements():
        table.add_row(
            place.pool,
            f"{place.rack or 'this machine'}: {_nodes(place)}",
            str(len(place.nodes)),
            f"{place.watts:,.0f}" if place.watts else "-",
            f"{place.limit_watts:,.0f}" if place.limit_watts else "-",
        )
    if seen.unplaced():
        table.add_row("", "without a node", str(seen.unplaced()), "", "")
    return table


def _nodes(place: Placement) -> str:
    counts = Counter(place.nodes)
    return ", ".join(f"{node} x {count}" if count > 1 else node for node, count in sorted(counts.items()))


def _events(seen: Seen, narration: list[str]) -> RenderableType:
    lines = [
        Text(f"{_object(event)}: {event.get('message', '')}", no_wrap=True) for event in seen.latest_events(_EVENTS)
    ]
    told = [Text(line, style="bold") for line in narration]
    return Group(*told, *lines)


def _object(event: Mapping[str, Any]) -> str:
    involved = event.get("involvedObject", {})
    return f"{event.get('reason')} {str(involved.get('kind', '')).lower()}/{involved.get('name')}"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=True, overflow="ellipsis")
    return table
