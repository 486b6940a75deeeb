"""Rows of plain or compressed text files, with every fault named by file, row and field."""

import csv
import gzip
import json
import lzma
import math
import zlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, TypeGuard, cast

from trimtab.workload.fault import TraceError
from trimtab.workload.request import MAX_SECONDS, MAX_TOKENS

COMPRESSIONS = ("", ".gz", ".xz")
_READ_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError, UnicodeDecodeError)


def bare_name(path: Path) -> str:
    """Return the file's name without the ending of a compression."""
    return path.name.removesuffix(path.suffix) if path.suffix in COMPRESSIONS[1:] else path.name


def open_text(path: Path) -> TextIO:
    """Open a plain, gzip or xz file as UTF-8 text; line ends are kept as they are."""
    opener = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    return cast("TextIO", opener(path, "rt", encoding="utf-8-sig", newline=""))  # type: ignore[operator]


def lines(path: Path) -> Generator[tuple[int, str], None, None]:
    """Yield (row, text) for every line of `path`, counted from 1, empty lines at the end left out.

    Raises:
        TraceError: the file cannot be read, is cut off, is not UTF-8, or has an empty line between others.
    """
    row = 0
    empty_row = 0
    try:
        with open_text(path) as text:
            for line in text:
                row += 1
                if not line.strip():
                    empty_row = empty_row or row
                    continue
                if empty_row:
                    raise TraceError(path, "the line is empty; delete it", row=empty_row)
                yield row, line
    except _READ_ERRORS as error:
        raise TraceError(path, _read_failure(error), row=row + 1 if row else 0) from error


def _read_failure(error: BaseException) -> str:
    match error:
        case EOFError() | lzma.LZMAError() | zlib.error():
            return "the compressed file is damaged or cut off; fetch it again"
        case gzip.BadGzipFile():
            return "the compressed file is damaged or not gzip at all; fetch it again"
        case UnicodeDecodeError():
            return "not UTF-8 text; convert the file"
        case OSError():
            return f"cannot be read: {error.strerror or error}"
        case _:
            return f"cannot be read: {error}"


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a file, whose fields are read with their checks.

    Attributes:
        path: the file, for messages.
        number: the line, counted from 1.
        fields: the record.
    """

    path: Path
    number: int
    fields: Mapping[str, Any]

    def fault(self, field: str, message: str) -> TraceError:
        """Return the error that says what is wrong with `field` of this row."""
        return TraceError(self.path, message, row=self.number, field=field)

    def value(self, field: str) -> Any:
        """Return the raw value of `field`, which must be there."""
        if field not in self.fields:
            raise self.fault(field, "missing")
        return self.fields[field]

    def number_of(self, field: str) -> float:
        """Return `field` as a finite number."""
        value = self.value(field)
        try:
            number = float(value) if _numeric(value) else math.nan
        except (ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise self.fault(field, f"{_shown(value)} is not a finite number")
        return number

    def tokens(self, field: str) -> int:
        """Return `field` as a number of tokens: whole, at least 1, at most `MAX_TOKENS`."""
        number = self.number_of(field)
        if number != int(number):
            raise self.fault(field, f"{_shown(self.value(field))} is not a whole number of tokens")
        if number < 1:
            raise self.fault(field, f"{int(number)} tokens; a request has at least 1")
        if number > MAX_TOKENS:
            raise self.fault(field, f"{int(number)} tokens is more than any model takes ({MAX_TOKENS}); check the unit")
        return int(number)

    def arrival(self, field: str, at_seconds: float, previous_seconds: float) -> float:
        """Return `at_seconds` once it is known to lie inside the trace and not before the row above."""
        if at_seconds < 0:
            raise self.fault(field, f"{at_seconds:g} s is before the start of the trace")
        if at_seconds > MAX_SECONDS:
            raise self.fault(field, f"{at_seconds:g} s is more than ten years after the start; check the unit")
        if at_seconds < previous_seconds:
            raise self.fault(
                field, f"{at_seconds:g} s is before the row above ({previous_seconds:g} s); sort the file by {field}"
            )
        return at_seconds


def _numeric(value: object) -> TypeGuard[str | int | float]:
    """Refuse what Python would take for a number and other readers would not: true, and 1_000."""
    return isinstance(value, str | int | float) and not isinstance(value, bool) and "_" not in str(value)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."  # noqa: PLR2004 - a message, not a dump


def csv_rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Yield the records of a CSV file whose header holds at least `columns`.

    Raises:
        TraceError: what `lines` raises, a missing or doubled column, a row with another number of fields.
    """
    numbered = lines(path)
    _, first = next(numbered, (0, ""))
    header = _cells(path, 1, first)
    if not header:
        raise TraceError(path, "the file is empty")
    for column in columns:
        if header.count(column) != 1:
            problem = "the column is missing" if column not in header else "two columns have this name"
            raise TraceError(path, f"{problem}; the header has {', '.join(header)}", row=1, field=column)
    for number, line in numbered:
        cells = _cells(path, number, line)
        if len(cells) != len(header):
            raise TraceError(path, f"{len(cells)} fields where the header names {len(header)}", row=number)
        yield Row(path, number, dict(zip(header, cells, strict=True)))


def _cells(path: Path, number: int, line: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line], strict=True), [])]
    except csv.Error as error:
        raise TraceError(path, f"not a CSV line: {error}", row=number) from error


def json_rows(path: Path) -> Iterator[Row]:
    """Yield the records of a file with one JSON object a line.

    Raises:
        TraceError: what `lines` raises, or a line that is not a JSON object.
    """
    for number, line in lines(path):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise TraceError(path, f"not JSON: {error}", row=number) from error
        except RecursionError as error:
            raise TraceError(path, "not a record: nested too deep", row=number) from error
        if not isinstance(record, dict):
            raise TraceError(path, f"a {type(record).__name__} where an object is needed", row=number)
        yield Row(path, number, record)
