"""Writes everything about a run into its folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trimtab.sim.findings import Table
from trimtab.sim.lab import PartResult, Result
from trimtab.sim.report.drawing import draw_part
from trimtab.sim.report.files import rows_csv, summary_csv, table_values, to_json, write_whole
from trimtab.sim.report.page import command, render
from trimtab.sim.report.sources import sources_of

PAGE = "report.html"
RESULT = "result.json"
TIMING = "timing.json"


@dataclass(frozen=True, slots=True)
class RowKeeper:
    """Keeps the rows of every part in `PART.csv` of a folder, which must exist."""

    folder: Path

    def __call__(self, table: Table) -> None:
        """Write what there is of a part."""
        write_whole(self.folder / f"{table.part.name}.csv", rows_csv(table.part, table.records))


def write_report(result: Result, folder: Path) -> None:
    """Write the page, its pictures, summaries and JSON; the rows are written by `RowKeeper` during the run."""
    pictures = {part.part.name: draw_part(part.table) if part.table else [] for part in result.parts}
    for picture in (picture for own in pictures.values() for picture in own):
        write_whole(folder / f"{picture.name}.png", picture.png)
    for part in result.parts:
        if part.table:
            write_whole(folder / f"{part.part.name}-summary.csv", summary_csv(part.table))
    sources = sources_of(result.order.data, _needed(result))
    write_whole(folder / PAGE, render(result, pictures, sources))
    write_whole(folder / RESULT, to_json(result_values(result)))
    write_whole(folder / TIMING, to_json(_timing(result)))


def result_values(result: Result) -> Mapping[str, Any]:
    """Return the whole result for JSON; the same for the same seeds, whatever ran it."""
    experiment = result.order.experiment
    sources = sources_of(result.order.data, _needed(result))
    return {
        "experiment": experiment.name,
        "title": experiment.title,
        "about": experiment.about,
        "trimtab": version("trimtab"),
        "command": command(result.order),
        "quick": result.order.quick,
        "interrupted": result.interrupted,
        "parts": [_part_values(part) for part in result.parts],
        "sources": [
            *({"note": note} for part in result.parts if part.table for note in part.part.sources),
            *({"name": s.name, "title": s.title, "origin": s.origin, "license": s.license} for s in sources),
        ],
    }


def _part_values(part: PartResult) -> dict[str, Any]:
    if part.table is None:
        return {"name": part.part.name, "title": part.part.title, "skipped": part.skipped}
    return table_values(part.table)


def _needed(result: Result) -> list[str]:
    return [name for part in result.parts if part.table for name in part.part.needs]


def _timing(result: Result) -> dict[str, Any]:
    parts = {
        part.part.name: {
            "runs": len(part.seconds),
            "seconds_sum": sum(part.seconds),
            "seconds_longest": max(part.seconds, default=0.0),
        }
        for part in result.parts
    }
    return {"wall_seconds": result.wall_seconds, "parts": parts}
