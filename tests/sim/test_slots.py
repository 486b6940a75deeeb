"""Slots of unit speed: what they serve and when, by hand and against the distributions that they are drawn from."""

from math import inf

import numpy as np
import pytest

from trimtab.decide.queueing.ssjf import Guard
from trimtab.sim.slots import (
    MAX_TOKENS,
    Served,
    binned,
    draw_jobs,
    gamma_arrivals,
    noisy_predictions,
    serve,
    serve_batches,
    synthetic_lengths,
)
from trimtab.sim.streams import stream

PILOT = 1_000_000


def array(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64)


def test_one_slot_serves_the_lowest_key_that_waits() -> None:
    served = serve(array(0, 1, 2, 3), array(5, 4, 1, 1), keys=array(0, 9, 7, 1))
    assert served.began.tolist() == [0, 7, 6, 5]
    assert served.completion.tolist() == [5, 10, 5, 3]


def test_a_job_that_comes_to_a_free_slot_begins_at_once_whatever_its_key() -> None:
    served = serve(array(1, 10), array(2, 2), keys=array(99, 1))
    assert served.began.tolist() == [1, 10]


def test_jobs_that_come_together_to_a_free_slot_go_by_their_keys() -> None:
    assert serve(array(1, 1, 1), array(2, 2, 2), keys=array(3, 1, 2)).began.tolist() == [5, 1, 3]


def test_several_slots_each_take_the_next_job() -> None:
    served = serve(array(0, 0, 0, 0), array(3, 1, 2, 9), keys=array(0, 1, 2, 3), slots=2)
    assert served.began.tolist() == [0, 0, 1, 3]


def test_the_guard_lets_the_oldest_go_first_once_it_has_waited_too_long() -> None:
    arrived = array(0, *range(1, 40))
    seconds = array(5, 30, *[1.0] * 38)
    keys = seconds
    starved = serve(arrived, seconds, keys)
    guarded = serve(arrived, seconds, keys, guard=Guard(longest_wait_seconds=10), estimates=seconds)
    assert starved.began[1] == starved.began.max()
    assert guarded.began[1] == 12  # the first free moment beyond 1 + 10
    assert sorted(guarded.began)[:3] == [0, 5, 6]


def test_the_guard_counts_multiples_of_the_estimate_not_of_the_true_time() -> None:
    arrived, seconds = array(0, 1, *[2.0] * 20), array(5, 100, *[1.0] * 20)
    estimates = array(5, 1, *[0.5] * 20)
    guarded = serve(arrived, seconds, estimates, guard=Guard(inf, 10), estimates=estimates)
    assert guarded.began[1] == 12


def test_a_full_batch_begins_at_once_and_ends_with_its_longest_job() -> None:
    served = serve_batches(array(0, 1, 2, 3), array(2, 3, 9, 1), keys=array(0, 1, 2, 3), size=2, longest_wait=10)
    assert served.began.tolist() == [1, 1, 4, 4]
    assert served.ended.tolist() == [4, 4, 13, 13]


def test_a_batch_that_does_not_fill_begins_when_its_first_job_has_waited_long_enough() -> None:
    served = serve_batches(array(0, 1, 20), array(1, 1, 1), keys=array(0, 1, 2), size=4, longest_wait=5)
    assert served.began.tolist() == [5, 5, 25]


def test_a_free_engine_waits_no_longer_for_a_job_that_has_waited_already() -> None:
    served = serve_batches(array(0, 0, 1), array(7, 7, 1), keys=array(0, 1, 2), size=2, longest_wait=5)
    assert served.began.tolist() == [0, 0, 7]


def test_a_batch_takes_the_lowest_keys_of_all_who_wait() -> None:
    served = serve_batches(
        array(0, 0, 1, 1, 1, 1), array(4, 4, 9, 1, 9, 1), keys=array(0, 0, 9, 1, 9, 1), size=2, longest_wait=5
    )
    assert served.began.tolist() == [0, 0, 5, 4, 5, 4]
    assert served.ended.max() == 14


def test_every_policy_waits_for_the_batch_in_the_same_way() -> None:
    jobs = draw_jobs(PILOT, 30, 0.1)
    first = [
        serve_batches(jobs.arrived, jobs.seconds, keys, size=4, longest_wait=5.0).began.min()
        for keys in (jobs.arrived, jobs.lengths)
    ]
    assert first[0] == first[1]


def test_the_time_until_a_share_is_done_is_that_of_job_q_times_n_minus_one() -> None:
    served = Served(array(0, 0, 0, 0, 0), array(0, 0, 0, 0, 0), array(50, 10, 40, 20, 30))
    assert [served.time_until(share) for share in (0.0, 0.25, 0.49, 0.5, 1.0)] == [10, 20, 20, 30, 50]


def test_synthetic_lengths_have_the_published_percentiles() -> None:
    lengths = synthetic_lengths(stream(PILOT, "test", "lengths"), 200_000)
    assert (lengths.min(), lengths.max()) == (2, 511)
    assert np.array_equal(lengths, np.round(lengths))
    assert lengths.mean() == pytest.approx(179.0, abs=1.0)
    assert lengths.std() == pytest.approx(145.5, abs=1.0)
    assert np.percentile(lengths, [5, 25, 50, 75, 90, 95]) == pytest.approx([9, 41, 140, 294, 397, 447], abs=3)


def test_predictions_are_capped_and_without_noise_true() -> None:
    lengths, noise = array(10, 100, 500), array(1, -1, 3)
    assert noisy_predictions(lengths, noise, 0.0).tolist() == [10, 100, 500]
    noisy = noisy_predictions(lengths, noise, 1.0)
    assert noisy[:2] == pytest.approx([10 * np.e, 100 / np.e])
    assert noisy[2] == MAX_TOKENS


def test_classes_are_closed_on_the_left() -> None:
    assert binned(array(1, 41, 42, 600), (42, 141), (20, 90, 300)).tolist() == [20, 20, 90, 300]


@pytest.mark.parametrize("variation", [1.0, 2.0, 5.5])
def test_gaps_have_the_mean_and_variation_that_is_asked_for(variation: float) -> None:
    gaps = np.diff(gamma_arrivals(stream(PILOT, "test", "gaps"), 200_000, rate=4.0, variation=variation))
    assert gaps.mean() == pytest.approx(0.25, rel=0.03)
    assert gaps.std() / gaps.mean() == pytest.approx(variation, rel=0.03)


def test_settings_of_one_seed_share_lengths_and_noise_and_seeds_share_nothing() -> None:
    slow, fast, other = draw_jobs(7, 50, 1.0), draw_jobs(7, 50, 10.0, variation=2.0), draw_jobs(8, 50, 1.0)
    assert np.array_equal(slow.lengths, fast.lengths)
    assert np.array_equal(slow.noise, fast.noise)
    assert not np.array_equal(slow.lengths, other.lengths)
    assert not np.array_equal(slow.arrived, other.arrived)


def test_keys_are_those_of_production() -> None:
    jobs = draw_jobs(7, 3, 1.0)
    predicted = array(507, 20, 100)
    assert jobs.keys(predicted, 10.0) == pytest.approx(jobs.arrived + 10 * (0.1 + 0.02 * predicted))
    assert jobs.keys(predicted, inf) == pytest.approx(0.1 + 0.02 * predicted)
    assert jobs.keys(predicted, 0.0).tolist() == jobs.arrived.tolist()
