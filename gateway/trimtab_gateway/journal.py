"""The last requests and what was decided about them, for people who ask why one waited or failed."""

from collections import deque
from typing import NamedTuple

from trimtab.model.reason import Reason
from trimtab.obs.wording import say


class Record(NamedTuple):
    """One request that ended. Nothing of its content is kept. (A tuple: one is made for each request.)

    Attributes:
        request_id: as in the answer's `x-request-id`.
        pool: who served it.
        model: what it asked for.
        level: its service level.
        engine: who answered, empty when no engine did.
        outcome: how it ended.
        queued_seconds: until an engine had a place for it, or until it ended without one.
        ttft_seconds: until the first content of a stream; None when there was none.
        total_seconds: until it ended.
        attempts: engines that were tried.
        reason: why it was refused, if it was.
    """

    request_id: str
    pool: str
    model: str
    level: str
    engine: str
    outcome: str
    queued_seconds: float
    ttft_seconds: float | None
    total_seconds: float
    attempts: int
    reason: Reason | None = None

    def to_wire(self) -> dict[str, object]:
        """Return the JSON form."""
        return self._asdict() | {"reason": say(self.reason) if self.reason else None}


class Journal:
    """The most recent records, oldest first."""

    __slots__ = ("_records",)

    def __init__(self, size: int) -> None:
        self._records: deque[Record] = deque(maxlen=size)

    def add(self, record: Record) -> None:
        """Keep a record, and forget the oldest one when there are too many."""
        self._records.append(record)

    def latest(self, limit: int, *, pool: str = "", outcome: str = "") -> list[Record]:
        """Return the newest records first, of one pool and with one outcome if given."""
        found = (
            record
            for record in reversed(self._records)
            if (not pool or record.pool == pool) and (not outcome or record.outcome == outcome)
        )
        return [record for record, _ in zip(found, range(limit), strict=False)]

    def find(self, request_id: str) -> list[Record]:
        """Return the records of one request id, newest first; clients may use an id more than once."""
        return [record for record in reversed(self._records) if record.request_id == request_id]
