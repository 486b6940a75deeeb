"""Properties of traces, prompts, levels and statistics that hold for any input."""

import json
import math
from collections import Counter

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from trimtab.workload.histogram import LogHistogram
from trimtab.workload.level import ServiceLevel, assign, parse_duration, parse_level, short_duration
from trimtab.workload.prompt import Prompts
from trimtab.workload.request import Trace, TraceRequest, percentile, statistics_of
from trimtab.workload.servegen import WINDOW_SECONDS, RateWindow
from trimtab.workload.summary import spread

PROMPTS = Prompts(3)


def blocks_of(input_tokens: int) -> st.SearchStrategy[tuple[int, ...]]:
    count = math.ceil(input_tokens / 512)
    return st.one_of(st.just(()), st.lists(st.integers(0, 3), min_size=count, max_size=count).map(tuple))


@st.composite
def requests(draw: st.DrawFn) -> TraceRequest:
    input_tokens = draw(st.integers(1, 2000))
    return TraceRequest(draw(st.floats(0, 1e4)), input_tokens, draw(st.integers(1, 999)), draw(blocks_of(input_tokens)))


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    drawn = sorted(draw(st.lists(requests(), min_size=1, max_size=30)), key=lambda request: request.at_seconds)
    return Trace("t", "f", tuple(drawn), drawn[-1].at_seconds)


@given(traces(), st.floats(0, 1e4), st.floats(1, 1e4))
def test_windows_partition_a_trace(trace: Trace, cut: float, rest: float) -> None:
    before, after = trace.window(0, cut), trace.window(cut, max(rest, trace.duration_seconds - cut + 1))
    assert len(before.requests) + len(after.requests) == len(trace.requests)
    assert all(0 <= request.at_seconds < cut for request in before.requests)
    assert all(request.at_seconds >= 0 for request in after.requests)


@settings(deadline=None)
@given(traces())
def test_reused_prefixes_agree_with_a_count_token_by_token(trace: Trace) -> None:
    """Brute force: a token is reused if all blocks up to its own were seen in earlier requests."""
    seen: set[int] = set()
    reused = total = 0
    for request in trace.requests:
        for position in range(request.input_tokens):
            total += 1
            own = request.blocks[: position // 512 + 1]
            reused += bool(request.blocks) and all(block in seen for block in own)
        seen.update(request.blocks)
    assert statistics_of(trace).reused_prefix_tokens_fraction == pytest.approx(reused / total)


@given(traces())
def test_statistics_agree_with_numpy(trace: Trace) -> None:
    found = statistics_of(trace)
    inputs = [request.input_tokens for request in trace.requests]
    assert found.input_tokens[0] == pytest.approx(np.mean(inputs))
    assert found.input_tokens[1] == np.percentile(inputs, 50, method="inverted_cdf")
    assert found.input_tokens[2] == np.percentile(inputs, 99, method="inverted_cdf")


@given(st.lists(st.floats(-1e9, 1e9), min_size=1), st.integers(1, 100))
def test_percentile_is_the_smallest_value_with_enough_below(values: list[float], percent: int) -> None:
    found = percentile(sorted(values), percent)
    assert sum(value <= found for value in values) * 100 >= percent * len(values)
    assert sum(value < found for value in values) * 100 < percent * len(values)


@given(requests(), st.integers(0, 10**9))
def test_prompt_has_as_many_words_as_the_trace_has_tokens(request: TraceRequest, number: int) -> None:
    text = PROMPTS.text(number, request)
    assert len(text.split()) == request.input_tokens
    assert text == Prompts(3).text(number, request)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.lists(st.integers(0, 5), min_size=1, max_size=4))
def test_prompts_share_exactly_the_prefix_of_equal_blocks(one: list[int], other: list[int]) -> None:
    texts = [
        PROMPTS.text(number, TraceRequest(0, 512 * len(blocks), 1, tuple(blocks))).split()
        for number, blocks in enumerate((one, other))
    ]
    shared = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    common = next((i for i, (a, b) in enumerate(zip(*texts, strict=False)) if a != b), min(map(len, texts)))
    assert common // 512 == shared


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(4, 600))
def test_different_requests_differ_within_their_first_words(one: int, other: int, tokens: int) -> None:
    first, second = (PROMPTS.text(number, TraceRequest(0, tokens, 1)).split()[:4] for number in (one, other))
    assert (first == second) == (one == other)


@given(st.integers(1, 10**7))
def test_durations_are_read_as_they_are_written(milliseconds: int) -> None:
    written = short_duration(milliseconds / 1000).replace(" ", "").replace("min", "m")
    assert parse_duration(written) == pytest.approx(milliseconds / 1000, rel=1e-5)


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59))
def test_durations_add_up(hours: int, minutes: int, seconds: int) -> None:
    assert parse_duration(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds


@given(st.floats(0.001, 9), st.floats(0.001, 9), st.floats(0.001, 9))
def test_a_level_is_met_only_within_every_target(ttft: float, tpot: float, completion: float) -> None:
    level = ServiceLevel("l", ttft_seconds=2, tpot_seconds=3, completion_seconds=4)
    assert level.met(ttft, tpot, completion) == (ttft <= 2 and tpot <= 3 and completion <= 4)
    assert ServiceLevel("any").met(ttft, tpot, completion)


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 99))
def test_a_request_keeps_its_level_however_long_the_trace_is(short: int, more: int, seed: int) -> None:
    levels = (ServiceLevel("a", share=3), ServiceLevel("b", share=1))
    assert assign(levels, short + more, seed)[:short] == assign(levels, short, seed)


def test_levels_get_their_shares() -> None:
    levels = [parse_level(text) for text in ("a:ttft=1s:6", "b:tpot=1s:3", "c:completion=1h:1")]
    counts = Counter(level.name for level in assign(levels, 20_000, 7))
    assert [counts[name] / 20_000 for name in "abc"] == pytest.approx([0.6, 0.3, 0.1], abs=0.01)


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=200), st.integers(1, 100))
def test_histogram_is_within_one_percent(values: list[float], percent: int) -> None:
    histogram = LogHistogram()
    for value in values:
        histogram.add(value)
    assert histogram.percentile(percent) == pytest.approx(percentile(sorted(values), percent), rel=0.0101)


@given(st.lists(st.one_of(st.none(), st.floats(0, 1e6)), max_size=50))
def test_spread_ignores_what_is_not_there(values: list[float | None]) -> None:
    found = spread(values)
    there = sorted(value for value in values if value is not None)
    assert found.count == len(there)
    if there:
        assert found.p50 <= found.p90 <= found.p99 <= found.largest == there[-1]
        assert there[0] <= found.mean * (1 + 1e-12)
    else:
        assert math.isnan(found.mean)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["Gamma", "Weibull"]), st.floats(0.3, 3), st.floats(0.05, 2), st.integers(0, 10**6))
def test_arrivals_are_sorted_and_inside_the_window(law: str, shape: float, rate: float, seed: int) -> None:
    times = RateWindow(0, rate, law, shape).arrivals(np.random.default_rng(seed), WINDOW_SECONDS, 1)
    assert (np.diff(times) >= 0).all()
    assert len(times) == 0 or 0 <= times[0] <= times[-1] < WINDOW_SECONDS


@pytest.mark.parametrize(("law", "shape"), [("Gamma", 0.06), ("Gamma", 1.3), ("Weibull", 0.4), ("Weibull", 2.0)])
def test_expected_number_of_arrivals_is_rate_times_time_however_bursty(law: str, shape: float) -> None:
    """Within 4 standard errors over 4,000 windows; windows that begin with a whole gap would be far outside."""
    window = RateWindow(0, 0.25, law, shape)
    rng = np.random.default_rng(11)
    counts = np.array([len(window.arrivals(rng, WINDOW_SECONDS, 2.0)) for _ in range(4000)])
    assert abs(counts.mean() - 0.5 * WINDOW_SECONDS) < 4 * counts.std() / math.sqrt(len(counts))


@given(st.dictionaries(st.text(min_size=1), st.integers(), min_size=1))
def test_any_json_object_is_no_trace_request(record: dict[str, int]) -> None:
    """Guards the table of malformed traces: a line with arbitrary keys must never read as a request."""
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from trimtab.workload.fault import TraceError
    from trimtab.workload.mooncake import KEYS, read_mooncake

    if set(KEYS) <= set(record):
        return
    with TemporaryDirectory() as folder:
        path = Path(folder, "t.jsonl")
        path.write_text(json.dumps(record) + "\n")
        with pytest.raises(TraceError):
            read_mooncake(path)
