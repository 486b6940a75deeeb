"""What holds of every ruling, whatever is wanted."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tests.support.pool_values import KNOB, a_want
from trimtab.decide.arbiter import arbitrate
from trimtab.model.decision import Precedence, Sense, Want
from trimtab.model.knob import Bounds, Knob
from trimtab.model.ref import Ref

KNOBS = [KNOB, Knob(Ref("ServingPool", "ai", "search"), "replicas"), Knob(Ref("Node", "", "a"), "clock_mhz")]

wants = st.lists(
    st.builds(
        a_want,
        st.integers(0, 20),
        st.sampled_from(Precedence),
        sense=st.sampled_from(Sense),
        policy=st.sampled_from(["a", "b", "c"]),
        knob=st.sampled_from(KNOBS),
    ),
    max_size=8,
)
some_bounds = st.builds(
    lambda low, extra: Bounds(low, None if low is None or extra is None else low + extra),
    st.none() | st.integers(0, 10),
    st.none() | st.integers(0, 10),
)
bounds = st.fixed_dictionaries(dict.fromkeys(KNOBS, some_bounds))


@given(wants, bounds)
def test_each_wanted_knob_has_exactly_one_ruling(asked: list[Want], limits: dict[Knob, Bounds]) -> None:
    ruled = [ruling.knob for ruling in arbitrate(asked, limits)]
    assert ruled == sorted({want.knob for want in asked})


@given(wants, bounds)
def test_a_value_is_within_the_bounds(asked: list[Want], limits: dict[Knob, Bounds]) -> None:
    for ruling in arbitrate(asked, limits):
        if ruling.value is not None:
            assert limits[ruling.knob].clip(ruling.value) == ruling.value


@given(st.data(), wants, bounds)
def test_the_order_of_wants_does_not_matter(data: st.DataObject, asked: list[Want], limits: dict[Knob, Bounds]) -> None:
    shuffled = data.draw(st.permutations(asked))
    assert arbitrate(asked, limits) == arbitrate(shuffled, limits)


@given(wants, bounds)
def test_asking_for_the_outcome_changes_nothing(asked: list[Want], limits: dict[Knob, Bounds]) -> None:
    for ruling in arbitrate(asked, limits):
        if ruling.value is None or ruling.winner is None:
            continue
        (again,) = arbitrate([replace(ruling.winner, value=ruling.value)], limits)
        assert (again.value, again.losers) == (ruling.value, ())


@given(wants, bounds)
def test_no_limit_of_a_class_above_the_winner_is_broken_unless_a_higher_one_forces_it(
    asked: list[Want], limits: dict[Knob, Bounds]
) -> None:
    for ruling in arbitrate(asked, limits):
        if ruling.value is None or ruling.winner is None:
            continue
        caps = [want for want in asked if want.knob == ruling.knob and want.sense is Sense.AT_MOST]
        first = min((want.precedence for want in caps), default=None)
        if first is None or first > ruling.winner.precedence:
            continue
        cap = min(want.value for want in caps if want.precedence is first)
        floors = [
            want.value
            for want in asked
            if want.knob == ruling.knob and want.sense is Sense.AT_LEAST and want.precedence < first
        ]
        lowest = limits[ruling.knob].low or 0
        assert ruling.value <= max([cap, lowest, *floors])


@given(wants, bounds)
def test_losers_are_exactly_the_wants_that_the_value_does_not_meet(
    asked: list[Want], limits: dict[Knob, Bounds]
) -> None:
    for ruling in arbitrate(asked, limits):
        if ruling.value is None:
            continue
        unmet = [want for want in asked if want.knob == ruling.knob and not _meets(ruling.value, want)]
        assert len(unmet) == len(ruling.losers)
        assert all(want in unmet for want in ruling.losers)


def _meets(value: int, want: Want) -> bool:
    if want.sense is Sense.AT_LEAST:
        return value >= want.value
    return value <= want.value if want.sense is Sense.AT_MOST else value == want.value
