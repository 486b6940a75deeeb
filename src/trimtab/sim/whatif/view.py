"""The answer for a terminal, as a page, and as files."""

from collections.abc import Mapping
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from trimtab.sim.findings import Table
from trimtab.sim.report.files import rows_csv, to_json, write_whole
from trimtab.sim.report.numerals import DASH, decimals, plain, short, signed
from trimtab.sim.report.page import inline, templates
from trimtab.sim.statistics import Estimate
from trimtab.sim.whatif.answer import Answer, PolicyAnswer, Range, answer_values, range_over
from trimtab.sim.whatif.drawing import draw_answer
from trimtab.sim.whatif.study import settings_of, values_by_seed

PAGE = "report.html"
ANSWER = "answer.json"


def answer_view(found: Answer) -> RenderableType:
    """Return the answer for a terminal."""
    warnings = [Text(f"outside what was calibrated: {warning}\n", style="yellow") for warning in found.warnings]
    sentences = [
        Text(f"{sentence}\n", style="bold" if place == 0 else "") for place, sentence in enumerate(found.sentences)
    ]
    note = Text("in brackets: 95 % range of draws (of fewer than 39: the least and the largest)", style="dim")
    return Group(*warnings, *sentences, _policies(found), note)


def _policies(found: Answer) -> RichTable:
    case = found.study.question.case
    table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    own = f"{case.replicas} replica{'s' if case.replicas > 1 else ''}"
    table.add_column("policy", no_wrap=True)
    for title in (
        "replicas\n(95 %)",
        "GPU-hours,\nprice a day" if _priced(found) else "GPU-hours\na day",
        *(f"{level.name} [%]\n{own}" for level in case.levels),
        f"knee [1/s]\n{own}",
    ):
        table.add_column(Text(title), justify="right", overflow="fold")
    for policy in found.policies:
        table.add_row(policy.policy, *map(Text, _cells(found, policy)))
    return table


def _cells(found: Answer, policy: PolicyAnswer) -> list[str]:
    reached = [policy.attainment[level.name] for level in found.study.question.case.levels]
    price = f"\n{short(policy.price)}" if _priced(found) else ""
    narrow = [range_text(found).replace(" [", "\n[") for found in (*reached, policy.knee)]
    return [str(policy.sure or "none"), f"{short(policy.gpu_hours)}{price}", *narrow]


def _priced(found: Answer) -> bool:
    return any(isfinite(policy.price) for policy in found.policies)


def range_text(found: Range) -> str:
    """Write `96.1 [91.0, 99.8]`."""
    if not isfinite(found.mean):
        return DASH
    places = min(2, decimals(found.mean, 3))
    return f"{plain(found.mean, places)} [{plain(found.low, places)}, {plain(found.high, places)}]"


def gain_text(gain: Estimate) -> str:
    """Write `+0.8 [+0.2, +1.4]`."""
    if not gain.known:
        return signed(gain.mean, decimals(gain.mean))
    places = decimals((gain.high - gain.low) / 2)
    return f"{signed(gain.mean, places)} [{signed(gain.low, places)}, {signed(gain.high, places)}]"


def write_answer(found: Answer, folder: Path, command: str) -> None:
    """Write the page, the pictures, every draw as CSV, and the answer as JSON."""
    study = found.study
    pictures = draw_answer(found)
    for picture in pictures:
        write_whole(folder / f"{picture.name}.png", picture.png)
    for table in (study.replicas, study.loads):
        write_whole(folder / f"{table.part.name}.csv", rows_csv(table.part, table.records))
    environment = templates()
    environment.filters.update(short=short, range=range_text, gain=gain_text, inline=inline)
    page = environment.get_template("whatif.html.j2").render(
        found=found, study=study, question=study.question, case=study.question.case, pictures=pictures,
        priced=_priced(found), tables=_tables(found), command=command, version=version("trimtab"),
    )  # fmt: skip
    write_whole(folder / PAGE, page)
    write_whole(folder / ANSWER, to_json(answer_values(found)))


def _tables(found: Answer) -> list[tuple[str, str, list[Mapping[str, Any]]]]:
    study = found.study
    return [
        ("Attainment by number of replicas", "replicas", _rows(found, study.replicas, "replicas")),
        ("Attainment by load", "requests/s", _rows(found, study.loads, "requests_per_second")),
    ]


def _rows(found: Answer, table: Table, column: str) -> list[Mapping[str, Any]]:
    rows: list[Mapping[str, Any]] = []
    for place, (value, _) in enumerate(settings_of(table, column)):
        for policy in table.policies:
            met = list(values_by_seed(table, policy, "objective met")[place].values())
            attained = {
                level.name: _range(table, policy, f"attainment {level.name}", place)
                for level in found.study.question.case.levels
            }
            goodput = _range(table, policy, "goodput", place)
            met_text = f"{sum(met):.0f} of {len(met)} draws"
            rows.append({"value": value, "policy": policy, "attained": attained, "goodput": goodput, "met": met_text})
    return rows


def _range(table: Table, policy: str, metric: str, place: int) -> Range:
    return range_over(list(values_by_seed(table, policy, metric)[place].values()))
