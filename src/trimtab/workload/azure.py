"""The Azure LLM inference traces: CSV with the time of arrival and two token counts.

Source: repository Azure/AzurePublicDataset, `AzureLLMInferenceTrace_{conv,code}.csv` (2023); later years have the
same columns.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from trimtab.workload.fault import TraceError
from trimtab.workload.request import Trace, TraceRequest
from trimtab.workload.textfile import Row, csv_rows

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


def read_azure(path: Path, *, name: str = "azure") -> Trace:
    """Read one Azure trace; its first arrival is time 0.

    Raises:
        TraceError: a fault in the file, by row and field.
    """
    requests = tuple(_requests(path))
    if not requests:
        raise TraceError(path, "no request in the file, only the header")
    return Trace(name, str(path), requests, requests[-1].at_seconds)


def _requests(path: Path) -> Iterator[TraceRequest]:
    start: datetime | None = None
    previous_seconds = 0.0
    for row in csv_rows(path, COLUMNS):
        moment = _moment(row)
        start = start or moment
        previous_seconds = row.arrival("TIMESTAMP", (moment - start).total_seconds(), previous_seconds)
        yield TraceRequest(previous_seconds, row.tokens("ContextTokens"), row.tokens("GeneratedTokens"))


def _moment(row: Row) -> datetime:
    """Read a timestamp to the microsecond; one without a zone is UTC."""
    text = row.value("TIMESTAMP")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise row.fault("TIMESTAMP", f"{text!r} is not a time like 2023-11-16 18:15:46.6805900") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
