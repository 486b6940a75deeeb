"""Closed-loop sweeps that the tests make: the times are those that the physics gives."""

import csv
import gzip
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from trimtab.sim.calibration.closed_loop import replay
from trimtab.sim.calibration.source import Latency
from trimtab.sim.calibration.sweeps import Asked, Second, Setting, Sweep
from trimtab.sim.profile import FrontEnd, IterationCost
from trimtab.sim.serving import EngineConfig

COST = IterationCost(
    0.01, 3e-5, 5e-5, 8e-8, 1e-9, mixed=0.01, mixed_floor=0.04, unsplit_context_token=4e-8, per_longest_token=1e-6,
    split_decodes=37, per_host_block=1e-5, per_stored_token=5e-6,
)  # fmt: skip
FRONT_END = FrontEnd(0.015, 1e-6, 0.005)
THINKS = 0.007
TEMPLATE_TOKENS, MESSAGE_TOKENS = 29, 5
CLIENT_HEADER = (
    "exp", "start_time_ms", "ttft_ms", "tpot_ms", "latency_ms", "input_num_turns", "input_num_tokens",
    "output_num_tokens", "approx_cached_percent", "conversation_id", "client_id",
)  # fmt: skip
SERVER_HEADER = ("exp", "relative_time_sec", "kv_cache_usage_pct", "num_requests_running", "num_requests_waiting")


def config(clients: int, kv_tokens: int = 60_000, *, offload: bool = False) -> EngineConfig:
    """An engine that plans ahead, as those that were measured do."""
    return EngineConfig(
        kv_blocks=kv_tokens // 16, max_num_seqs=clients, max_num_batched_tokens=2048, async_scheduling=True,
        host_kv_blocks=4000 if offload else 0, host_kv_answers=False,
    )  # fmt: skip


def made(
    devices: int = 1, clients: int = 4, *, offload: bool = False, turns: int = 12, kv_tokens: int = 60_000
) -> Sweep:
    """A run of conversations of four turns."""
    rng = np.random.default_rng((devices, clients))
    asked = [request for client in range(clients) for request in _script(rng, client, turns)]
    asked.sort(key=lambda request: (request.at, request.client))
    setting = Setting(devices, clients, offload)
    measured = replay(asked, config(clients, kv_tokens, offload=offload), COST, FRONT_END).latencies
    requests = _timed(asked, measured)
    name = f"tp{devices}_bs{clients}_offload{'on' if offload else 'off'}"
    return Sweep(name, setting, requests, _seconds(requests, kv_tokens))


def _script(rng: np.random.Generator, client: int, turns: int) -> Iterable[Asked]:
    tokens = 0
    for turn in range(turns):
        if turn % 4 == 0:
            tokens = TEMPLATE_TOKENS
        answer = int(rng.integers(20, 120))
        tokens += MESSAGE_TOKENS + int(rng.integers(20, 400))
        yield Asked(turn * (1 + THINKS), client, client * 100 + turn // 4, tokens, Latency(0.1, 1.0, answer))
        tokens += answer + MESSAGE_TOKENS


def _timed(asked: Sequence[Asked], measured: Sequence[Latency]) -> tuple[Asked, ...]:
    """The requests at the times at which a client that thinks `THINKS` sends them."""
    free_at: dict[int, float] = {}
    timed = []
    for request, latency in zip(asked, measured, strict=True):
        at = free_at.get(request.client, 0.0) + THINKS
        free_at[request.client] = at + latency.e2e
        timed.append(replace(request, at=at, latency=latency))
    return tuple(sorted(timed, key=lambda request: (request.at, request.client)))


def _seconds(requests: Sequence[Asked], kv_tokens: int) -> tuple[Second, ...]:
    until = max(request.answered_at for request in requests)
    return tuple(_second(requests, kv_tokens, float(at)) for at in np.arange(0.5, until, 0.5))


def _second(requests: Sequence[Asked], kv_tokens: int, at: float) -> Second:
    under_way = [r for r in requests if r.at + r.latency.ttft <= at < r.answered_at]
    held = sum(r.prompt_tokens + r.latency.output_tokens / 2 for r in under_way)
    return Second(at, held / kv_tokens, sum(r.at <= at < r.answered_at for r in requests))


def write(folder: Path, sweeps: Sequence[Sweep]) -> Path:
    """Write runs as their clients and servers do; returns the folder of data sets."""
    own = folder / "vllm-kv-offload"
    own.mkdir(parents=True)
    with gzip.open(own / "client_metrics.csv.gz", "wt", newline="", encoding="utf-8") as text:
        rows = csv.writer(text)
        rows.writerow(CLIENT_HEADER)
        rows.writerows(_client_row(sweep, request) for sweep in sweeps for request in sweep.requests)
    with (own / "server_metrics.csv").open("w", newline="", encoding="utf-8") as text:
        rows = csv.writer(text)
        rows.writerow(SERVER_HEADER)
        for sweep in sweeps:
            rows.writerows([sweep.id, s.at, s.kv_usage * 100, s.open_requests, 0] for s in sweep.seconds)
    return folder


def _client_row(sweep: Sweep, request: Asked) -> list[object]:
    latency = request.latency
    tokens = request.prompt_tokens - TEMPLATE_TOKENS - MESSAGE_TOKENS
    return [
        sweep.id, request.at * 1e3, latency.ttft * 1e3, 0.0, latency.e2e * 1e3, 1, tokens, latency.output_tokens, 0.0,
        request.conversation, request.client,
    ]  # fmt: skip
