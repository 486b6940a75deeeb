"""When an engine is ejected, for how long, and how it comes back."""

from trimtab.decide.queueing.health import GOOD, Health, HealthPolicy, after_failure

POLICY = HealthPolicy(failures=3, first_backoff_seconds=1.0, longest_backoff_seconds=8.0)


def fail(health: Health, at: float, *, unreachable: bool = False) -> Health:
    return after_failure(health, POLICY, at, unreachable=unreachable)


def test_single_failures_are_tolerated() -> None:
    health = fail(fail(GOOD, 0.0), 1.0)
    assert (health.is_ejected(1.0), health.on_trial) == (False, False)


def test_enough_failures_in_a_row_eject() -> None:
    health = fail(fail(fail(GOOD, 0.0), 0.0), 5.0)
    assert health.is_ejected(5.0)
    assert health.is_ejected(5.9)
    assert not health.is_ejected(6.0)
    assert health.on_trial


def test_a_refused_connection_ejects_at_once() -> None:
    assert fail(GOOD, 5.0, unreachable=True).is_ejected(5.5)


def test_failures_of_requests_that_were_already_open_do_not_prolong_an_ejection() -> None:
    ejected = fail(GOOD, 5.0, unreachable=True)
    assert fail(ejected, 5.5) == ejected
    assert fail(ejected, 5.5, unreachable=True) == ejected


def test_each_failed_trial_doubles_the_time_out_up_to_a_bound() -> None:
    health, at, waits = GOOD, 0.0, []
    for _ in range(6):
        health = fail(health, at, unreachable=True)
        waits.append(health.ejected_until - at)
        at = health.ejected_until
    assert waits == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


def test_one_failure_on_trial_is_enough() -> None:
    on_trial = fail(GOOD, 0.0, unreachable=True)
    assert fail(on_trial, 2.0).is_ejected(3.9)


def test_an_engine_that_fails_for_years_does_not_overflow() -> None:
    health = Health(ejections=10_000, ejected_until=0.0)
    assert fail(health, 1.0, unreachable=True).ejected_until == 9.0
