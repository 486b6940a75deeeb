"""How a replay looks in the terminal, while it runs and when it is over."""

import math
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from trimtab.workload.answer import Outcome
from trimtab.workload.level import short_duration
from trimtab.workload.record import RequestRecord
from trimtab.workload.replay import Replay
from trimtab.workload.summary import LevelSummary, Spread, Summary, spread

_RECENT = 200
_GOOD, _FAIR = 0.99, 0.9


def seconds_text(seconds: float) -> str:
    """Write a measured time with three digits: `12.3 ms`, `1.23 s`, `2 min 5 s`; a dash where there is none."""
    if math.isnan(seconds):
        return "-"
    if seconds < 0.9995:  # noqa: PLR2004 - rounds to a second
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 99.95:  # noqa: PLR2004 - three digits
        return f"{seconds:.3g} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"


def share_text(share: float) -> Text:
    """Write an attainment as a percentage, green, yellow or red."""
    if math.isnan(share):
        return Text("-")
    style = "green" if share >= _GOOD else "yellow" if share >= _FAIR else "red"
    return Text(f"{share:.1%}", style=style)


def live_view(replay: Replay) -> RenderableType:
    """Show a replay under way: how far it is, and how the latest requests fared."""
    planned = max(replay.planned_seconds, 1e-9)
    head = Table.grid(padding=(0, 1))
    head.add_row(
        ProgressBar(total=planned, completed=min(replay.elapsed_seconds, planned), width=30),
        f"{replay.elapsed_seconds:.0f} of {planned:.0f} s, {replay.started} of {len(replay.trace.requests)} requests, "
        f"{replay.under_way} under way",
    )
    table = _table("", "done", "attainment", f"TTFT p50 (last {_RECENT})", "p99", "TPOT p50", "p99")
    for level in replay.settings.levels:
        own = [record for record in replay.records if record.level == level]
        table.add_row(level.name, str(len(own)), share_text(_attainment(own)), *_recent(own[-_RECENT:]))
    lag = spread(record.lag_seconds for record in replay.records[-_RECENT:])
    foot = f"outcomes: {outcomes_text(replay.records)}; client lag p99 {seconds_text(lag.p99)}"
    return Group(head, table, Text(foot, style="dim"))


def status_line(replay: Replay) -> str:
    """Say in one line how far a replay is, for output that is not a terminal."""
    return (
        f"{replay.elapsed_seconds:.0f} of {replay.planned_seconds:.0f} s: {replay.started} started, "
        f"{replay.under_way} under way, {outcomes_text(replay.records)}, met {_attainment(replay.records):.1%}"
    )


def _attainment(records: Sequence[RequestRecord]) -> float:
    return sum(record.met for record in records) / len(records) if records else math.nan


def _recent(records: Sequence[RequestRecord]) -> list[str]:
    ttft = spread(record.ttft_seconds for record in records)
    tpot = spread(record.tpot_seconds for record in records)
    return [seconds_text(value) for value in (ttft.p50, ttft.p99, tpot.p50, tpot.p99)]


def outcomes_text(records: Sequence[RequestRecord]) -> str:
    """Count outcomes in words: `812 ok, 3 rejected`."""
    counts = {outcome: sum(record.outcome is outcome for record in records) for outcome in Outcome}
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count) or "none yet"


def summary_view(summary: Summary) -> RenderableType:
    """Show what a replay amounts to."""
    table = _table(
        "", "offered", "met", "goodput", "TTFT p50", "p90", "p99", "TPOT p50", "p90", "p99", "done p50", "p99"
    )
    rows = summary.levels if len(summary.levels) == 1 else (*summary.levels, summary.total)
    for row in rows:
        table.add_row(
            Text(row.level.name),
            str(row.offered),
            share_text(row.attainment),
            f"{row.goodput:.3g}/s",
            *_spread_cells(row.ttft, "p50", "p90", "p99"),
            *_spread_cells(row.tpot, "p50", "p90", "p99"),
            *_spread_cells(row.completion, "p50", "p99"),
        )
    return Group(table, *(Text(line) for line in _lines(summary)))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", no_wrap=True)
    return table


def _spread_cells(values: Spread, *names: str) -> list[str]:
    return [seconds_text(getattr(values, name)) for name in names]


def _lines(summary: Summary) -> list[str]:
    total = summary.total
    lines = [f"{level.level.name}: {level.level.described}" for level in summary.levels]
    lines.append(f"outcomes: {_outcomes(total)}")
    rates = (
        f"{summary.output_tokens_per_second:.4g} tokens/s, {summary.good_tokens_per_second:.4g} of them within a level"
    )
    lines.append(f"output: {rates}; between pieces {_pair(summary.gap_p50, summary.gap_p99)}")
    lines.append(f"client lag: {_pair(summary.lag.p50, summary.lag.p99)}, largest {seconds_text(summary.lag.largest)}")
    if summary.cached_fraction > 0:
        lines.append(f"prefix cache: {summary.cached_fraction:.1%} of prompt tokens")
    lines += [f"{count} x {error}" for error, count in summary.errors]
    return lines + [f"warning: {warning}" for warning in summary.warnings]


def _pair(p50: float, p99: float) -> str:
    return f"p50 {seconds_text(p50)}, p99 {seconds_text(p99)}"


def _outcomes(level: LevelSummary) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in level.outcomes.items()) or "no request was sent"


def scale_note(speed: float, time_scale: float) -> str:
    """Say in which seconds the figures are."""
    if time_scale == 1:
        return f"times are wall seconds; the trace ran at {speed:g} x its speed"
    if time_scale == speed:
        return f"times are the trace's seconds; it ran at {speed:g} x its speed against an engine {speed:g} x as fast"
    return f"times are wall seconds x {time_scale:g}; the trace ran at {speed:g} x its speed"


def wall_text(seconds: float) -> str:
    """Write a planned time, to the second."""
    return short_duration(max(1.0, round(seconds)))
