"""What people and programs get: numbers, tables, pictures, one page."""

import csv
import io
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import joblib
import numpy as np
import pytest
from rich.console import Console

from tests.sim.lab.test_lab import Silent
from tests.sim.lab.toy import FOREST, MAIN, METRICS, TOY
from trimtab.sim.experiment import Metric, Plot, Setting
from trimtab.sim.findings import Record, tabulate
from trimtab.sim.lab import Order, run
from trimtab.sim.report import drawing
from trimtab.sim.report.drawing import draw_part
from trimtab.sim.report.files import rows_csv, summary_csv, to_json
from trimtab.sim.report.folder import RowKeeper, write_report
from trimtab.sim.report.numerals import difference_text, short, value_text
from trimtab.sim.report.sources import sources_of
from trimtab.sim.report.terminal import part_view
from trimtab.sim.statistics import Estimate
from trimtab.sim.sweep import execute, tasks_of

TABLE = tabulate(MAIN, 4, [execute(task) for task in tasks_of(MAIN, 4, None)])


@pytest.fixture(scope="module")
def written(tmp_path_factory: Any) -> Any:
    folder, data = tmp_path_factory.mktemp("out"), tmp_path_factory.mktemp("data")
    (data / "made-up-set").mkdir()
    (data / "made-up-set" / "README.md").write_text(
        "# Requests & <lengths>\n\nSource (public):\n- `owner/name`: `a.csv`\n\nLicence: CC-BY-4.0 (share it).\n"
    )
    with joblib.parallel_config(n_jobs=1):
        result = run(Order(TOY, seeds=4, data=data), RowKeeper(folder), Silent())
    write_report(result, folder)
    return folder


class Page(HTMLParser):
    """Collects what a page would fetch, its tables and its text; complains about tags that do not match."""

    VOID = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self, text: Any) -> None:
        super().__init__()
        self.open, self.fetched, self.text, self.images = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: Any, attrs: Any) -> None:
        values = dict(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        self.fetched += [values[name] for name in ("src", "href", "data", "srcset") if name in values]
        if tag == "img":
            self.images.append(values)
        assert tag not in {"script", "iframe", "object", "link"}

    def handle_endtag(self, tag: Any) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: Any) -> None:
        self.text.append(data)


def page_of(folder: Any) -> Any:
    text = (folder / "report.html").read_text()
    return Page(text), re.sub(r"\s+", " ", " ".join(Page(text).text))


def test_the_page_needs_nothing_beside_it(written: Any) -> None:
    page, _ = page_of(written)
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in page.fetched)
    style = (written / "report.html").read_text()
    assert "url(" not in style
    assert "@import" not in style
    assert "http" not in style
    assert len(page.images) == 3
    assert all(len(image["alt"]) > 40 for image in page.images)


def test_the_page_says_what_a_stranger_must_know(written: Any) -> None:
    _, text = page_of(written)
    for wanted in (
        "Which policy is faster?",
        "Nothing follows for real engines.",
        "4 seeds (0 to 3)",
        "How to read this page",
        "Short first is faster",
        "expected \u221224.5 %",
        "Arrivals are drawn.",
        "Requests & <lengths>",
        "License: CC-BY-4.0 (share it).",
        "trimtab lab run toy --seeds 4 --data DIR",
    ):
        assert wanted in text
    for verdict in ("holds", "not shown", "refuted"):
        assert verdict in text


def test_names_with_brackets_stay_names(written: Any) -> None:
    assert "short &lt;first&gt;" in (written / "report.html").read_text()


def test_the_json_has_every_table_and_claim(written: Any) -> None:
    result = json.loads((written / "result.json").read_text())
    main, _, needy = result["parts"]
    assert [claim["verdict"] for claim in main["claims"]] == [TABLE.verdict(claim) for claim in MAIN.claims]
    line = next(one for one in main["lines"] if one["policy"] == "same" and one["metric"] == "met")
    assert line["value"] == {"mean": None, "low": None, "high": None, "seeds": 0, "confidence": 0.95}
    assert needy["complete"]
    assert result["sources"][-1]["license"].startswith("CC-BY-4.0")
    assert "seconds" not in (written / "result.json").read_text()
    assert json.loads((written / "timing.json").read_text())["parts"]["main"]["runs"] == 24


def test_reading_the_csv_gives_the_same_numbers(written: Any) -> None:
    rows = list(csv.DictReader(io.StringIO((written / "main.csv").read_text())))
    assert list(rows[0]) == ["setting", "rate", "slots", "seed", "policy", "jct", "met", "jobs"]
    jct = [float(row["jct"]) for row in rows]
    assert jct == [record.row["jct"] for record in TABLE.records]
    assert {row["met"] for row in rows if row["policy"] == "same"} == {""}


def test_a_measured_column_does_not_hide_one_of_the_settings() -> None:
    part = replace(MAIN, settings=(Setting("s", {"rate": 2}),), metrics=(Metric("rate", "Rate"),))
    text = rows_csv(part, [Record(0, 0, {"policy": "a", "rate": np.float64(1.5), "ok": np.bool_(True)})])
    assert text == "setting,rate,seed,policy,rate (measured),ok\ns,2,0,a,1.5,true\n"


def test_the_summary_has_a_line_for_each_cell() -> None:
    rows = list(csv.DictReader(io.StringIO(summary_csv(TABLE))))
    assert len(rows) == len(TABLE.lines)
    assert rows[0]["difference_mean"] == ""
    assert rows[0]["value_seeds"] == "4"
    assert float(rows[2]["difference_mean"]) == TABLE.lines[2].difference.mean


def test_json_has_no_words_that_are_not_json() -> None:
    assert json.loads(to_json({"a": math.nan, "b": [math.inf, 1, True, None, np.float64(2.5)]})) == {
        "a": None,
        "b": [None, 1, True, None, 2.5],
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "0.5"), (2, "2"), (0.24751, "0.248"), (1234567, "1\u202f234\u202f567"), (-3.1, "\u22123.1"),
     (math.nan, "\u2013"), (math.inf, "∞"), (0, "0"), (-0.0001, "\u22120.0001"), (100, "100")],
)  # fmt: skip
def test_lone_numbers_are_short(value: Any, text: Any) -> None:
    assert short(value) == text


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(5, 23.1234, 22.7, 23.54), "23.12 ± 0.42"),
        (Estimate(5, 23.1234, 13.1, 33.1), "23 ± 10"),
        (Estimate(5, 100, 100, 100), "100 ± 0"),
        (Estimate(5, 1.0, 1 - 1e-16, 1 + 1e-15), "1 ± 0"),
        (Estimate(1, 23.1234, math.nan, math.nan), "23.1"),
        (Estimate(0, math.nan, math.nan, math.nan), "\u2013"),
    ],
)
def test_means_have_the_digits_that_their_intervals_allow(estimate: Any, text: Any) -> None:
    assert value_text(estimate) == text


def test_differences_are_signed_and_in_percent_or_points() -> None:
    estimate = Estimate(5, -0.245, -0.2612, -0.2288)
    assert difference_text(estimate, METRICS[0]) == "\u221224.5 % [\u221226.1, \u221222.9]"
    assert difference_text(Estimate(5, 2.0, 1.0, 3.0), METRICS[1]) == "+2.0 points [+1.0, +3.0]"
    assert difference_text(Estimate(1, 2.0, math.nan, math.nan), METRICS[1]) == "+2.00 points"
    assert difference_text(Estimate(4, 0.5, -math.inf, math.inf), METRICS[0]) == "+50.0 % [\u2212∞, +∞]"


def test_the_terminal_shows_units_marks_and_verdicts() -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(part_view(TABLE, 200))
    text = console.export_text()
    for wanted in (
        "Mean completion time [s]",
        "short <first>",
        "✓",
        "✗",
        "expected \u221224.5 %",
        "refuted: Slow is faster",
    ):
        assert wanted in text


def test_a_narrow_terminal_names_the_metrics_that_do_not_fit() -> None:
    console = Console(width=60, record=True, file=io.StringIO())
    console.print(part_view(TABLE, 60))
    text = console.export_text()
    assert "also measured, see the report: Attainment" in text
    assert "Mean completion time" in text
    assert "…" not in text


def test_every_plot_is_a_png_and_the_same_each_time() -> None:
    first, second = draw_part(TABLE), draw_part(TABLE)
    assert [picture.name for picture in first] == ["main-1", "main-2"]
    assert all(picture.png.startswith(b"\x89PNG") and len(picture.png) > 5000 for picture in first)
    assert first == second


def test_words_make_places_on_the_axis() -> None:
    settings = tuple(Setting(name, {"mode": name}) for name in ("none", "static", "continuous"))
    plots = (Plot("mode", "jct", "Batching", "Mean"),)
    part = replace(MAIN, settings=settings, plots=plots, claims=(), expected=None)
    table = tabulate(part, 2, [execute(task) for task in tasks_of(part, 2, None)])
    assert drawing._places([setting.values["mode"] for setting in settings]) == [0, 1, 2]
    assert draw_part(table)[0].png.startswith(b"\x89PNG")


def test_nothing_to_draw_is_no_picture() -> None:
    assert draw_part(tabulate(FOREST, 3, [])) == []
    alone = replace(FOREST, baseline=None)
    assert draw_part(tabulate(alone, 1, [execute(task) for task in tasks_of(alone, 1, None)])) == []


def test_one_seed_makes_a_report_without_intervals() -> None:
    table = tabulate(MAIN, 1, [execute(task) for task in tasks_of(MAIN, 1, None)])
    assert len(draw_part(table)) == 2
    assert "±" not in summary_csv(table)


def test_ticks_that_would_print_over_each_other_are_left_out() -> None:
    assert drawing._apart([1, 1.01, 2, 4], logarithmic=True) == [1, 2, 4]


def test_a_data_set_without_a_readme_says_so(tmp_path: Any) -> None:
    (tmp_path / "bare").mkdir()
    (source,) = sources_of(tmp_path, ["bare", "absent", "bare"])
    assert source.license.startswith("not stated")
