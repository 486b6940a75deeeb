from tests.support.pool_values import KNOB, a_want
from trimtab.decide.arbiter import arbitrate
from trimtab.model.decision import Precedence, Sense
from trimtab.model.knob import Bounds

SAFETY, BUDGET, SLO, EFFICIENCY = Precedence


def test_nothing_wanted_is_no_ruling() -> None:
    assert arbitrate([]) == ()


def test_a_single_want_wins() -> None:
    (ruling,) = arbitrate([a_want(3)])
    assert (ruling.value, ruling.losers) == (3, ())


def test_a_budget_caps_what_service_levels_want_and_the_loser_is_kept() -> None:
    wish = a_want(9, SLO)
    (ruling,) = arbitrate([wish, a_want(6, BUDGET, sense=Sense.AT_MOST, policy="Equilibrium")])
    assert ruling.value == 6
    assert ruling.winner == wish
    assert ruling.losers == (wish,)


def test_a_limit_of_a_lower_class_does_not_bind_a_higher_one() -> None:
    saving = a_want(2, EFFICIENCY, sense=Sense.AT_MOST, policy="Idle")
    (ruling,) = arbitrate([a_want(5, SLO), saving])
    assert ruling.value == 5
    assert ruling.losers == (saving,)


def test_within_a_class_the_stricter_limit_wins() -> None:
    wants = [a_want(limit, BUDGET, sense=Sense.AT_MOST, policy=f"p{limit}") for limit in (8, 4, 6)]
    (ruling,) = arbitrate([*wants, a_want(9)])
    assert ruling.value == 4


def test_where_limits_of_a_class_cross_the_upper_one_wins() -> None:
    low, high = a_want(7, SAFETY, sense=Sense.AT_LEAST), a_want(4, SAFETY, sense=Sense.AT_MOST)
    (ruling,) = arbitrate([low, high, a_want(9)])
    assert ruling.value == 4
    assert low in ruling.losers


def test_of_two_exact_wishes_service_levels_take_the_larger_and_safety_the_smaller() -> None:
    assert arbitrate([a_want(3, SLO), a_want(5, SLO, policy="x")])[0].value == 5
    assert arbitrate([a_want(3, SAFETY), a_want(5, SAFETY, policy="x")])[0].value == 3


def test_bounds_hold_against_everybody() -> None:
    (ruling,) = arbitrate([a_want(0, SAFETY)], {KNOB: Bounds(2, 8)})
    assert ruling.value == 2
    assert len(ruling.losers) == 1


def test_limits_alone_ask_for_no_value() -> None:
    (ruling,) = arbitrate([a_want(4, BUDGET, sense=Sense.AT_MOST)])
    assert (ruling.value, ruling.allowed, ruling.losers) == (None, Bounds(None, 4), ())
