"""The calibration report as a folder: a page that needs nothing beside it, pictures, JSON, and what a fit made."""

import csv
import io
import re
from base64 import b64encode
from dataclasses import asdict, fields
from pathlib import Path
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from trimtab.sim.calibration.drawing import draw
from trimtab.sim.calibration.refit import render_profile
from trimtab.sim.calibration.report import TITLES, Figure, Report, error_text, stage_rows, summary, to_values
from trimtab.sim.calibration.source import METRICS
from trimtab.sim.report.files import to_json, write_whole

PAGE: Final = "index.html"


def write_report(report: Report, folder: Path) -> None:
    """Write everything into a folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {run.id: draw(run, report.of(run)) for run in report.runs if run.requests}
    for run, picture in pictures.items():
        write_whole(folder / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', run).strip('-')}.png", picture)
    write_whole(folder / "calibration.json", to_json(to_values(report)))
    write_whole(folder / "figures.csv", figures_csv(report))
    write_whole(folder / PAGE, render(report, pictures))
    write_fits(report, folder)


def write_fits(report: Report, folder: Path) -> None:
    """Write the profiles and other files that a fit made, laid out as in the package."""
    for found in report.findings:
        made = {f"profiles/{profile.name}.yaml": render_profile(profile) for profile in found.profiles}
        for name, text in {**made, **found.files}.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, text)


def figures_csv(report: Report) -> str:
    """Return one line per figure."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Figure)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(figure) for figure in report.figures)
    return text.getvalue()


def render(report: Report, pictures: dict[str, bytes]) -> str:
    """Return the page, with the pictures in it."""
    environment = Environment(
        loader=PackageLoader("trimtab.sim.calibration", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        report=report,
        summary=summary(report),
        titles=TITLES,
        metrics=list(METRICS),
        rows=stage_rows,
        inlined={run: Markup(f"data:image/png;base64,{b64encode(png).decode()}") for run, png in pictures.items()},  # noqa: S704 - base64
        text=error_text,
        setup=lambda run: ", ".join(f"{name} {value}" for name, value in run.setup.items()),
    )
