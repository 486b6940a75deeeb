"""The tables of a run for a terminal."""

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from trimtab.sim.experiment import Part
from trimtab.sim.findings import Finding, Line, Table, Verdict
from trimtab.sim.report.numerals import difference_text, expected_text, heading, sign, value_text

_STYLES = {1: "green", -1: "yellow", 0: "dim"}
_VERDICTS = {Verdict.HOLDS: ("✓", "green"), Verdict.NOT_SHOWN: ("·", "yellow"), Verdict.REFUTED: ("✗", "red")}


def part_view(table: Table) -> RenderableType:
    """Return a part's table, with its claims below it."""
    part = table.part
    view = RichTable(title=_title(table), title_style="bold", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    view.add_column("setting")
    view.add_column("policy")
    for metric in part.metrics:
        view.add_column(Text(heading(metric)), justify="right")
    for setting in part.settings:
        shown = ""
        for policy in table.policies:
            cells = [table.line(setting.name, policy, metric.name) for metric in part.metrics]
            if any(cells):
                view.add_row(setting.name if setting.name != shown else "", policy, *map(_cell, cells))
                shown = setting.name
        view.add_section()
    return Group(view, Text(_legend(part), style="dim"), *(_claim(table, place) for place in range(len(part.claims))))


def _title(table: Table) -> str:
    note = "" if table.complete else ", not all of them finished"
    return f"{table.part.name}: {table.part.title} ({table.seeds} seeds{note})"


def _legend(part: Part) -> str:
    text = "mean over seeds ± half of its 95 % interval"
    if part.baseline is not None:
        text += f"; below it the difference to {part.baseline} within the same seed [95 % interval], ✓ better, ✗ worse"
    return f"{text}\n"


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
    p = "p after Holm < 0.0001" if finding.p < 1e-4 else f"p after Holm {finding.p:.3g}"  # noqa: PLR2004
    return f"{finding.setting.name}: better by {gain}, {p}: {finding.verdict}"
