"""Replaying runs: open loop at recorded times, closed loop when the client was ready."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sim.calibration.sweeps import SETUP, TRUTH, engine, measured, request, sweep
from trimtab.sim.calibration.fitting import seconds_of
from trimtab.sim.calibration.recorded import RecordedRun
from trimtab.sim.calibration.replay import Engine, links, replay, watch, work_of
from trimtab.sim.calibration.stages import Stage, stages_of
from trimtab.sim.iteration import EngineConfig
from trimtab.sim.profile import FrontEnd, IterationCost

TICK = Engine(EngineConfig(kv_blocks=1000), IterationCost(1.0, 0.0, 0.0, 0.0, 0.0), FrontEnd(0.25, 0.001))


def run_of(*arrivals: float, answer: int = 3, e2e: float = 3.0) -> RecordedRun:
    requests = tuple(request(at, prompt=100, answer=answer, e2e=e2e) for at in arrivals)
    return RecordedRun("run", SETUP, request(0.0, prompt=100, answer=1, e2e=1.0), requests)


def test_times_count_from_the_arrival_and_hold_the_front_end() -> None:
    (alone,) = replay(run_of(50.0), [Stage("constant", 0, 1)], TICK)
    assert alone.ttft == pytest.approx(0.25 + 0.1 + 1.0)
    assert alone.e2e == pytest.approx(alone.ttft + 2.0)
    assert alone.time_between_tokens == pytest.approx(1.0)


def test_an_open_loop_keeps_its_times_though_the_engine_is_slower() -> None:
    run = run_of(50.0, 50.9)
    first, second = replay(run, [Stage("constant", 0, 2)], TICK)
    assert first.ttft == pytest.approx(1.35)
    assert second.ttft == pytest.approx(1.45), "it waits for the iteration under way"


def test_one_client_waits_for_its_answer_in_the_replay() -> None:
    run = run_of(50.0, 53.5, 57.0, e2e=3.0)
    latencies = replay(run, [Stage("synchronous", 0, 3, waits=True)], TICK)
    assert [latency.ttft for latency in latencies] == pytest.approx([1.35] * 3), "nobody meets anybody"
    overlapping = replay(run, [Stage("constant", 0, 3)], replace(TICK, cost=IterationCost(1.5, 0, 0, 0, 0)))
    assert max(latency.ttft for latency in overlapping) > 1.85


def test_a_bounded_burst_sends_again_when_one_has_ended() -> None:
    requests = run_of(50.0, 50.0, 53.01, 53.02, 60.0).requests
    stage = Stage("throughput", 0, 5, waits=True)
    found = links(requests, stage)
    assert {number: link.number for number, link in found.items()} == {2: 0, 3: 1}
    assert [link.seconds for link in found.values()] == pytest.approx([0.01, 0.02])
    assert links(requests, replace(stage, name="constant", waits=False)) == {}


def test_a_stage_begins_when_the_one_before_has_ended() -> None:
    run = run_of(50.0, 50.1, 53.0, answer=20, e2e=2.0)
    slow = replay(run, [Stage("throughput", 0, 2, waits=True), Stage("constant", 2, 3)], TICK)
    assert slow[0].e2e > 19
    assert slow[2].ttft == pytest.approx(1.35), "it meets an idle engine, as it did"


def test_every_request_gets_its_tokens() -> None:
    run = sweep()
    latencies = replay(run, stages_of(run), engine())
    assert [latency.output_tokens for latency in latencies] == [r.output_tokens for r in run.requests]
    assert all(0 < latency.ttft <= latency.e2e for latency in latencies)


def test_watching_changes_nothing() -> None:
    run = sweep()
    stages = stages_of(run)
    assert watch(run, stages, engine()).latencies == replay(run, stages, engine())


def test_what_was_watched_explains_the_times() -> None:
    run = sweep()
    watched = watch(run, stages_of(run), engine())
    elapsed = np.concatenate([[0.0], np.cumsum(seconds_of(engine().cost, watched.shapes))])
    decode = elapsed[watched.last + 1] - elapsed[watched.first + 1]
    assert decode == pytest.approx([latency.e2e - latency.ttft for latency in watched.latencies], rel=1e-9, abs=1e-9)
    prefill = elapsed[watched.first + 1] - elapsed[watched.admitted]
    assert (prefill <= [latency.ttft for latency in watched.latencies]).all()


def test_a_replay_of_what_the_engine_recorded_is_what_it_recorded() -> None:
    run = measured(sweep())
    again = replay(run, stages_of(run), engine())
    assert [latency.e2e for latency in again] == pytest.approx([r.latency.e2e for r in run.requests], rel=0.02)


def test_a_shared_prefix_is_computed_once() -> None:
    shared = replace(SETUP, prefix_tokens=400)
    work = work_of(request(0.0, prompt=1000), shared)
    assert work.block_hashes == tuple(range(25))
    assert work_of(request(0.0, prompt=100), shared).block_hashes == tuple(range(6)), "no more than there is"
    run = sweep()
    long = tuple(replace(r, prompt_tokens=1500) for r in run.requests)
    run = replace(run, first=replace(run.first, prompt_tokens=1500), requests=long)
    cold = replay(run, stages_of(run), engine())
    warm = replay(replace(run, setup=shared), stages_of(run), engine())
    assert warm[0].ttft < 0.8 * cold[0].ttft
    off = replay(replace(run, setup=shared), stages_of(run), engine(TRUTH, replace(shared, prefix_caching=False)))
    assert off[0].ttft == pytest.approx(cold[0].ttft)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([16, 64, 512]), st.integers(40, 4000), st.booleans())
def test_any_sweep_ends_with_every_answer(seed: int, sequences: int, blocks: int, shared: bool) -> None:
    run = sweep(per_stage=5, rates=(2.0, 9.0), seed=seed)
    capacity = (blocks - 1) * 16
    fitting = [replace(r, prompt_tokens=min(r.prompt_tokens, capacity - r.output_tokens)) for r in run.requests]
    run = replace(run, setup=replace(SETUP, prefix_tokens=64 if shared else 0), requests=tuple(fitting))
    run = replace(run, first=replace(run.first, prompt_tokens=40, output_tokens=8))
    config = EngineConfig(kv_blocks=blocks, max_num_seqs=sequences, max_num_batched_tokens=512)
    made_by = Engine(config, engine().cost, engine().front_end)
    latencies = replay(run, stages_of(run), made_by)
    assert [latency.output_tokens for latency in latencies] == [r.output_tokens for r in run.requests]
    watched = watch(run, stages_of(run), made_by)
    assert watched.latencies == latencies
    assert (watched.admitted <= watched.first).all()
    assert (watched.first <= watched.last).all()
    assert watched.shapes[:, 2].max() <= sequences


@given(st.lists(st.tuples(st.floats(0, 20), st.floats(0.1, 5)), min_size=1, max_size=30))
def test_links_wait_for_others_that_had_ended_each_for_its_own(times: list[tuple[float, float]]) -> None:
    requests = sorted((request(at, e2e=e2e) for at, e2e in times), key=lambda r: r.arrived_at)
    found = links(requests, Stage("concurrent", 0, len(requests), waits=True))
    assert len({link.number for link in found.values()}) == len(found)
    for number, link in found.items():
        assert 0 <= link.seconds <= 0.25
        assert requests[link.number].finished_at + link.seconds == pytest.approx(requests[number].arrived_at)
        assert link.number != number
