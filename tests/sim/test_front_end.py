"""Front ends: what a request takes, and how one keeps the next waiting."""

import pytest

from trimtab.sim.front_end import Reception
from trimtab.sim.profile import FrontEnd


def test_a_front_end_that_is_never_busy_keeps_nobody_waiting() -> None:
    reception = Reception(FrontEnd(per_request=1.0, per_prompt_token=0.25))
    assert [reception.passes_at(3.0, 4), reception.passes_at(3.0, 8)] == [5.0, 6.0]


def test_one_that_is_busy_lets_the_next_begin_later() -> None:
    reception = Reception(FrontEnd(per_request=1.0, busy_per_request=0.5))
    assert [reception.passes_at(now, 4) for now in (3.0, 3.0, 3.25, 9.0)] == [4.0, 4.5, 5.0, 10.0]


@pytest.mark.parametrize("now", [0.1, 1e9 / 3])
def test_none_takes_no_time_at_all(now: float) -> None:
    assert Reception(FrontEnd()).passes_at(now, 1000) == now
