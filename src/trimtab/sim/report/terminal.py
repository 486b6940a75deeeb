"""The tables of a run for a terminal."""

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from trimtab.sim.experiment import Metric, Part
from trimtab.sim.findings import Finding, Line, Table, Verdict
from trimtab.sim.report.numerals import difference_text, expected_text, heading, margin_text, p_text, sign, value_text

_MOST_SETTING, _MOST_POLICY = 22, 20
_GAP = 2
_STYLES = {1: "green", -1: "yellow", 0: "dim"}
_VERDICTS = {Verdict.HOLDS: ("✓", "green"), Verdict.NOT_SHOWN: ("·", "yellow"), Verdict.REFUTED: ("✗", "red")}


def part_view(table: Table, width: int) -> RenderableType:
    """Return a part's table, with its claims below it.

    Args:
        table: What was found.
        width: Of the terminal, in characters; metrics that do not fit are only named. The first one is always shown.
    """
    part = table.part
    metrics = _fitting(table, width)
    view = RichTable(title=_title(table), title_style="bold", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    view.add_column("setting", max_width=_MOST_SETTING)
    view.add_column("policy", max_width=_MOST_POLICY)
    for metric in metrics:
        view.add_column(Text(heading(metric)), justify="right", min_width=_cell_width(table, metric))
    for setting in part.settings:
        shown = False
        for policy in table.policies:
            cells = [table.line(setting.name, policy, metric.name) for metric in metrics]
            if any(cells):
                view.add_row("" if shown else setting.name, policy, *map(_cell, cells))
                shown = True
        view.add_section()
    rest = [metric.title for metric in part.metrics if metric not in metrics]
    more = [Text(f"also measured, see the report: {', '.join(rest)}", style="dim")] if rest else []
    return Group(view, Text(_legend(part), style="dim"), *more, *(_claim(table, n) for n in range(len(part.claims))))


def _fitting(table: Table, width: int) -> list[Metric]:
    """Return as many of the first metrics as there is room for."""
    names = [setting.name for setting in table.part.settings]
    room = width - min(_MOST_SETTING, max(map(len, names), default=0)) - _GAP
    room -= min(_MOST_POLICY, max(map(len, table.policies), default=0)) + _GAP
    fitting: list[Metric] = []
    for metric in table.part.metrics:
        room -= max(_cell_width(table, metric), *map(len, metric.title.split())) + _GAP
        if fitting and room < 0:
            break
        fitting.append(metric)
    return fitting


def _cell_width(table: Table, metric: Metric) -> int:
    cells = [_cell(line) for line in table.lines if line.metric is metric]
    return max((len(row) for cell in cells for row in cell.plain.splitlines()), default=0)


def _title(table: Table) -> str:
    note = "" if table.complete else ", not all of them finished"
    return f"{table.part.name}: {table.part.title} ({table.seeds} seeds{note})"


def _legend(part: Part) -> str:
    text = "mean over seeds ± half of its 95 % interval"
    if part.baseline is not None:
        text += f"; below it the difference to {part.baseline} within the same seed [95 % interval], ✓ better, ✗ worse"
    return text


def _cell(line: Line | None) -> Text:
    if line is None:
        return Text("")
    text = Text(value_text(line.value))
    expected = expected_text(line)
    if line.difference is not None:
        mark = sign(line)
        text.append(f"\n{difference_text(line.difference, line.metric)}{mark and ' ' + mark}", style=_STYLES[line.gain])
    if expected:
        text.append(f"\nexpected {expected}", style="cyan")
    return text


def _claim(table: Table, place: int) -> Text:
    claim = table.part.claims[place]
    verdict = table.verdict(claim)
    mark, style = _VERDICTS[verdict]
    text = Text(f"{mark} {verdict}: ", style=style).append(claim.text, style="default")
    tests = [finding for finding in table.findings if finding.claim is claim]
    for finding in tests:
        text.append(f"\n    {test_text(finding)}", style="dim")
    return text


def test_text(finding: Finding) -> str:
    """Return what was found under one setting, in a line."""
    gain = difference_text(finding.gain, finding.metric)
    p = p_text(finding.p)
    return f"{finding.setting.name}: better by {gain}{margin_text(finding)}, p after Holm {p}: {finding.verdict}"
