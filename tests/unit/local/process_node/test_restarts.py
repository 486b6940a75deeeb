import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.process_node import container
from trimtab.local.process_node.restarts import BackOff, restarts


def test_the_first_restart_is_immediate_and_later_ones_wait_twice_as_long_each() -> None:
    back_off = BackOff(first_seconds=10, longest_seconds=300)

    assert [back_off.delay_seconds(n) for n in range(1, 9)] == [0, 10, 20, 40, 80, 160, 300, 300]


def test_a_long_run_starts_the_count_afresh() -> None:
    back_off = BackOff(first_seconds=10, longest_seconds=300)

    assert back_off.crashes(5, ran_seconds=599) == 6
    assert back_off.crashes(5, ran_seconds=601) == 1


@given(st.floats(0.01, 100), st.floats(0.01, 1000), st.integers(0, 10_000))
def test_delays_grow_and_stay_bounded(first: float, longest: float, crashes: int) -> None:
    back_off = BackOff(first, longest)

    assert 0 <= back_off.delay_seconds(crashes) <= back_off.delay_seconds(crashes + 1) <= longest


@pytest.mark.parametrize(
    ("policy", "exit_code", "init", "again"),
    [
        ("Always", 0, False, True),
        ("Always", 1, False, True),
        ("OnFailure", 0, False, False),
        ("OnFailure", 1, False, True),
        ("Never", 1, False, False),
        ("Always", 0, True, False),
        ("Always", 1, True, True),
        ("OnFailure", 1, True, True),
        ("Never", 1, True, False),
    ],
)
def test_policies(policy: str, exit_code: int, init: bool, again: bool) -> None:
    assert restarts(policy, container(), exit_code, init=init) is again


@pytest.mark.parametrize("policy", ["Always", "OnFailure", "Never"])
def test_a_sidecar_always_runs_again(policy: str) -> None:
    assert restarts(policy, container(restartPolicy="Always"), 0, init=True)
