import pytest

from tests.support.power import a_domain, a_ledger, a_pod, held
from trimtab.decide.charges import Ledger
from trimtab.decide.placement import HIGHEST, LOWEST, NO_OPINION, admit, score
from trimtab.model.power import Demand, Derate
from trimtab.model.reason import ReasonCode

NODES = ["row-1-n0", "row-1-n1", "row-2-n0"]


def two_rows(one: int = 1000, two: int = 1000, **rest: object) -> Ledger:
    return a_ledger(a_domain("row-1", one, **rest), a_domain("row-2", two, **rest), rows={"row-1": 2, "row-2": 1})


def test_nodes_of_a_full_domain_are_rejected_with_the_numbers() -> None:
    ledger = two_rows()
    ledger.observe(a_pod("other", 950, node="row-1-n1"))
    admission = admit(ledger, a_pod(watts=100), NODES, 0.0)
    assert admission.passed == ["row-2-n0"]
    (rejection,) = admission.rejections
    assert rejection.nodes == ("row-1-n0", "row-1-n1")
    assert rejection.reason.code is ReasonCode.POWER_DOMAIN_FULL
    assert rejection.reason.subject.name == "row-1"
    assert dict(rejection.reason.numbers) == {
        "left_watts": 50,
        "held_watts": 0,
        "usable_watts": 1000,
        "pod_watts": 100,
    }


def test_a_pod_may_use_the_last_watt_and_no_more() -> None:
    assert admit(two_rows(100, 99), a_pod(watts=100), NODES, 0.0).passed == ["row-1-n0", "row-1-n1"]


def test_a_pod_beyond_the_whole_limit_is_told_so() -> None:
    (rejection,) = admit(two_rows(2000, 90), a_pod(watts=100), NODES, 0.0).rejections
    assert rejection.reason.code is ReasonCode.POWER_DOMAIN_TOO_SMALL


def test_watts_of_pods_on_their_way_count_and_are_named() -> None:
    ledger = two_rows(150, 90)
    assert admit(ledger, a_pod("u1"), ["row-1-n0"], 0.0).passed == ["row-1-n0"]
    (rejection,) = admit(ledger, a_pod("u2"), ["row-1-n0"], 0.0).rejections
    assert rejection.reason.code is ReasonCode.POWER_DOMAIN_HELD
    assert dict(rejection.reason.numbers)["held_watts"] == 100


def test_a_pod_holds_its_watts_only_where_it_may_land() -> None:
    ledger = two_rows(1000, 50)
    admit(ledger, a_pod(watts=100), NODES, 0.0)
    assert held(ledger) == {"row-1": 100, "row-2": 0}


def test_a_retry_is_not_turned_away_by_its_own_earlier_hold() -> None:
    ledger = two_rows(100, 100)
    for at in (0.0, 1.0, 2.0):
        assert admit(ledger, a_pod(watts=100), NODES, at).passed == NODES


def test_a_pod_that_is_turned_away_holds_nothing() -> None:
    ledger = two_rows(100, 100)
    admit(ledger, a_pod(watts=100), NODES, 0.0)
    admit(ledger, a_pod(watts=200), NODES, 1.0)
    assert held(ledger) == {"row-1": 0, "row-2": 0}


def test_the_outermost_full_domain_is_the_reason() -> None:
    ledger = a_ledger(a_domain("site", 90, level="Site"), a_domain("row-1", 90, parent="site"), rows={"row-1": 1})
    (rejection,) = admit(ledger, a_pod(), ["row-1-n0"], 0.0).rejections
    assert rejection.reason.subject.name == "site"


def test_one_reason_for_all_rows_of_a_full_site() -> None:
    ledger = a_ledger(
        a_domain("site", 90, level="Site"),
        a_domain("row-1", parent="site"),
        a_domain("row-2", parent="site"),
        rows={"row-1": 2, "row-2": 1},
    )
    (rejection,) = admit(ledger, a_pod(), NODES, 0.0).rejections
    assert rejection.nodes == tuple(NODES)


def test_undeclared_pods_pass_even_where_the_domain_is_over_its_limit() -> None:
    ledger = two_rows(10, 10)
    ledger.observe(a_pod("over", 500, node="row-1-n0"))
    admission = admit(ledger, a_pod(watts=None), NODES, 0.0)
    assert admission.passed == NODES
    assert not admission.declared
    assert held(ledger) == {"row-1": 0, "row-2": 0}


def test_a_pod_that_declares_zero_watts_has_declared() -> None:
    assert admit(two_rows(), a_pod(watts=0), NODES, 0.0).declared


def test_unknown_nodes_pass_and_are_counted() -> None:
    admission = admit(two_rows(50, 50), a_pod(), [*NODES, "new"], 0.0)
    assert (list(admission.passed), admission.unknown) == (["new"], 1)


def test_nodes_of_no_domain_are_nobodys_limit() -> None:
    ledger = a_ledger(a_domain("row-1", 50), rows={"row-1": 1, "row-9": 1})
    assert admit(ledger, a_pod(), ["row-1-n0", "row-9-n0"], 0.0).passed == ["row-9-n0"]


def test_a_domain_that_only_watches_turns_nobody_away_and_counts() -> None:
    admission = admit(two_rows(50, 1000, enforced=False), a_pod(), NODES, 0.0)
    assert (list(admission.passed), admission.watched, admission.rejections) == (NODES, 2, ())


def test_a_domain_without_a_power_limit_turns_nobody_away() -> None:
    ledger = a_ledger(a_domain("row-1", None), rows={"row-1": 1})
    assert admit(ledger, a_pod(watts=10**6), ["row-1-n0"], 0.0).passed == ["row-1-n0"]


def test_the_accelerator_of_the_node_says_what_a_replica_draws() -> None:
    ledger = two_rows(500, 500)
    ledger.set_node("row-1-n1", {"row": "row-1"}, "l4")
    ledger.set_demand(("ai", "chat"), Demand({"h100": 700, "l4": 72}, elsewhere=700))
    admission = admit(ledger, a_pod(watts=None, pool=("ai", "chat")), NODES, 0.0)
    assert admission.passed == ["row-1-n1"]
    assert held(ledger) == {"row-1": 72, "row-2": 0}


def test_a_derate_rejects_and_its_end_admits() -> None:
    ledger = two_rows(100, 100, derate=Derate(50, until=60.0))
    assert list(admit(ledger, a_pod(watts=80), NODES, 0.0).passed) == []
    assert admit(ledger, a_pod(watts=80), NODES, 60.0).passed == NODES


def test_a_hold_that_ran_out_makes_room() -> None:
    ledger = two_rows(100, 50)
    admit(ledger, a_pod("u1"), NODES, 0.0)
    assert list(admit(ledger, a_pod("u2"), NODES, 29.0).passed) == []
    assert admit(ledger, a_pod("u2"), NODES, 30.0).passed == ["row-1-n0", "row-1-n1"]


def test_an_empty_question_gets_an_empty_answer() -> None:
    ledger = two_rows()
    assert list(admit(ledger, a_pod(), [], 0.0).passed) == []
    assert score(ledger, a_pod(), [], 0.0) == []


@pytest.mark.parametrize(
    ("limit", "present", "expected"),
    [(1000, 0, 9), (100_000, 0, HIGHEST), (1000, 860, LOWEST), (1000, 400, 5), (1000, 350, 6), (1000, 5000, LOWEST)],
)
def test_a_score_is_the_share_that_is_left_with_the_pod_in_it(limit: int, present: int, expected: int) -> None:
    ledger = a_ledger(a_domain("row-1", limit), rows={"row-1": 1})
    ledger.observe(a_pod("other", present, node="row-1-n0"))
    assert score(ledger, a_pod(watts=100), ["row-1-n0"], 0.0) == [expected]


def test_the_tightest_enforced_domain_decides_the_score() -> None:
    site = a_domain("site", 1000, level="Site")
    ledger = a_ledger(site, a_domain("row-1", 200, parent="site"), rows={"row-1": 1, "row-9": 1})
    assert score(ledger, a_pod(watts=100), ["row-1-n0", "row-9-n0"], 0.0) == [5, 9]


def test_nodes_on_which_nobody_has_a_say_are_neutral() -> None:
    ledger = a_ledger(a_domain("row-1", enforced=False), a_domain("row-2", None), rows={"row-1": 1, "row-2": 1})
    assert score(ledger, a_pod(), ["row-1-n0", "row-2-n0", "new"], 0.0) == [NO_OPINION] * 3


def test_a_pods_own_hold_does_not_count_twice_in_its_score() -> None:
    ledger = two_rows(1000, 1000)
    before = score(ledger, a_pod(watts=400), NODES, 0.0)
    admit(ledger, a_pod(watts=400), NODES, 0.0)
    assert score(ledger, a_pod(watts=400), NODES, 0.0) == before == [6, 6, 6]


def test_scores_count_pods_on_their_way() -> None:
    ledger = two_rows(1000, 1000)
    admit(ledger, a_pod("u1", 400), ["row-1-n0"], 0.0)
    assert score(ledger, a_pod("u2", 100), NODES, 0.0) == [5, 5, 9]


def test_a_domain_derated_to_nothing_scores_lowest() -> None:
    ledger = a_ledger(a_domain("row-1", 1, derate=Derate(1)), rows={"row-1": 1})
    assert score(ledger, a_pod(watts=0), ["row-1-n0"], 0.0) == [LOWEST]
