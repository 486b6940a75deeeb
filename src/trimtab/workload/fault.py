"""What is wrong with a trace, said so that the reader can mend it."""

from pathlib import Path

from trimtab.model.problem import Problem


class TraceError(Problem):
    """A trace that cannot be read as it stands.

    Attributes:
        path: the file.
        row: its line, counted from 1, header included; 0 where the fault is not in one line.
        field: the column or key; empty where the fault is not in one field.
    """

    def __init__(self, path: Path | str, message: str, *, row: int = 0, field: str = "") -> None:
        place = f"{path}"
        if row:
            place += f", row {row}"
        if field:
            place += f", {field}"
        super().__init__(f"{place}: {message}")
        self.path = str(path)
        self.row = row
        self.field = field
