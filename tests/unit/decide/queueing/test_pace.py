"""When a client that was sent away should come again."""

import pytest

from trimtab.decide.queueing.pace import Pace


def test_the_first_request_sets_the_pace_and_later_ones_move_it() -> None:
    pace = Pace().after(10.0)
    assert pace.service_seconds == 10.0
    assert pace.after(20.0).service_seconds == pytest.approx(11.0)


def test_the_pace_converges_to_what_is_seen() -> None:
    pace = Pace(100.0)
    for _ in range(200):
        pace = pace.after(2.0)
    assert pace.service_seconds == pytest.approx(2.0, rel=1e-3)


@pytest.mark.parametrize(
    ("service_seconds", "waiting", "capacity", "expected"),
    [
        (10.0, 30, 10, 30),  # three rounds of ten seconds
        (10.0, 31, 10, 31),
        (0.01, 5, 10, 1),  # never less than a second
        (100.0, 5000, 1, 600),  # never more than ten minutes
        (None, 5000, 10, 1),  # nothing known
        (10.0, 5000, 0, 1),  # nobody serves: no estimate
    ],
)
def test_the_estimate(service_seconds: float | None, waiting: int, capacity: int, expected: int) -> None:
    assert Pace(service_seconds).retry_after_seconds(waiting, capacity) == expected
