"""Sums over requests, against counts by hand."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from trimtab.workload.answer import Outcome
from trimtab.workload.histogram import LogHistogram
from trimtab.workload.level import ServiceLevel
from trimtab.workload.plot import draw_replay, fate_of
from trimtab.workload.record import RequestRecord
from trimtab.workload.report import summary_fields, write_requests, write_summary
from trimtab.workload.summary import Summary, summarize

CHAT = ServiceLevel("chat", ttft_seconds=1.0)
BATCH = ServiceLevel("batch", completion_seconds=60.0)
GOOD = RequestRecord(
    number=0,
    level=CHAT,
    outcome=Outcome.OK,
    status=200,
    scheduled_seconds=0.0,
    lag_seconds=0.001,
    ttft_seconds=0.5,
    completion_seconds=2.5,
    tpot_seconds=0.02,
    largest_gap_seconds=0.03,
    input_tokens=100,
    prompt_tokens=100,
    cached_tokens=25,
    wanted_tokens=101,
    output_tokens=101,
    error="",
    met=True,
)


def sum_up(*records: RequestRecord, seconds: float = 10.0) -> Summary:
    return summarize(records, (CHAT, BATCH), offered_seconds=seconds, gaps=LogHistogram())


def test_everything_but_met_is_missed() -> None:
    lost = [replace(GOOD, outcome=outcome, met=False, ttft_seconds=None) for outcome in Outcome]
    chat = sum_up(GOOD, *lost).levels[0]
    assert (chat.offered, chat.met) == (1 + len(Outcome), 1)
    assert chat.attainment == pytest.approx(1 / 8)
    assert chat.outcomes[Outcome.OK] == 2
    assert chat.goodput == pytest.approx(0.1)


def test_levels_are_kept_apart() -> None:
    summary = sum_up(GOOD, replace(GOOD, level=BATCH, met=False, ttft_seconds=9.0))
    assert [level.attainment for level in summary.levels] == [1.0, 0.0]
    assert summary.levels[1].ttft.p50 == 9.0
    assert summary.total.offered == 2


def test_a_level_that_nobody_asked_for_has_no_attainment() -> None:
    assert math.isnan(sum_up(GOOD).levels[1].attainment)


def test_tokens_of_late_requests_are_output_but_not_good() -> None:
    summary = sum_up(GOOD, replace(GOOD, met=False), replace(GOOD, met=False, outcome=Outcome.TRUNCATED))
    assert summary.output_tokens_per_second == pytest.approx(20.2)
    assert summary.good_tokens_per_second == pytest.approx(10.1)


def test_cached_part_of_the_prompts() -> None:
    assert sum_up(GOOD, replace(GOOD, cached_tokens=75)).cached_fraction == 0.5


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ({}, None),
        ({"lag_seconds": 0.2}, "the client was overloaded: it sent 1 % of the requests 0.2 s late or more"),
        ({"prompt_tokens": 130}, "the server counted 1.30 x the prompt tokens"),
        ({"output_tokens": 17}, "20 of 20 answers"),
        ({"prompt_tokens": 0}, None),
    ],
)
def test_warnings(change: dict[str, float], warning: str | None) -> None:
    records = [replace(GOOD, **change)] * 20  # type: ignore[arg-type]
    warnings = sum_up(*records).warnings
    assert len(warnings) == (warning is not None)
    assert warning is None or warning in warnings[0]


def test_no_request_at_all_is_a_summary_too() -> None:
    summary = sum_up(seconds=0.0)
    assert summary.total.offered == 0
    assert math.isnan(summary.total.goodput)
    record = summary_fields(summary, {})
    assert record["total"]["attainment"] is None
    json.dumps(record, allow_nan=False)


def test_the_most_frequent_errors_are_kept() -> None:
    lost = replace(GOOD, outcome=Outcome.ERROR, met=False)
    records = [replace(lost, error=text) for text in ["d", *"bb", *"aaa", "c", ""]]
    assert sum_up(*records).errors == (("error: a", 3), ("error: b", 2), ("error: c", 1))


def test_csv_has_every_request_in_the_order_of_the_trace(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    write_requests(path, [replace(GOOD, number=1, ttft_seconds=None, error='say "no",\nplease'), GOOD])
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["number"] for row in rows] == ["0", "1"]
    assert (rows[0]["level"], rows[0]["outcome"], rows[0]["met"]) == ("chat", "ok", "1")
    assert (rows[0]["ttft_seconds"], rows[1]["ttft_seconds"]) == ("0.500000", "")
    assert rows[1]["error"] == 'say "no",\nplease'


def test_summary_json_is_written_and_read(tmp_path: Path) -> None:
    write_summary(tmp_path / "s.json", summary_fields(sum_up(GOOD), {"trace": "t"}))
    record = json.loads((tmp_path / "s.json").read_text())
    assert record["about"] == {"trace": "t"}
    assert record["levels"][0]["ttftSeconds"]["p50"] == 0.5


@pytest.mark.parametrize(
    ("change", "fate"),
    [
        ({}, "met"),
        ({"met": False}, "late"),
        ({"met": False, "outcome": Outcome.TIMEOUT}, "late"),
        ({"met": False, "outcome": Outcome.REJECTED}, "refused"),
        ({"met": False, "outcome": Outcome.UNFINISHED}, "unfinished"),
        ({"met": False, "outcome": Outcome.STREAM_ERROR}, "failed"),
    ],
)
def test_fates(change: dict[str, object], fate: str) -> None:
    assert fate_of(replace(GOOD, **change)) == fate  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [1, 7, 200])
def test_picture_of_few_and_many_requests(count: int, tmp_path: Path) -> None:
    records = [
        replace(GOOD, number=n, scheduled_seconds=n / 10, ttft_seconds=0.1 + n % 7 if n % 5 else None)
        for n in range(count)
    ]
    path = tmp_path / "p.png"
    draw_replay(path, records, sum_up(*records), "title")
    assert path.read_bytes().startswith(b"\x89PNG")
