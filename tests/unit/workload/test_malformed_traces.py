"""Every way a trace can be damaged gets an error that names the file, the row and the field."""

import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from trimtab.workload.azure import read_azure
from trimtab.workload.fault import TraceError
from trimtab.workload.mooncake import read_mooncake
from trimtab.workload.servegen import LEVELS, read_servegen

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
T0 = "2023-11-16 18:15:46.6805900"
T1 = "2023-11-16 18:15:50.9951690"

# content, row, field, part of the message
AZURE_FAULTS: dict[str, tuple[str | bytes, int, str, str]] = {
    "empty": ("", 0, "", "the file is empty"),
    "only newlines": ("\n\n", 0, "", "the file is empty"),
    "only header": (AZURE, 0, "", "only the header"),
    "missing column": (
        "TIMESTAMP,ContextTokens\n",
        1,
        "GeneratedTokens",
        "the column is missing; the header has TIMESTAMP",
    ),
    "doubled column": (AZURE.replace("\n", ",TIMESTAMP\n"), 1, "TIMESTAMP", "two columns have this name"),
    "short row": (f"{AZURE}{T0},374\n", 2, "", "2 fields where the header names 3"),
    "long row": (f"{AZURE}{T0},374,44,9\n", 2, "", "4 fields where the header names 3"),
    "unsorted": (f"{AZURE}{T1},374,44\n{T0},374,44\n", 3, "TIMESTAMP", "before the start of the trace"),
    "unsorted later": (
        f"{AZURE}{T0},374,44\n{T1},374,44\n{T0},374,44\n",
        4,
        "TIMESTAMP",
        "is before the row above (4.31458 s); sort the file by TIMESTAMP",
    ),
    "not a time": (f"{AZURE}yesterday,374,44\n", 2, "TIMESTAMP", "'yesterday' is not a time like 2023-11-16"),
    "far future": (
        f"{AZURE}{T0},1,1\n2093-11-16 18:15:46,1,1\n",
        3,
        "TIMESTAMP",
        "more than ten years after the start",
    ),
    "zero input": (f"{AZURE}{T0},0,44\n", 2, "ContextTokens", "0 tokens; a request has at least 1"),
    "zero output": (f"{AZURE}{T0},374,0\n", 2, "GeneratedTokens", "0 tokens"),
    "negative": (f"{AZURE}{T0},-5,44\n", 2, "ContextTokens", "-5 tokens"),
    "fraction": (f"{AZURE}{T0},3.5,44\n", 2, "ContextTokens", "'3.5' is not a whole number of tokens"),
    "huge": (f"{AZURE}{T0},99999999999,44\n", 2, "ContextTokens", "99999999999 tokens is more than any model takes"),
    "beyond float": (f"{AZURE}{T0},1e999,44\n", 2, "ContextTokens", "'1e999' is not a finite number"),
    "not a number": (f"{AZURE}{T0},many,44\n", 2, "ContextTokens", "'many' is not a finite number"),
    "nan": (f"{AZURE}{T0},nan,44\n", 2, "ContextTokens", "'nan' is not a finite number"),
    "empty field": (f"{AZURE}{T0},,44\n", 2, "ContextTokens", "'' is not a finite number"),
    "python's underscore": (f"{AZURE}{T0},1_000,44\n", 2, "ContextTokens", "'1_000' is not a finite number"),
    "empty line between": (f"{AZURE}{T0},374,44\n\n{T1},374,44\n", 3, "", "the line is empty; delete it"),
    "open quote": (f'{AZURE}"{T0},374,44\n', 2, "", "not a CSV line"),
    "latin-1": (f"{AZURE}{T0},374,44\n".encode() + b"\xe9\xe8,1,1\n", 1, "", "not UTF-8 text"),
}


@pytest.mark.parametrize("fault", AZURE_FAULTS)
def test_damaged_azure_trace(fault: str, tmp_path: Path) -> None:
    content, row, field, message = AZURE_FAULTS[fault]
    path = tmp_path / "trace.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(TraceError) as caught:
        read_azure(path)
    error = caught.value
    assert (error.path, error.field) == (str(path), field)
    assert error.row == row or fault == "latin-1"  # a decoder reads ahead of the line with the bad byte
    assert message in str(error)
    assert str(error).startswith(str(path))


def mooncake_line(**changes: Any) -> str:
    fields = {"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [1, 2]} | changes
    return json.dumps({key: value for key, value in fields.items() if value is not ...}) + "\n"


MOONCAKE_FAULTS: dict[str, tuple[str, int, str, str]] = {
    "empty": ("", 0, "", "the file is empty"),
    "not JSON": (mooncake_line() + "{'timestamp': 1}\n", 2, "", "not JSON"),
    "not an object": ("[1, 2]\n", 1, "", "a list where an object is needed"),
    "nested too deep": ("[" * 100_000 + "\n", 1, "", "not "),
    "missing key": (mooncake_line(output_length=...), 1, "output_length", "missing"),
    "missing blocks": (mooncake_line(hash_ids=...), 1, "hash_ids", "missing"),
    "null": (mooncake_line(input_length=None), 1, "input_length", "None is not a finite number"),
    "true": (mooncake_line(output_length=True), 1, "output_length", "True is not a finite number"),
    "text": (mooncake_line(output_length="x" * 99), 1, "output_length", "... is not a finite number"),
    "zero tokens": (mooncake_line(output_length=0), 1, "output_length", "0 tokens"),
    "huge integer": (mooncake_line(output_length=10**400), 1, "output_length", "is not a finite number"),
    "negative time": (mooncake_line(timestamp=-1), 1, "timestamp", "-0.001 s is before the start"),
    "microseconds": (mooncake_line(timestamp=10**15), 1, "timestamp", "check the unit"),
    "unsorted": (mooncake_line(timestamp=9) + mooncake_line(timestamp=8), 2, "timestamp", "sort the file by timestamp"),
    "blocks do not match": (mooncake_line(hash_ids=[1]), 1, "hash_ids", "1 blocks for 600 tokens, not 2 of 512"),
    "blocks are text": (mooncake_line(hash_ids=["a", "b"]), 1, "hash_ids", "not a list of whole numbers"),
    "blocks are no list": (mooncake_line(hash_ids=7), 1, "hash_ids", "not a list of whole numbers"),
}


@pytest.mark.parametrize("fault", MOONCAKE_FAULTS)
def test_damaged_mooncake_trace(fault: str, tmp_path: Path) -> None:
    content, row, field, message = MOONCAKE_FAULTS[fault]
    path = tmp_path / "trace.jsonl"
    path.write_text(content)
    with pytest.raises(TraceError) as caught:
        read_mooncake(path)
    error = caught.value
    assert (error.row, error.field) == (row, field)
    assert message in str(error)


@pytest.mark.parametrize(("packing", "ending"), [(gzip.compress, ".gz"), (lzma.compress, ".xz")])
@pytest.mark.parametrize("keep", [0.5, 0.9, 0.99])
def test_cut_off_compressed_file(packing: Any, ending: str, keep: float, tmp_path: Path) -> None:
    lines = "".join(
        f"2023-11-16 18:{minute:02}:00.{part:07},{part + 1},7\n" for minute in range(60) for part in range(99)
    )
    whole = packing((AZURE + lines).encode())
    path = tmp_path / f"trace.csv{ending}"
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(TraceError, match="damaged or cut off"):
        read_azure(path)


def test_file_that_is_not_what_its_ending_says(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv.gz"
    path.write_text(AZURE)
    with pytest.raises(TraceError, match="not gzip at all"):
        read_azure(path)


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="cannot be read: No such file"):
        read_azure(tmp_path / "absent.csv")


RATES = "client,t_s,rate_rps,cv,dist,p1,p2\n"
GOOD_RATES = f"{RATES}1,0,0.5,1,Gamma,1,2\n"
GOOD_LENGTHS = '{"client": 1, "t": 0, "input_tokens": {"5": 1.0}, "output_tokens": {"7": 1.0}}\n'

RATES_FAULTS: dict[str, tuple[str, int, str, str]] = {
    "empty": ("", 0, "", "the file is empty"),
    "only header": (RATES, 0, "", "only the header"),
    "missing column": ("client,t_s\n", 1, "rate_rps", "the column is missing"),
    "zero rate": (f"{RATES}1,0,0,1,Gamma,1,2\n", 2, "rate_rps", "0 must be above 0"),
    "negative shape": (f"{RATES}1,0,1,1,Gamma,-1,2\n", 2, "p1", "-1 must be above 0"),
    "unknown law": (f"{RATES}1,0,1,1,Pareto,1,2\n", 2, "dist", "'Pareto' is neither Gamma nor Weibull"),
    "negative time": (f"{RATES}1,-600,1,1,Gamma,1,2\n", 2, "t_s", "before the start"),
    "windows overlap": (
        f"{GOOD_RATES}1,300,1,1,Gamma,1,2\n",
        3,
        "t_s",
        "300 s lies in the client's window above; its next can begin at 600 s",
    ),
    "window twice": (f"{GOOD_RATES}1,0,1,1,Gamma,1,2\n", 3, "t_s", "0 s lies in the client's window above"),
    "not a number": (f"{RATES}1,0,often,1,Gamma,1,2\n", 2, "rate_rps", "'often' is not a finite number"),
}

LENGTHS_FAULTS: dict[str, tuple[str, int, str, str]] = {
    "empty": ("", 0, "", "the file is empty"),
    "other clients": (GOOD_LENGTHS.replace('"client": 1', '"client": 2'), 0, "", "no client of the file with rates"),
    "no output": ('{"client": 1, "t": 0, "input_tokens": {"5": 1}}\n', 1, "output_tokens", "missing"),
    "no input": ('{"client": 1, "t": 0, "output_tokens": {"5": 1}}\n', 1, "input_tokens", "missing"),
    "media without tokens": (
        '{"client": 1, "t": 0, "text_tokens": {"5": 1}, "output_tokens": {"7": 1}, "image_count": {"1": 1}}\n',
        1,
        "image_tokens",
        "missing",
    ),
    "half a distribution": (GOOD_LENGTHS.replace('"7": 1.0', '"7": 0.5'), 1, "output_tokens", "add up to 0.5, not 1"),
    "negative value": (GOOD_LENGTHS.replace('"7"', '"-7"'), 1, "output_tokens", "-7 is not between 0 and"),
    "value is text": (GOOD_LENGTHS.replace('"7"', '"long"'), 1, "output_tokens", "'long' is not a finite number"),
    "empty distribution": (GOOD_LENGTHS.replace('{"7": 1.0}', "{}"), 1, "output_tokens", "not an object of value"),
    "unsorted": (GOOD_LENGTHS.replace('"t": 0', '"t": 9') + GOOD_LENGTHS, 2, "t", "sort the file by t"),
}


@pytest.mark.parametrize("fault", RATES_FAULTS)
def test_damaged_servegen_rates(fault: str, tmp_path: Path) -> None:
    content, row, field, message = RATES_FAULTS[fault]
    (tmp_path / "m_rates.csv").write_text(content)
    (tmp_path / "m_pdfs.jsonl").write_text(GOOD_LENGTHS)
    with pytest.raises(TraceError) as caught:
        read_servegen(tmp_path / "m_rates.csv")
    assert (caught.value.row, caught.value.field) == (row, field)
    assert message in str(caught.value)


@pytest.mark.parametrize("fault", LENGTHS_FAULTS)
def test_damaged_servegen_lengths(fault: str, tmp_path: Path) -> None:
    content, row, field, message = LENGTHS_FAULTS[fault]
    (tmp_path / "m_rates.csv").write_text(GOOD_RATES)
    (tmp_path / "m_pdfs.jsonl").write_text(content)
    with pytest.raises(TraceError) as caught:
        read_servegen(tmp_path / "m_rates.csv")
    assert (caught.value.row, caught.value.field) == (row, field)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, 2, 3], f"not a list of {len(LEVELS)} quantiles"),
        ([*range(len(LEVELS) - 1), 0], "the quantiles do not ascend"),
        ([None] * len(LEVELS), "None is not a finite number"),
        ("many", "not a list"),
    ],
)
def test_damaged_servegen_quantiles(values: object, message: str, tmp_path: Path) -> None:
    (tmp_path / "m_rates.csv").write_text(GOOD_RATES)
    record = {"client": 1, "t": 0, "input_tokens": values, "output_tokens": list(range(len(LEVELS)))}
    (tmp_path / "m_quantiles.jsonl").write_text(json.dumps(record) + "\n")
    with pytest.raises(TraceError, match=message):
        read_servegen(tmp_path / "m_rates.csv")


def test_servegen_rates_without_lengths_say_which_file_is_needed(tmp_path: Path) -> None:
    (tmp_path / "m_rates.csv").write_text(GOOD_RATES)
    with pytest.raises(TraceError, match=r"needs m_pdfs\.jsonl or m_quantiles\.jsonl"):
        read_servegen(tmp_path / "m_rates.csv")
