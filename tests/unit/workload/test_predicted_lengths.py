"""Published predictions are found by their columns and read with every fault named."""

import gzip
from pathlib import Path

import pytest

from trimtab.model.problem import Problem
from trimtab.workload.fault import TraceError
from trimtab.workload.predicted_lengths import find_predicted_lengths, read_predicted_lengths

HEADER = "row,output_tokens,pred_2class,pred_5class,latency_s\n"


def a_file(folder: Path, text: str, name: str = "lengths.csv") -> Path:
    path = folder / name
    path.write_text(HEADER + text)
    return path


def test_a_file_is_read_into_columns(tmp_path: Path) -> None:
    known = read_predicted_lengths(a_file(tmp_path, "0,40,0,1,0.02\n1,511,2,4,0.01\n"))
    assert known.output_tokens.tolist() == [40.0, 511.0]
    assert known.three_bins.tolist() == [0, 2]
    assert known.five_bins.tolist() == [1, 4]


def test_the_file_is_found_by_its_columns_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("about")
    (tmp_path / "a-other.csv").write_text("time,value\n1,2\n")
    packed = tmp_path / "z-half.csv.gz"
    packed.write_bytes(gzip.compress((HEADER + "0,40,0,1,0.02\n").encode()))
    assert find_predicted_lengths(tmp_path) == packed
    assert read_predicted_lengths(packed).output_tokens.tolist() == [40.0]


@pytest.mark.parametrize("folder", ["empty", "missing"])
def test_a_folder_without_one_is_said_to_lack_the_columns(tmp_path: Path, folder: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(Problem, match=r"holds no file with output_tokens, pred_2class, pred_5class"):
        find_predicted_lengths(tmp_path / folder)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0,0,0,1,0.02", r"lengths.csv, row 2, output_tokens: 0 tokens"),
        ("0,forty,0,1,0.02", r"row 2, output_tokens: 'forty' is not a finite number"),
        ("0,40,3,1,0.02", r"row 2, pred_2class: 3 is none of the classes 0 to 2"),
        ("0,40,0,5,0.02", r"row 2, pred_5class: 5 is none of the classes 0 to 4"),
        ("0,40,0,-1,0.02", r"row 2, pred_5class: -1 is none"),
        ("0,40,0,1.5,0.02", r"row 2, pred_5class: 1.5 is none"),
        ("0,40,0", r"row 2: 3 fields where the header names 5"),
    ],
)
def test_a_fault_is_named_by_row_and_field(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        read_predicted_lengths(a_file(tmp_path, f"{row}\n"))


def test_a_file_without_a_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no prediction in the file, only the header"):
        read_predicted_lengths(a_file(tmp_path, ""))
