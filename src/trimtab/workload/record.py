"""What is kept of each replayed request."""

from dataclasses import dataclass

from trimtab.workload.answer import Outcome
from trimtab.workload.level import ServiceLevel


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request of a replay. All times are in reported seconds (wall seconds x time scale).

    Latencies count from the moment the trace wanted the request sent, not from the moment it was, so that waiting in
    the client cannot hide.

    Attributes:
        number: its place in the trace, from 0.
        level: the service level that it asked for.
        outcome: how it ended.
        status: HTTP status; 0 without an answer.
        scheduled_seconds: when the trace wanted it sent, after the start of the replay.
        lag_seconds: how much later the client began to send it.
        ttft_seconds: from scheduled to the first content; None without content.
        completion_seconds: from scheduled to the end, however it ended.
        tpot_seconds: (completion - TTFT) / (output tokens - 1); None unless it ended well with 2 tokens or more.
        largest_gap_seconds: the longest time between two pieces of the answer.
        input_tokens: as the trace wants.
        prompt_tokens: as the server counted; 0 when it did not say.
        cached_tokens: the part of them that came from the server's prefix cache.
        wanted_tokens: output tokens as the trace wants.
        output_tokens: as the server counted, else the number of pieces.
        error: what went wrong; empty when nothing did.
        met: whether it ended well and within every target of its level.
    """

    number: int
    level: ServiceLevel
    outcome: Outcome
    status: int
    scheduled_seconds: float
    lag_seconds: float
    ttft_seconds: float | None
    completion_seconds: float
    tpot_seconds: float | None
    largest_gap_seconds: float
    input_tokens: int
    prompt_tokens: int
    cached_tokens: int
    wanted_tokens: int
    output_tokens: int
    error: str
    met: bool
