"""What requests like this one did lately."""

from math import isnan, log

import pytest

from trimtab.decide.queueing.length_ladder import COLUMNS, Ladder
from trimtab.decide.queueing.lengths import Features, Outcome


def columns(ladder: Ladder, request: Features) -> dict[str, float]:
    return dict(zip(COLUMNS, ladder.look(request).columns, strict=True))


def test_an_empty_ladder_knows_only_where_to_start() -> None:
    view = Ladder(start=3.0).look(Features(100))
    assert view.base == 3.0
    assert [isnan(value) for value in view.columns] == [True, True, False] * 5


def test_the_base_is_the_finest_rung_with_enough_answers() -> None:
    ladder = Ladder()
    for _ in range(3):
        ladder.add(Features(1_000), Outcome(500))
    assert ladder.look(Features(1_000)).base == pytest.approx(log(500))
    for _ in range(2):
        ladder.add(Features(100), Outcome(20))
    assert ladder.look(Features(100)).base == pytest.approx((3 * log(500) + 2 * log(20)) / 5), "two are not enough"
    ladder.add(Features(100), Outcome(20))
    assert ladder.look(Features(100)).base == pytest.approx(log(20))


def test_columns_are_relative_to_the_base() -> None:
    ladder = Ladder()
    for tokens in (100, 100, 100, 400):
        ladder.add(Features(64), Outcome(tokens))
    seen = columns(ladder, Features(64))
    assert seen["rung0_count"] == seen["rung4_count"] == 4.0
    assert seen["rung0_level"] == 0.0
    assert seen["rung0_spread"] == pytest.approx(log(4) * (3 / 16) ** 0.5)


def test_prompts_of_other_lengths_share_only_the_wider_rungs() -> None:
    ladder = Ladder()
    ladder.add(Features(1_000), Outcome(50))
    seen = columns(ladder, Features(1_030))
    assert [seen[f"rung{rung}_count"] for rung in range(5)] == [0.0, 0.0, 1.0, 1.0, 1.0]


def test_applications_and_models_share_nothing_but_the_start() -> None:
    ladder = Ladder()
    ladder.add(Features(10, tenant="a", model="m"), Outcome(77))
    for other in (Features(10, tenant="b", model="m"), Features(10, tenant="a", model="n")):
        assert columns(ladder, other)["rung4_count"] == 0.0
        assert ladder.look(other).base == pytest.approx(log(77))


def test_cut_off_answers_change_nothing() -> None:
    ladder = Ladder(start=2.0)
    ladder.add(Features(10), Outcome(5, exact=False))
    ladder.add(Features(10), Outcome(0))
    assert ladder.look(Features(10)).base == 2.0


def test_scaling_all_answers_moves_only_the_base() -> None:
    plain, scaled = Ladder(), Ladder()
    for number in range(1, 40):
        plain.add(Features(number % 5 + 1), Outcome(number))
        scaled.add(Features(number % 5 + 1), Outcome(8 * number))
    one, other = plain.look(Features(3)), scaled.look(Features(3))
    assert other.base - one.base == pytest.approx(log(8))
    assert other.columns == pytest.approx(one.columns)
