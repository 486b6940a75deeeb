"""Own logs and traces as requests whose lengths are known, and every fault by row and field."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from trimtab.decide.queueing.lengths import UNLIMITED, Features, Outcome
from trimtab.workload.fault import TraceError
from trimtab.workload.length_log import Pace, examples_of, read_log
from trimtab.workload.origin import origin_of
from trimtab.workload.request import Trace, TraceRequest

ROW: dict[str, Any] = {"arrived_at": 10.0, "input_tokens": 100, "output_tokens": 20}


def log(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "log.jsonl"
    path.write_text("".join(f"{json.dumps(ROW | row)}\n" for row in rows), encoding="utf-8")
    return path


def test_every_column_is_read(tmp_path: Path) -> None:
    row = {
        "ended_at": 12.5,
        "finish_reason": "stop",
        "max_tokens": 64,
        "tenant": "shop",
        "model": "m",
        "turn": 3,
        "conversation": 17,
        "text": "Hello",
    }
    (example,) = read_log(log(tmp_path, row))
    assert example.request == Features(100, 64, "shop", "m", 3, 10.0, "Hello")
    assert example.outcome == Outcome(20, exact=True, ended_at=12.5)
    assert example.conversation == "17"


def test_what_is_missing_is_not_known(tmp_path: Path) -> None:
    (example,) = read_log(log(tmp_path, {"tenant": None, "turn": "", "text": None}), Pace(1.0, 0.1))
    assert example.request == Features(100, UNLIMITED, arrived_at=10.0)
    assert example.outcome == Outcome(20, exact=True, ended_at=13.0)


@pytest.mark.parametrize(
    ("row", "exact"),
    [
        ({"finish_reason": "stop"}, True),
        ({"finish_reason": "tool_calls"}, True),
        ({"finish_reason": "length"}, False),
        ({"finish_reason": "abort"}, False),
        ({"finish_reason": "anything new"}, False),
        ({"max_tokens": 20}, False),
        ({"max_tokens": 21}, True),
        ({"finish_reason": "abort", "output_tokens": 0}, False),
    ],
)
def test_answers_that_were_cut_off_are_not_exact(tmp_path: Path, row: dict[str, Any], exact: bool) -> None:
    assert read_log(log(tmp_path, row))[0].outcome.exact is exact


def test_rows_may_be_in_any_order_and_times_may_be_written_out(tmp_path: Path) -> None:
    times = ["2024-05-01T10:00:02Z", "2024-05-01T10:00:01", "1714557600.5", 1714557600.25]
    examples = read_log(log(tmp_path, *({"arrived_at": at} for at in times)))
    assert [example.request.arrived_at for example in examples] == [
        1714557600.25, 1714557600.5, 1714557601.0, 1714557602.0,
    ]  # fmt: skip


def test_csv_and_compressed_logs_are_read(tmp_path: Path) -> None:
    text = "arrived_at,input_tokens,output_tokens,tenant\n0,5,7,a\n1,6,8,\n"
    plain, packed = tmp_path / "log.csv", tmp_path / "log.csv.gz"
    plain.write_text(text)
    packed.write_bytes(gzip.compress(text.encode()))
    assert read_log(plain) == read_log(packed)
    assert [example.request.tenant for example in read_log(plain)] == ["a", ""]


@pytest.mark.parametrize(
    ("row", "field", "message"),
    [
        ({"output_tokens": None}, "output_tokens", "empty"),
        ({"output_tokens": 0}, "output_tokens", "say what cut it off"),
        ({"output_tokens": 2.5}, "output_tokens", "not a whole number from 0"),
        ({"output_tokens": 1e12}, "output_tokens", "not a whole number from 0 to"),
        ({"input_tokens": 0}, "input_tokens", "at least 1"),
        ({"input_tokens": "many"}, "input_tokens", "not a finite number"),
        ({"max_tokens": 0}, "max_tokens", "from 1 to"),
        ({"turn": -1}, "turn", "from 0 to"),
        ({"arrived_at": "yesterday"}, "arrived_at", "neither seconds nor a time"),
        ({"arrived_at": "nan"}, "arrived_at", "not a finite number"),
        ({"ended_at": 9.0}, "ended_at", "before its arrival"),
        ({"tenant": ["a"]}, "tenant", "a list where text is needed"),
        ({"text": {"role": "user"}}, "text", "a dict where text is needed"),
    ],
)
def test_faults_are_named_by_row_and_field(tmp_path: Path, row: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(TraceError, match=message) as caught:
        read_log(log(tmp_path, {}, row))
    assert (caught.value.row, caught.value.field) == (2, field)


def test_a_prompt_is_never_part_of_a_message(tmp_path: Path) -> None:
    with pytest.raises(TraceError) as caught:
        read_log(log(tmp_path, {"text": "a secret", "turn": "x"}))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("log.csv", "arrived_at,input_tokens\n1,2\n", "output_tokens: the column is missing"),
        ("log.csv", "", "the file is empty"),
        ("log.csv", "arrived_at,input_tokens,output_tokens\n", "no request in the file"),
        ("log.jsonl", "", "no request in the file; each row needs arrived_at, input_tokens, output_tokens"),
        ("log.jsonl", '{"arrived_at": 1, "input_tokens": 2}\n', "row 1, output_tokens: empty"),
        ("log.jsonl", "{\n", "row 1: not JSON"),
    ],
)
def test_files_that_are_no_logs_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(TraceError, match=message):
        read_log(path)
    with pytest.raises(TraceError, match="cannot be read"):
        read_log(tmp_path / "none.csv")


def test_requests_of_a_trace_end_at_the_pace() -> None:
    trace = Trace("t", "t.csv", (TraceRequest(1.0, 10, 100, client="c"),), 1.0)
    (example,) = examples_of(trace)
    assert example.request == Features(10, tenant="c", arrived_at=1.0)
    assert example.outcome == Outcome(100, ended_at=pytest.approx(3.1))
    assert str(Pace()) == "0.1 s + 0.02 s per token"


def test_the_folder_says_where_data_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "d.csv"
    assert origin_of(file) == {"file": "d.csv", "source": "not stated", "licence": "not stated"}
    (tmp_path / "README.md").write_text("# D\n\nSource (public):\n- `A/b` at `c`\n\nLicence: CC0-1.0 (free).\n")
    assert origin_of(file) == {"file": "d.csv", "source": "`A/b` at `c`", "licence": "CC0-1.0 (free)."}
