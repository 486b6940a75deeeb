"""The size of a KV cache from the usage that an engine's log shows."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from tests.sim.calibration.sweeps import SETUP, TRUTH, engine, request, shape, sweep, write
from trimtab.sim.calibration.engine_log import implied_blocks, log_of
from trimtab.sim.calibration.fitting import engine_of
from trimtab.sim.calibration.ground_truth import read_all
from trimtab.sim.calibration.recorded import RecordedRun
from trimtab.workload.fault import TraceError

BLOCKS = 5000


def busy() -> RecordedRun:
    """Two minutes of requests that last a few seconds each."""
    rng = np.random.default_rng(4)
    arrivals = np.sort(rng.uniform(0, 120, 150))
    requests = tuple(request(float(at), int(rng.integers(500, 4000)), 400, float(rng.uniform(3, 9))) for at in arrivals)
    return RecordedRun("busy", SETUP, request(-2.0, e2e=0.5), requests)


def log(run: RecordedRun, path: Path, began: float, every: float = 2.0, lines: int = 50) -> Path:
    """What an engine with so many blocks would have logged, beginning so long after the first request."""
    text = ["time,prompt_tps,running,waiting,kv_usage_pct"]
    for at in run.first.arrived_at + began + every * np.arange(lines):
        there = [r for r in run.requests if r.arrived_at <= at < r.finished_at]
        parts = [min(max((at - r.arrived_at - r.latency.ttft) / (r.latency.e2e - r.latency.ttft), 0), 1) for r in there]
        held = sum(-(-(r.prompt_tokens + part * r.output_tokens) // 16) for r, part in zip(there, parts, strict=True))
        stamp = datetime(2026, 1, 20, 7, 26, tzinfo=UTC) + timedelta(seconds=float(at))
        clock = stamp.replace(tzinfo=None).isoformat(" ", "milliseconds").replace(".", ",")
        text.append(f'"{clock}",0,{len(there)},0,{100 * held / BLOCKS:.1f}')
    path.write_text("\n".join(text))
    return path


@pytest.mark.parametrize("began", [0.5, 7.25, 31.0])
def test_the_size_is_found_though_the_clocks_differ(tmp_path: Path, began: float) -> None:
    run = busy()
    assert implied_blocks(run, log(run, tmp_path / "log.csv", began)) == pytest.approx(BLOCKS, rel=0.02)


def test_a_log_that_says_too_little_says_nothing(tmp_path: Path) -> None:
    run = busy()
    assert implied_blocks(run, log(run, tmp_path / "short.csv", 30.0, lines=2)) is None
    empty = tmp_path / "empty.csv"
    empty.write_text("time,running,waiting,kv_usage_pct\n")
    assert implied_blocks(run, empty) is None


def test_a_malformed_log_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("time,running,waiting,kv_usage_pct\nyesterday,1,0,3\n")
    with pytest.raises(TraceError, match="yesterday") as caught:
        implied_blocks(busy(), path)
    assert (caught.value.row, caught.value.field) == (2, "time")
    path.write_text("time,running,waiting\n")
    with pytest.raises(TraceError, match="kv_usage_pct"):
        implied_blocks(busy(), path)


def test_the_log_beside_a_run_is_read(tmp_path: Path) -> None:
    run = replace(busy(), id="busy")
    spans = write(run, tmp_path)
    log(run, log_of(spans, "busy"), 3.0)
    (read,), problems = read_all(tmp_path)
    assert problems == []
    assert read.logged_blocks == pytest.approx(BLOCKS, rel=0.02)
    log_of(spans, "busy").write_text("time\n")
    (read,), (problem,) = read_all(tmp_path)
    assert read.logged_blocks == 0, "the run is as good without"
    assert "busy_engine_log.csv, row 1, running" in problem


def test_a_log_is_believed_where_it_clearly_differs_from_the_memory() -> None:
    run = sweep()
    computed = engine().config.kv_blocks
    for logged, used in ((0, computed), (int(computed * 1.02), computed), (computed // 2, computed // 2)):
        made = engine_of(replace(run, logged_blocks=logged), shape(SETUP.model), TRUTH)
        assert made.config.kv_blocks == used
