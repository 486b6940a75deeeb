"""`trimtab explain OBJECT`: the last decisions about it, what they saw, why, and what happened since."""

from typing import Any

import click
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from trimtab.cli.objects import connected, namespace_option, read
from trimtab.kube import Kube, Object, Resource
from trimtab.kube.resources import EVENTS
from trimtab.obs.clock import WallClock, at_time

_EVENTS = 5
_GOOD = {"Applied": "green", "True": "green", "Refused": "red", "Failed": "red", "False": "red", "Expired": "yellow"}


@click.command()
@click.argument("named", metavar="OBJECT")
@namespace_option
def explain(named: str, namespace: str) -> None:
    """Explain OBJECT, e.g. `trimtab explain spool/chat -n ai`.

    Shows its conditions, the knobs it holds, what waits for approval, its last decisions (what was changed, why, what
    was expected and what was seen) and the newest Events.
    """

    async def work(kube: Kube) -> tuple[Object, list[Object]]:
        resource, obj = await read(kube, named, namespace)
        return obj, await _events(kube, resource, obj)

    obj, events = connected(work)
    Console().print(render(obj, events))


async def _events(kube: Kube, resource: Resource, obj: Object) -> list[Object]:
    selector = f"involvedObject.uid={obj['metadata']['uid']}"
    where = obj["metadata"].get("namespace", "default") if resource.namespaced else "default"
    found = (await kube.list(EVENTS, where, field_selector=selector)).items
    return sorted(found, key=lambda event: str(event.get("lastTimestamp") or ""), reverse=True)[:_EVENTS]


def render(obj: Object, events: list[Object]) -> Group:
    """Return everything that is known about an object, ready to print."""
    status = obj.get("status") or {}
    parts: list[RenderableType] = [_heading(obj, status)]
    parts += _conditions(status)
    parts += _held(status)
    parts += _proposals(obj, status)
    parts += _decisions(status)
    parts += _recent_events(events)
    return Group(*parts)


def _heading(obj: Object, status: Object) -> Text:
    metadata = obj["metadata"]
    where = f" in {metadata['namespace']}" if "namespace" in metadata else ""
    mode = obj.get("spec", {}).get("mode")
    text = Text(f"{obj['kind']} {metadata['name']}{where}", style="bold")
    text.append(f", mode {mode}" if mode else "", style="not bold")
    if status.get("observedGeneration") != metadata.get("generation"):
        text.append("; the operator has not looked at the newest spec yet", style="yellow")
    return text


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _colored(word: str) -> Text:
    return Text(word, style=_GOOD.get(word, ""))


def _conditions(status: Object) -> list[RenderableType]:
    table = _table("\nConditions", "TYPE", "STATUS", "FOR", "REASON", "MESSAGE")
    for one in status.get("conditions") or ():
        # KnobContested is the one condition whose bad state is True.
        shown = Text(one["status"]) if one["type"] == "KnobContested" else _colored(one["status"])
        table.add_row(one["type"], shown, _age(one["lastTransitionTime"]), one["reason"], one.get("message", ""))
    return [table] if table.row_count else [Text("\nNo conditions yet: is the operator running?", style="yellow")]


def _held(status: Object) -> list[RenderableType]:
    table = _table("\nHeld knobs", "TARGET", "KNOB", "BEFORE", "FOR")
    for one in status.get("heldKnobs") or ():
        table.add_row(one["target"], one["knob"], one.get("before", "absent"), _age(one["since"]))
    return [table] if table.row_count else []


def _proposals(obj: Object, status: Object) -> list[RenderableType]:
    table = _table("\nWaiting for approval", "ID", "KNOB", "CHANGE", "WHY", "EXPIRES")
    for one in status.get("proposals") or ():
        table.add_row(one["id"], one["knob"], _change(one), one.get("message", ""), one["expires"])
    if not table.row_count:
        return []
    metadata = obj["metadata"]
    place = f" -n {metadata['namespace']}" if "namespace" in metadata else ""
    return [table, Text(f"approve with: trimtab approve {obj['kind'].lower()}/{metadata['name']}{place} ID")]


def _decisions(status: Object) -> list[RenderableType]:
    """Return one block for each decision: a table of so many texts would be unreadable in 80 columns."""
    lines: list[RenderableType] = []
    for one in status.get("recentDecisions") or ():
        heading = Text(f"{_age(one['time']):>4} ago  {one['knob']} {_change(one)}  ")
        heading.append_text(_colored(one["outcome"])).append(f"  by {one['policy']}")
        lines.append(heading)
        facts = {
            "why": f"{one['reason']}: {one.get('message', '')}",
            "expected": one.get("predictedEffect", ""),
            "seen since": one.get("observedEffect") or "nothing yet",
        }
        lines += [Text(f"          {name:<11} {text}") for name, text in facts.items() if text]
    if not lines:
        return [Text("\nNo decisions yet: nothing had to be changed.")]
    return [Text("\nLast decisions", style="bold"), *lines]


def _age(time: str) -> str:
    """Return how long ago something was, as kubectl shows it."""
    seconds = max(0, int(WallClock().now() - at_time(time)))
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def _change(one: dict[str, Any]) -> str:
    return f"{one.get('from') or 'none'} -> {one.get('to') or 'given back'}"


def _recent_events(events: list[Object]) -> list[RenderableType]:
    table = _table("\nNewest Events", "AGO", "TYPE", "REASON", "MESSAGE")
    for one in events:
        when = one.get("lastTimestamp")
        table.add_row(_age(when) if when else "", one.get("type", ""), one.get("reason", ""), one["message"])
    return [table] if table.row_count else []
