"""The client's turn on the CPU."""

import os

import pytest

from trimtab.sim.profiling.attention import first_in_line


def test_priority_is_given_back() -> None:
    before = os.sched_getscheduler(0)
    with first_in_line() as allowed:
        assert (os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_RR) is allowed
    assert os.sched_getscheduler(0) == before


@pytest.mark.parametrize("error", [PermissionError(1, "no"), OSError(38, "no such call")])
def test_without_the_right_it_goes_on(error: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    with first_in_line() as allowed:
        assert not allowed


def test_priority_is_given_back_after_a_failure() -> None:
    before = os.sched_getscheduler(0)
    with pytest.raises(RuntimeError), first_in_line():
        raise RuntimeError
    assert os.sched_getscheduler(0) == before
