"""Published predictions of answer lengths: what a trained classifier said of prompts, and how long the answers were.

A file of this kind is a CSV with the columns below; where one is a class, its bins are those of the SSJF paper's code.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trimtab.model.problem import Problem
from trimtab.workload.fault import TraceError
from trimtab.workload.textfile import COMPRESSIONS, Row, csv_rows, lines

COLUMNS = ("output_tokens", "pred_2class", "pred_5class")
_THREE, _FIVE = 3, 5  # classes; the column for three of them is called binary in the paper's code


@dataclass(frozen=True, slots=True)
class PredictedLengths:
    """Answers and what was predicted of them; arrays of the shape `(answers,)`.

    Attributes:
        source: The file.
        output_tokens: The true lengths.
        three_bins: Class of each prediction, 0 to 2.
        five_bins: Class of each prediction, 0 to 4.
    """

    source: str
    output_tokens: NDArray[np.float64]
    three_bins: NDArray[np.int64]
    five_bins: NDArray[np.int64]


def find_predicted_lengths(folder: Path) -> Path:
    """Return the first file in `folder`, by name, that has the columns.

    Raises:
        Problem: There is none.
    """
    endings = tuple(f".csv{packed}" for packed in COMPRESSIONS)
    for path in sorted(folder.glob("*")) if folder.is_dir() else ():
        if path.name.endswith(endings) and _has_columns(path):
            return path
    raise Problem(f"{folder} holds no file with {', '.join(COLUMNS)}", fix="point --data at a folder with such a set")


def read_predicted_lengths(path: Path) -> PredictedLengths:
    """Read one file.

    Raises:
        TraceError: A fault in the file, by row and field.
    """
    rows = [
        (row.tokens("output_tokens"), _bin(row, "pred_2class", _THREE), _bin(row, "pred_5class", _FIVE))
        for row in csv_rows(path, COLUMNS)
    ]
    if not rows:
        raise TraceError(path, "no prediction in the file, only the header")
    tokens, three, five = zip(*rows, strict=True)
    return PredictedLengths(str(path), np.array(tokens, dtype=np.float64), np.array(three), np.array(five))


def _bin(row: Row, column: str, bins: int) -> int:
    number = row.number_of(column)
    if number != int(number) or not 0 <= number < bins:
        raise row.fault(column, f"{number:g} is none of the classes 0 to {bins - 1}")
    return int(number)


def _has_columns(path: Path) -> bool:
    rows = lines(path)
    try:
        _, header = next(rows, (0, ""))
    finally:
        rows.close()
    return set(COLUMNS) <= {cell.strip() for cell in header.split(",")}
