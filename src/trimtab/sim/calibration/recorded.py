"""Runs of a real vLLM, recorded by its OpenTelemetry spans: what was set, and what each request took.

A run is a file `NAME_otel_requests.csv` (plain, .gz or .xz) with, beside it, `NAME_exp-config.yaml` (the engine's
settings), `NAME_workload.yaml` (the load generator's) and, if there is one, `NAME_guidellm_requests.csv` (what the
client saw; only its stages are read). Every setting is an input; one that is absent has the engine's default.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from trimtab.sim.calibration.source import Latency
from trimtab.sim.hardware import accelerators
from trimtab.workload.fault import TraceError
from trimtab.workload.textfile import COMPRESSIONS, Row, bare_name, csv_rows

SPANS: Final = "_otel_requests.csv"
_ARRIVAL: Final = "arrival_s"
_TTFT: Final = "latency.time_to_first_token"
_E2E: Final = "latency.e2e"
_PREFILL: Final = "latency.time_in_model_prefill"
_DECODE: Final = "latency.time_in_model_decode"
_PROMPT: Final = "usage.prompt_tokens"
_ANSWER: Final = "usage.completion_tokens"
COLUMNS: Final = (_ARRIVAL, _TTFT, _E2E, _PREFILL, _DECODE, _PROMPT, _ANSWER)


@dataclass(frozen=True, slots=True)
class Setup:
    """What a run was made with; the names are vLLM's and guidellm's, the defaults those of vLLM on a large device.

    Attributes:
        max_model_len: 0 where it is not said.
        prefix_tokens: Tokens that all prompts begin with.
        rate_type: The load generator's: sweep, synchronous, throughput, constant, ...
        strategies: How many stages the load generator was asked for; 0 where it does not say.
        accelerator: Kind of device; the data set's runs do not name theirs, which its makers say was an H100.
        quantization: How the weights are quantized; empty where they are not.
    """

    model: str
    accelerator: str = "h100"
    quantization: str = ""
    tensor_parallel: int = 1
    max_model_len: int = 0
    max_num_batched_tokens: int = 8192
    max_num_seqs: int = 1024
    block_size: int = 16
    gpu_memory_utilization: float = 0.9
    prefix_caching: bool = True
    prefix_tokens: int = 0
    rate_type: str = "sweep"
    strategies: int = 0


@dataclass(frozen=True, slots=True)
class Recorded:
    """One request.

    Attributes:
        prefill: Seconds from its first scheduling to its first token, in the engine.
        decode: Seconds from there to its last token.
    """

    arrived_at: float
    prompt_tokens: int
    output_tokens: int
    latency: Latency
    prefill: float
    decode: float

    @property
    def finished_at(self) -> float:
        """When it had its last token."""
        return self.arrived_at + self.latency.e2e


@dataclass(frozen=True, slots=True)
class ClientStage:
    """One stage as the client recorded it: how many requests, and from when, in seconds after its first request."""

    name: str
    start: float
    requests: int


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """One run.

    Attributes:
        first: The very first request, which met a cold engine: it is replayed, and nothing is made of its times.
        requests: All others, by arrival.
        remarks: What is odd about it, in sentences.
        logged_blocks: KV blocks that the engine's log implies; 0 where there is none, or it does not say.
    """

    id: str
    setup: Setup
    first: Recorded
    requests: tuple[Recorded, ...]
    client_stages: tuple[ClientStage, ...] = ()
    remarks: tuple[str, ...] = ()
    logged_blocks: int = 0


def find_runs(folder: Path) -> list[Path]:
    """Return the files of spans in a folder, sorted."""
    found = (path for ending in COMPRESSIONS for path in folder.glob(f"*{SPANS}{ending}"))
    return sorted(found, key=lambda path: path.name)


def read_run(spans: Path) -> RecordedRun:
    """Read one run.

    Raises:
        TraceError: A file of the run is missing or malformed; the message names the file, row and field.
    """
    name = bare_name(spans).removesuffix(SPANS)
    setup = read_setup(spans.with_name(f"{name}_exp-config.yaml"), spans.with_name(f"{name}_workload.yaml"))
    requests, unanswered = _read_requests(spans)
    remarks = (f"{unanswered} requests without an answer are left out.",) if unanswered else ()
    try:
        client = _client_stages(spans, name)
    except TraceError as error:
        client, remarks = (), (*remarks, f"The client's record was not used: {error}.")
    return RecordedRun(name, setup, requests[0], tuple(requests[1:]), client, remarks)


def _read_requests(path: Path) -> tuple[list[Recorded], int]:
    requests, unanswered = [], 0
    for row in csv_rows(path, COLUMNS):
        if row.number_of(_ANSWER) == 0:
            unanswered += 1
        else:
            requests.append(_request(row))
    if len(requests) <= 1:
        raise TraceError(path, "fewer than two requests with an answer, and the first one does not count")
    return sorted(requests, key=lambda request: request.arrived_at), unanswered


def _request(row: Row) -> Recorded:
    answer = row.tokens(_ANSWER)
    return Recorded(
        arrived_at=row.number_of(_ARRIVAL),
        prompt_tokens=row.tokens(_PROMPT),
        output_tokens=answer,
        latency=Latency(ttft=_positive(row, _TTFT), e2e=_positive(row, _E2E), output_tokens=answer),
        prefill=_positive(row, _PREFILL),
        decode=row.number_of(_DECODE),
    )


def _positive(row: Row, field: str) -> float:
    value = row.number_of(field)
    if value <= 0:
        raise row.fault(field, f"{value:g} s is not above zero")
    return value


# Settings.

_ENGINE: Final[Mapping[str, tuple[str, type]]] = {  # in the file, in `Setup`
    "model": ("model", str),
    "accelerator": ("accelerator", str),
    "gpu": ("accelerator", str),
    "hardware": ("accelerator", str),
    "quantization": ("quantization", str),
    "tensor_parallelism": ("tensor_parallel", int),
    "tensor_parallel_size": ("tensor_parallel", int),
    "max_model_len": ("max_model_len", int),
    "max_num_batched_tokens": ("max_num_batched_tokens", int),
    "max_num_seqs": ("max_num_seqs", int),
    "block_size": ("block_size", int),
    "gpu_memory_utilization": ("gpu_memory_utilization", float),
    "enable_prefix_caching": ("prefix_caching", bool),
}


def read_setup(engine: Path, workload: Path) -> Setup:
    """Read the settings of the engine and of the load generator.

    Raises:
        TraceError: A file is missing or malformed, or does not name the model.
    """
    values = dict(_settings(engine, _flat(engine)))
    if "model" not in values:
        raise TraceError(engine, "the model that was served is not named", field="model")
    load = _flat(workload)
    values["prefix_tokens"] = _integer(workload, {**load, **_data(load.get("data"))}, "prefix_tokens")
    values["rate_type"] = str(load.get("rate_type", "sweep"))
    if values["rate_type"] == "sweep":
        values["strategies"] = _integer(workload, load, "rate")
    return Setup(**values)


def _settings(path: Path, raw: Mapping[str, Any]) -> list[tuple[str, Any]]:
    settings = []
    for key, value in raw.items():
        if key not in _ENGINE or value is None:
            continue
        name, kind = _ENGINE[key]
        wrong = not isinstance(value, (int, float) if kind is float else kind)
        if wrong or (kind is not bool and isinstance(value, bool)) or (kind in {int, float} and value <= 0):
            raise TraceError(path, f"{value!r} is not a usable {kind.__name__}", field=key)
        settings.append((name, _known_accelerator(value) if name == "accelerator" else value))
    return settings


def _known_accelerator(name: str) -> str:
    """Return "h100" for "NVIDIA H100 80GB HBM3", where that is one whose speeds ship; else the name as it is."""
    return next((known for known in accelerators() if known in name.lower()), name.lower())


def _data(raw: Any) -> Mapping[str, Any]:
    """Return what the load generator made prompts of: a mapping, or text like "prompt_tokens=70,prefix_tokens=10"."""
    if isinstance(raw, Mapping):
        return raw
    pairs = (part.partition("=") for part in raw.split(",")) if isinstance(raw, str) else ()
    return {key.strip(): int(value) for key, _, value in pairs if value.strip().isdigit()}


def _integer(path: Path, raw: Mapping[str, Any], key: str) -> int:
    value = raw.get(key) or 0
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0 or value != int(value):
        raise TraceError(path, f"{value!r} is not a whole number of at least 0", field=key)
    return int(value)


def _flat(path: Path) -> dict[str, Any]:
    """Read a mapping; its keys with underscores where the file has hyphens."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TraceError(path, f"cannot be read: {error.strerror}; a run needs its settings") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise TraceError(path, f"not YAML: {error}") from error
    if not isinstance(raw, Mapping):
        raise TraceError(path, "not a mapping of settings")
    return {str(key).replace("-", "_"): value for key, value in raw.items()}


# The client's own record.


def _client_stages(spans: Path, name: str) -> tuple[ClientStage, ...]:
    files = (spans.with_name(f"{name}_guidellm_requests.csv{ending}") for ending in COMPRESSIONS)
    for path in files:
        if path.exists():
            return tuple(_read_client(path))
    return ()


def _read_client(path: Path) -> list[ClientStage]:
    """Return the client's stages in order; none where it has no column that tells when they began."""
    rows = list(csv_rows(path, ("strategy",)))
    start = next((c for c in (rows[0].fields if rows else ()) if "start" in c), None)
    if start is None:
        return []
    times: dict[str, list[float]] = {}
    for row in rows:
        if row.fields[start]:  # a request that failed may have none
            times.setdefault(_stage_name(row), []).append(row.number_of(start))
    if not times:
        return []
    scale = 1e-3 if start.endswith("_ms") else 1.0
    origin = min(min(at) for at in times.values())
    stages = [ClientStage(name, (min(at) - origin) * scale, len(at)) for name, at in times.items()]
    return sorted(stages, key=lambda stage: stage.start)


def _stage_name(row: Row) -> str:
    strategy = str(row.fields["strategy"])
    rate = row.fields.get("rate")
    return f"{strategy} {row.number_of('rate'):.3g}/s" if rate and strategy.startswith("constant") else strategy
