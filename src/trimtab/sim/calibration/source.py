"""What a set of measured runs gives to the calibration report: for each request what was measured and predicted.

A source knows one data set by its folder and the columns of its files, replays every run that it finds there through
the serving physics, and says which runs do not judge the physics and why. Nothing that a folder lacks is fatal: it is
a problem that the report names.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from trimtab.sim.profile import Profile

Cell = float | int | str | bool | None


@dataclass(frozen=True, slots=True)
class Latency:
    """What one request took, in seconds, from its arrival.

    Attributes:
        ttft: Until the first token of the answer.
        e2e: Until the last one.
        output_tokens: Tokens of the answer.
    """

    ttft: float
    e2e: float
    output_tokens: int

    @property
    def time_between_tokens(self) -> float | None:
        """Mean seconds between two tokens; None for an answer of one token."""
        if self.output_tokens <= 1:
            return None
        return (self.e2e - self.ttft) / (self.output_tokens - 1)


METRICS: Mapping[str, Callable[[Latency], float | None]] = {
    "ttft": lambda latency: latency.ttft,
    "time_between_tokens": lambda latency: latency.time_between_tokens,
    "e2e": lambda latency: latency.e2e,
}
"""What is compared, each in seconds."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One request, measured and predicted.

    Attributes:
        stage: The part of its run that it belongs to, e.g. "synchronous" or "constant 0.41/s".
    """

    stage: str
    measured: Latency
    predicted: Latency


@dataclass(frozen=True, slots=True)
class Run:
    """One measured run.

    Attributes:
        id: Unique in the report.
        source: Name of the data set.
        setup: What was run (model, accelerator, tensor_parallel, max_num_batched_tokens, ...), for people.
        profile: Name of the profile that predicted.
        extrapolated: Whether that profile was scaled from other models or hardware.
        in_fit: Whether the profile was fitted on this very run; then its errors judge nothing.
        requests: Those that were compared, in the order of their arrival; empty where nothing could be predicted.
        judged: Whether the bars apply.
        reason: Why not, where they do not; else empty or a remark.
    """

    id: str
    source: str
    setup: Mapping[str, Cell]
    profile: str
    extrapolated: bool
    in_fit: bool
    requests: tuple[Compared, ...]
    judged: bool = True
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Findings:
    """What one source found in a folder.

    Attributes:
        runs: In the order of their names.
        problems: One sentence for everything that is missing or malformed, with file, row, field and what to do.
        profiles: Profiles fitted on this data; empty unless that was asked for.
        files: Other files that the fit made, by name, to be kept with the profiles.
        notes: What else the reader should know, in sentences.
    """

    runs: tuple[Run, ...] = ()
    problems: tuple[str, ...] = ()
    profiles: tuple[Profile, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Source(Protocol):
    """One data set of measured runs.

    Attributes:
        name: What its folder is called in a folder of data sets.
        title: One line for people.
    """

    @property
    def name(self) -> str: ...  # noqa: D102 - see the attributes
    @property
    def title(self) -> str: ...  # noqa: D102

    def replay(self, data: Path, *, fit: bool) -> Findings:
        """Replay every run in the folder of data sets `data`.

        Args:
            data: The folder of data sets, in which this one has a folder of its own.
            fit: Fit profiles to this data first, and predict with them; otherwise with what ships.
        """
        ...
