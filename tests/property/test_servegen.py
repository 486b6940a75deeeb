"""What is drawn from ServeGen's data: reproducible, independent of the stretch asked for, and true to the data."""

import lzma
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.workload.request import Trace
from trimtab.workload.servegen import LEVELS, WINDOW_SECONDS, Lengths, ServeGen, read_servegen

HEADS = Path(__file__).parents[1] / "data" / "traces" / "servegen"
START = 43_200.0
NAMES = ["deepseek-r1", "m-large", "mm-image"]


@pytest.fixture(scope="module")
def services() -> dict[str, ServeGen]:
    return {name: read_servegen(HEADS / f"{name}_rates.csv.xz", name=name) for name in NAMES}


def drawn(service: ServeGen, start: float, seconds: float, seed: int = 0, scale: float = 1.0) -> Trace:
    return service.generate(seed=seed, start_seconds=start, duration_seconds=seconds, rate_scale=scale)


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_requests_another_seed_others(name: str, services: dict[str, ServeGen]) -> None:
    service = services[name]
    assert drawn(service, START, 900, seed=3) == drawn(service, START, 900, seed=3)
    assert drawn(service, START, 900, seed=3) != drawn(service, START, 900, seed=4)


@settings(max_examples=15, deadline=None)
@given(offset=st.floats(0, 1500), seconds=st.floats(600, 1800))
def test_a_stretch_is_a_part_of_any_longer_one(services: dict[str, ServeGen], offset: float, seconds: float) -> None:
    """Random streams belong to client and window: where a stretch begins does not move what happens in it."""
    service = services["mm-image"]
    whole = drawn(service, START, 3600)
    part = drawn(service, START + offset, seconds)
    inside = [r for r in whole.requests if offset <= r.at_seconds < offset + seconds]
    # Adding and taking away the offset costs the last bits of a time.
    assert [r.at_seconds for r in part.requests] == pytest.approx([r.at_seconds - offset for r in inside], abs=1e-6)
    assert [r.output_tokens for r in part.requests] == [r.output_tokens for r in inside]


@pytest.mark.parametrize("name", NAMES)
def test_requests_are_ordered_and_well_formed(name: str, services: dict[str, ServeGen]) -> None:
    trace = drawn(services[name], START, 3600, seed=9)
    times = [request.at_seconds for request in trace.requests]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] < 3600 == trace.duration_seconds
    assert all(request.input_tokens >= 1 and request.output_tokens >= 1 for request in trace.requests)


@pytest.mark.parametrize("scale", [0.2, 1.5])
def test_rates_are_those_of_the_data_times_the_scale(scale: float, services: dict[str, ServeGen]) -> None:
    """Over 16 seeds the mean count per client is within 5 standard errors of the file's rate x time x scale."""
    service = services["mm-image"]
    counts = [Counter(r.client for r in drawn(service, START, 1200, seed, scale).requests) for seed in range(16)]
    for client in service.clients:
        windows = [w for w in client.rates if START <= w.start_seconds < START + 1200]
        expected = sum(window.rate for window in windows) * WINDOW_SECONDS * scale
        seen = np.array([count[client.name] for count in counts])
        assert abs(seen.mean() - expected) < 5 * seen.std(ddof=1) / math.sqrt(len(seen)) + 1e-9


def test_expected_number_is_that_of_the_file(services: dict[str, ServeGen]) -> None:
    with lzma.open(HEADS / "mm-image_rates.csv.xz", "rt") as file:
        rows = [line.split(",") for line in file.read().splitlines()[1:]]
    total = sum(float(row[2]) * WINDOW_SECONDS for row in rows)
    assert services["mm-image"]._expected(0, 1e9) == pytest.approx(total)


def test_quantiles_are_met_by_what_is_drawn() -> None:
    values = np.array([float(place**2) for place in range(len(LEVELS))])
    lengths = Lengths(values, np.array(LEVELS), smooth=True)
    found = lengths.draw(np.random.default_rng(5), 40_000)
    for level, value in zip(LEVELS[3:-3], values[3:-3], strict=True):
        below = (found <= value).mean()
        assert below == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) / 40_000) + 1e-9)


@given(
    st.dictionaries(st.integers(0, 10_000), st.floats(0.01, 1), min_size=1, max_size=30),
    st.integers(0, 2**32),
)
def test_draws_of_a_pdf_are_values_of_the_pdf(bins: dict[int, float], seed: int) -> None:
    values = np.array(sorted(bins), dtype=float)
    shares = np.array([bins[int(value)] for value in values])
    lengths = Lengths(values, np.cumsum(shares) / shares.sum(), smooth=False)
    assert set(lengths.draw(np.random.default_rng(seed), 50)) <= set(values)


@given(st.floats(0, 200_000))
def test_lengths_in_force_are_the_latest_before_a_time(services: dict[str, ServeGen], at: float) -> None:
    for client in services["mm-image"].clients:
        starts = [start for start, _ in client.lengths]
        found = next(start for start, fields in client.lengths if fields is client.lengths_at(at))
        assert found == max((start for start in starts if start <= at), default=starts[0])
