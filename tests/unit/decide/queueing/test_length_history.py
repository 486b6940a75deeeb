"""Predictions from the history of applications."""

import pytest

from trimtab.decide.queueing.bounded import Bounded
from trimtab.decide.queueing.length_history import HistoryPolicy, TenantHistory, survival_quantiles
from trimtab.decide.queueing.lengths import Constant, Features, Outcome, Prediction

CHAT = Features(100, tenant="chat", model="m")
CODE = Features(100, tenant="code", model="m")


def fed(history: TenantHistory, request: Features, *outcomes: Outcome) -> TenantHistory:
    for outcome in outcomes:
        history.observe(request, outcome)
    return history


def test_quantiles_of_complete_lengths_are_the_empirical_ones() -> None:
    labels = [(tokens, False) for tokens in range(1, 11)]
    assert survival_quantiles(labels, (0.1, 0.5, 0.9, 1.0)) == (1.0, 5.0, 9.0, 10.0)


def test_quantiles_with_cut_off_lengths_follow_kaplan_and_meier() -> None:
    # Survival after 6, 6, 6 of 7: 6/7 x 5/6 x 4/5 = 4/7; 6 cut off; after 7: 4/7 x 2/3; 9 cut off; after 10: 0.
    labels = [(6, False), (6, False), (6, False), (6, True), (7, False), (9, True), (10, False)]
    assert survival_quantiles(labels, (3 / 7, 0.5, 1 - 8 / 21, 0.9)) == (6.0, 7.0, 7.0, 10.0)


def test_a_quantile_beyond_all_that_was_seen_is_at_least_the_longest() -> None:
    assert survival_quantiles([(5, False), (100, True)], (0.5, 0.9)) == (5.0, 100.0)
    assert survival_quantiles([(100, True)], (0.5, 0.9)) == (100.0, 100.0)


def test_applications_are_told_apart() -> None:
    history = fed(TenantHistory(), CHAT, *(Outcome(300) for _ in range(10)))
    fed(history, CODE, *(Outcome(20) for _ in range(10)))
    assert history.predict([CHAT, CODE]) == [Prediction(300.0, 300.0, 300.0), Prediction(20.0, 20.0, 20.0)]


def test_the_start_serves_until_something_ended_and_everybody_until_an_application_is_known() -> None:
    history = TenantHistory(start=Constant(Prediction(1.0, 2.0, 1.5)))
    assert history.predict([CHAT]) == [Prediction(1.0, 2.0, 1.5)]
    fed(history, CODE, *(Outcome(20) for _ in range(9)))
    fed(history, CHAT, *(Outcome(300) for _ in range(4)))
    (known_little,) = history.predict([CHAT])
    assert known_little.p50 == 20.0
    fed(history, CHAT, Outcome(300))
    assert history.predict([CHAT])[0].p50 == 300.0


def test_the_average_follows_and_the_window_forgets() -> None:
    history = fed(TenantHistory(HistoryPolicy(window=10, weight=0.5)), CHAT, *(Outcome(100) for _ in range(50)))
    fed(history, CHAT, Outcome(200))
    assert history.predict([CHAT])[0].mean == 150.0
    fed(history, CHAT, *(Outcome(200) for _ in range(10)))
    assert history.predict([CHAT])[0].p50 == 200.0


def test_cut_off_lengths_never_count_as_exact() -> None:
    whole = fed(TenantHistory(), CHAT, *(Outcome(500) for _ in range(20)))
    fed(whole, CHAT, *(Outcome(10, exact=False) for _ in range(100)))
    assert whole.predict([CHAT]) == [Prediction(500.0, 500.0, 500.0)]
    only_cut_off = fed(TenantHistory(), CHAT, *(Outcome(64, exact=False) for _ in range(20)))
    assert only_cut_off.predict([CHAT]) == [Prediction(64.0, 64.0, 64.0)], "a lower bound is all there is"


@pytest.mark.parametrize("count", [1, 2, 3, 9, 10, 11, 20, 97, 256])
def test_ranks_are_the_product_limit_estimate_where_nothing_was_cut_off(count: int) -> None:
    history = fed(TenantHistory(HistoryPolicy(least=1)), CHAT, *(Outcome(7 * n % 101 + 1) for n in range(count)))
    labels = sorted((7 * n % 101 + 1, False) for n in range(count))
    (prediction,) = history.predict([CHAT])
    assert (prediction.p50, prediction.p90) == survival_quantiles(labels, (0.5, 0.9))


def test_an_answer_that_was_cut_off_leaves_with_the_window() -> None:
    history = fed(TenantHistory(HistoryPolicy(window=3)), CHAT, Outcome(900, exact=False))
    fed(history, CHAT, Outcome(1), Outcome(2), Outcome(3), Outcome(4), Outcome(5))
    assert history.predict([CHAT])[0].p90 == 5.0


def test_predictions_are_capped() -> None:
    history = fed(TenantHistory(), CHAT, *(Outcome(500) for _ in range(20)))
    limited = Features(100, max_tokens=64, tenant="chat", model="m")
    assert history.predict([limited]) == [Prediction(64, 64, 64)]


def test_a_table_forgets_what_was_written_longest_ago() -> None:
    table: Bounded[str, list[int]] = Bounded(2, list)
    table.touch("a").append(1)
    table.touch("b")
    table.touch("a").append(2)
    table.touch("c")
    assert [key for key, _ in table.items()] == ["a", "c"]
    assert (table.get("a"), table.get("b"), len(table)) == ([1, 2], None, 2)


def test_applications_are_bounded() -> None:
    history = TenantHistory(HistoryPolicy(most=3, least=1))
    for name in ("a", "b", "c", "d"):
        fed(history, Features(1, tenant=name), Outcome(ord(name)))
    assert history.predict([Features(1, tenant="d")])[0].p50 == ord("d")
    assert history.predict([Features(1, tenant="a")])[0].p50 == pytest.approx(98.0), "forgotten: everybody's median"
