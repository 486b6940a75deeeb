"""Closed-loop sweeps of vLLM over tensor parallelism, concurrency and KV offloading, as their clients recorded them.

A folder holds files `*client_metrics.csv` (one row per request) and `*server_metrics.csv` (one row per second), plain,
.gz or .xz, with the rows of many runs. The name of a run says how it was made: `tp2_bs64_offloadon` is a model on 2
devices with at most 64 sequences, its KV cache copied to host memory.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import ceil
from pathlib import Path
from statistics import median
from typing import Final

from trimtab.sim.calibration.source import Latency
from trimtab.workload.fault import TraceError
from trimtab.workload.textfile import COMPRESSIONS, Row, csv_rows

_NAME: Final = re.compile(r"tp(?P<tp>[1-9]\d*)_bs(?P<bs>[1-9]\d*)_offload(?P<offload>on|off)")
CLIENT: Final = "*client_metrics.csv"
SERVER: Final = "*server_metrics.csv"
OTHER_REQUESTS: Final = "*_requests.csv"
_RUN: Final = "exp"
CLIENT_COLUMNS: Final = (
    _RUN, "start_time_ms", "ttft_ms", "latency_ms", "input_num_turns", "input_num_tokens", "output_num_tokens",
    "conversation_id", "client_id",
)  # fmt: skip
SERVER_COLUMNS: Final = (
    _RUN, "relative_time_sec", "kv_cache_usage_pct", "num_requests_running", "num_requests_waiting",
)  # fmt: skip
OTHER_COLUMNS: Final = (_RUN, "user_id", "trace_id", "success")
_TEMPLATE_TOKENS: Final = 29  # what Llama 3's chat template adds to a prompt, and to each message in it; the servers'
_MESSAGE_TOKENS: Final = 5  # counters of prompt tokens are as much above those of the clients, to a token per request
_BLOCK: Final = 16
_ENOUGH_PCT: Final = 1.0  # below this share of the KV cache its size cannot be told from the two digits that are shown


@dataclass(frozen=True, slots=True)
class Setting:
    """How a run was made, by its name."""

    tensor_parallel: int
    max_num_seqs: int
    offload: bool

    @classmethod
    def of(cls, name: str) -> "Setting | None":
        """What a name says; None if it says nothing."""
        match = _NAME.match(name)
        if match is None:
            return None
        return cls(int(match["tp"]), int(match["bs"]), match["offload"] == "on")


@dataclass(frozen=True, slots=True)
class Asked:
    """One request.

    Attributes:
        at: When its client sent it, in seconds.
        prompt_tokens: As the server counts them, the chat template's included.
        known: Share of the prompt that was said before in the conversation, by the client's count; 0 where it has none.
    """

    at: float
    client: int
    conversation: int
    prompt_tokens: int
    latency: Latency
    known: float = 0.0

    @property
    def answered_at(self) -> float:
        """When its client had the whole answer."""
        return self.at + self.latency.e2e


@dataclass(frozen=True, slots=True)
class Second:
    """What the server showed at one time: the held share of its KV cache, its requests, and preemptions so far."""

    at: float
    kv_usage: float
    open_requests: float
    preemptions: float = 0.0


@dataclass(frozen=True, slots=True)
class Sweep:
    """One run.

    Attributes:
        requests: In the order in which they were sent.
        seconds: What its server showed; empty where nobody looked.
    """

    id: str
    setting: Setting
    requests: tuple[Asked, ...]
    seconds: tuple[Second, ...] = ()

    @property
    def clients(self) -> int:
        """How many there are."""
        return len({request.client for request in self.requests})

    @property
    def open_requests(self) -> float | None:
        """Median of what ran and waited on the server; None where nobody looked."""
        return median(second.open_requests for second in self.seconds) if self.seconds else None

    @property
    def known(self) -> float:
        """Share of all prompt tokens that were said before, by the clients' count."""
        return sum(r.known * r.prompt_tokens for r in self.requests) / sum(r.prompt_tokens for r in self.requests)

    @property
    def preemptions(self) -> int:
        """Of the server, by its counter."""
        return int(max((second.preemptions for second in self.seconds), default=0))

    @property
    def time_between_tokens(self) -> float:
        """Median over the requests."""
        known = [gap for r in self.requests if (gap := r.latency.time_between_tokens) is not None]
        return median(known) if known else 0.0

    @property
    def fingerprint(self) -> str:
        """What the run is known by, whatever it is called: a digest of its requests."""
        text = repr([(r.at, r.client, r.prompt_tokens, r.latency) for r in self.requests])
        return blake2b(text.encode(), digest_size=8).hexdigest()

    def kv_tokens(self) -> int | None:
        """Tokens that the server's KV cache holds: those of the requests under way, over the share that it showed.

        The size is a setting of the engine (its memory) that the names do not tell. Answers are taken to have grown
        evenly. None where the cache was never used enough to tell.
        """
        under_way = _UnderWay(self.requests)
        used = (second for second in self.seconds if second.kv_usage * 100 >= _ENOUGH_PCT)
        found = [under_way.tokens(second.at) / second.kv_usage for second in used]
        return int(median(found)) if found else None


class _UnderWay:
    """The tokens of requests between their first and their last token, at times that do not go back."""

    def __init__(self, requests: Sequence[Asked]) -> None:
        self._coming = sorted(requests, key=lambda r: r.at + r.latency.ttft, reverse=True)
        self._open: list[Asked] = []

    def tokens(self, at: float) -> int:
        while self._coming and self._coming[-1].at + self._coming[-1].latency.ttft <= at:
            self._open.append(self._coming.pop())
        self._open = [request for request in self._open if request.answered_at > at]
        return sum(_in_blocks(request, at) for request in self._open)


def _in_blocks(request: Asked, at: float) -> int:
    took = request.latency.e2e - request.latency.ttft
    share = (at - request.at - request.latency.ttft) / took if took > 0 else 1.0
    tokens = request.prompt_tokens + request.latency.output_tokens * share
    return ceil(tokens / _BLOCK) * _BLOCK


def find(folder: Path, pattern: str) -> list[Path]:
    """Return the files of a folder whose names match, compressed or not, sorted."""
    return sorted(path for ending in COMPRESSIONS for path in folder.glob(f"{pattern}{ending}"))


def read_sweeps(folder: Path) -> tuple[list[Sweep], list[str]]:
    """Read every run whose requests a folder has, by tensor parallelism, concurrency and offloading.

    Returns:
        The runs, and a sentence for everything that cannot be read or is not there.
    """
    problems: list[str] = []
    requests = _by_run(folder, CLIENT, CLIENT_COLUMNS, problems)
    seconds = _by_run(folder, SERVER, SERVER_COLUMNS, problems)
    sweeps = []
    for name in requests:
        setting = Setting.of(name)
        if setting is None:
            problems.append(
                f"The run {name}: its name does not say how it was made, as tp<N>_bs<N>_offload<on|off> does."
            )
            continue
        try:
            asked = sorted(map(_asked, requests[name]), key=lambda r: (r.at, r.client))
            sweeps.append(Sweep(name, setting, tuple(asked), tuple(map(_second, seconds.get(name, ())))))
        except TraceError as error:
            problems.append(str(error))
    sweeps.sort(key=lambda s: (s.setting.tensor_parallel, s.setting.max_num_seqs, s.setting.offload, s.id))
    return sweeps, problems


def other_runs(folder: Path) -> Mapping[str, tuple[int, int]]:
    """Runs that were recorded in another way, by name: how many requests they have, and how many of them failed.

    Raises:
        TraceError: A file is malformed.
    """
    counts: dict[str, tuple[int, int]] = {}
    for path in find(folder, OTHER_REQUESTS):
        for row in csv_rows(path, OTHER_COLUMNS):
            sent, failed = counts.get(row.fields[_RUN], (0, 0))
            counts[row.fields[_RUN]] = sent + 1, failed + (row.fields["success"] != "True")
    return dict(sorted(counts.items()))


def _by_run(folder: Path, pattern: str, columns: Sequence[str], problems: list[str]) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = {}
    files = [path for path in find(folder, pattern) if _has(path, columns)]
    for path in files:
        try:
            for row in csv_rows(path, columns):
                rows.setdefault(row.fields[_RUN], []).append(row)
        except TraceError as error:
            problems.append(str(error))
    if not files:
        problems.append(f"{folder}: no file {pattern}, plain, .gz or .xz, with the columns {', '.join(columns)}")
    return rows


def _has(path: Path, columns: Sequence[str]) -> bool:
    """Whether a file is of this kind: others in the folder may have similar names."""
    try:
        first = next(iter(csv_rows(path, ())), None)
    except TraceError:
        return True  # which reading it will report
    return first is None or len(set(columns) - set(first.fields)) < len(columns) // 2


def _asked(row: Row) -> Asked:
    ttft, e2e = row.number_of("ttft_ms") / 1e3, row.number_of("latency_ms") / 1e3
    if not 0 < ttft <= e2e:
        raise row.fault("ttft_ms", f"{ttft * 1e3:g} ms is not above zero and at most latency_ms ({e2e * 1e3:g} ms)")
    extra = _TEMPLATE_TOKENS + _MESSAGE_TOKENS * row.tokens("input_num_turns")
    return Asked(
        at=_not_negative(row, "start_time_ms") / 1e3,
        client=int(_not_negative(row, "client_id")),
        conversation=int(_not_negative(row, "conversation_id")),
        prompt_tokens=int(_not_negative(row, "input_num_tokens")) + extra,
        latency=Latency(ttft, e2e, row.tokens("output_num_tokens")),
        known=_optional(row, "approx_cached_percent") / 100,
    )


def _second(row: Row) -> Second:
    running, waiting = _not_negative(row, "num_requests_running"), _not_negative(row, "num_requests_waiting")
    usage = _not_negative(row, "kv_cache_usage_pct") / 100
    preemptions = _optional(row, "num_preemptions_total")
    return Second(_not_negative(row, "relative_time_sec"), usage, running + waiting, preemptions)


def _optional(row: Row, field: str) -> float:
    return _not_negative(row, field) if row.fields.get(field) else 0.0


def _not_negative(row: Row, field: str) -> float:
    value = row.number_of(field)
    if value < 0:
        raise row.fault(field, f"{value:g} is below zero")
    return value


def why_not(sweep: Sweep, others: Iterable[Sweep]) -> str:
    """Why a run judges nothing; empty if it does.

    Other load was on the server if more requests were open there than the run has clients (by a tenth), and something
    was wrong if its tokens come more slowly (by a fifth) than those of a run on fewer devices, all else being equal.
    """
    shown, clients = sweep.open_requests, sweep.clients
    if shown is None:
        return "No metrics of its server are there."
    if shown > 1.1 * clients:
        return f"Other load was on the server: {shown:g} requests were open (median); the run has {clients} clients."
    setting, gap = sweep.setting, sweep.time_between_tokens
    for other in others:
        theirs = other.setting
        like = (theirs.max_num_seqs, theirs.offload) == (setting.max_num_seqs, setting.offload)
        if like and theirs.tensor_parallel < setting.tensor_parallel and gap > 1.2 * other.time_between_tokens:
            return (
                f"Its median time between tokens is {gap * 1e3:.1f} ms, with fewer devices (run {other.id}) it is"
                f" {other.time_between_tokens * 1e3:.1f} ms: something was wrong with the server."
            )
    return ""
