"""One HTML page about a run, which needs nothing beside it and nothing of the network."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from trimtab.sim.experiment import Claim
from trimtab.sim.findings import Finding, Line, Table, Verdict
from trimtab.sim.lab import Order, PartResult, Result
from trimtab.sim.report.drawing import Picture
from trimtab.sim.report.numerals import (
    difference_text,
    expected_text,
    heading,
    margin_text,
    p_text,
    short,
    sign,
    value_text,
)
from trimtab.sim.report.sources import Source

VERDICT_MARKS = {Verdict.HOLDS: "✓", Verdict.NOT_SHOWN: "·", Verdict.REFUTED: "✗"}


@dataclass(frozen=True, slots=True)
class ClaimView:
    """A claim as the page shows it."""

    claim: Claim
    verdict: Verdict
    mark: str
    part: str
    findings: Sequence[Finding]


def claims_of(table: Table) -> list[ClaimView]:
    """Return a part's claims with their verdicts."""
    views = []
    for claim in table.part.claims:
        verdict = table.verdict(claim)
        findings = [finding for finding in table.findings if finding.claim is claim]
        views.append(ClaimView(claim, verdict, VERDICT_MARKS[verdict], table.part.name, findings))
    return views


def render(result: Result, pictures: Mapping[str, Sequence[Picture]], sources: Sequence[Source]) -> str:
    """Return the page.

    Args:
        result: What was found.
        pictures: By name of the part.
        sources: Of the data that it was made with.
    """
    environment = templates()
    environment.filters.update(
        paragraphs=paragraphs, inline=inline, value=value_text, heading=heading, expected=expected_text, sign=sign,
        allowed=margin_text, number=_cell, percentage=p_text, words=words,
    )  # fmt: skip
    environment.globals["difference"] = difference_text
    tables = [part.table for part in result.parts if part.table]
    return environment.get_template("page.html.j2").render(
        result=result,
        order=result.order,
        experiment=result.order.experiment,
        parts=result.parts,
        claims=[view for table in tables for view in claims_of(table)],
        claims_of=claims_of,
        pictures=pictures,
        sources=sources,
        notes=_notes(result.parts),
        command=command(result.order),
        version=version("trimtab"),
    )


def templates() -> Environment:
    """Return where the pages' templates are; everything in them is escaped."""
    return Environment(
        loader=PackageLoader("trimtab.sim.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _notes(parts: Sequence[PartResult]) -> list[str]:
    return list(dict.fromkeys(note for part in parts if part.table for note in part.part.sources))


def command(order: Order) -> str:
    """Return the command that runs the same again."""
    words_ = ["trimtab lab run", order.experiment.name, *(f"--part {name}" for name in order.parts)]
    if order.seeds is not None:
        words_.append(f"--seeds {order.seeds}")
    if order.quick:
        words_.append("--quick")
    if order.data is not None:
        words_.append("--data DIR")
    return " ".join(words_)


def paragraphs(text: str) -> list[Markup]:
    """Cut a text at its empty lines; what stands between backticks is code."""
    return [_coded(" ".join(part.split())) for part in text.split("\n\n") if part.strip()]


def _coded(text: str) -> Markup:
    pieces = [Markup("<code>{}</code>").format(piece) if n % 2 else piece for n, piece in enumerate(text.split("`"))]
    return Markup("").join(pieces)


def inline(picture: Picture) -> Markup:
    """Return a picture as an address that holds it."""
    return Markup(f"data:image/png;base64,{b64encode(picture.png).decode()}")  # noqa: S704 - base64 needs no escaping


def words(line: Line) -> str:
    """Return what the sign of a difference means, for screen readers and as a tooltip."""
    return {1: "better", -1: "worse", 0: "no difference shown"}[line.gain]


def _cell(value: Any) -> str:
    return short(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
