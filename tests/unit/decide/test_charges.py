import pytest

from tests.support.power import Labels, a_domain, a_ledger, a_pod, charged, held
from trimtab.decide.charges import Ledger, Sighting
from trimtab.model.power import Demand, Derate

POOL = ("ai", "chat")


def test_a_bound_pod_is_charged_to_its_domain_and_all_that_contain_it() -> None:
    rows = a_domain("row-1", parent="site"), a_domain("row-2", parent="site")
    ledger = a_ledger(a_domain("site", level="Site"), *rows, rows={"row-1": 1, "row-2": 1})
    ledger.observe(a_pod(watts=300, node="row-1-n0"))
    assert charged(ledger) == {"site": 300, "row-1": 300, "row-2": 0}


def test_a_domain_that_contains_a_node_twice_is_charged_once() -> None:
    ledger = a_ledger(a_domain("site", level="Site"), a_domain("row-1", parent="site"), rows={"row-1": 1})
    ledger.observe(a_pod(watts=300, node="row-1-n0"))
    assert charged(ledger)["site"] == 300


def test_a_pod_that_ends_is_uncharged() -> None:
    ledger = a_ledger(a_domain(), rows={"row-1": 1})
    ledger.observe(a_pod(node="row-1-n0"))
    ledger.forget("u1")
    ledger.forget("u1")
    assert charged(ledger) == {"row-1": 0}
    assert ledger.charged_pods == 0


def test_the_order_in_which_things_are_seen_does_not_matter() -> None:
    ledger = Ledger()
    ledger.observe(a_pod(node="row-1-n0", watts=None, pool=POOL))
    ledger.set_node("row-1-n0", {"row": "row-1"}, "h100")
    ledger.set_demand(POOL, Demand({"h100": 700}))
    ledger.set_domain(a_domain("row-1", parent="site"))
    ledger.set_domain(a_domain("site", level="Site"))
    ledger.settle(0.0)
    assert charged(ledger) == {"row-1": 700, "site": 700}


def test_the_pods_own_watts_win_over_its_pools() -> None:
    ledger = a_ledger(a_domain(), rows={"row-1": 1})
    ledger.set_demand(POOL, Demand({"h100": 700}))
    ledger.observe(a_pod(watts=450, pool=POOL, node="row-1-n0"))
    assert charged(ledger) == {"row-1": 450}


def test_bound_pods_are_charged_anew_when_their_pool_declares_something_else() -> None:
    ledger = a_ledger(a_domain(), rows={"row-1": 1})
    ledger.observe(a_pod(watts=None, pool=POOL, node="row-1-n0"))
    assert (charged(ledger), ledger.undeclared) == ({"row-1": 0}, 1)
    ledger.set_demand(POOL, Demand({"h100": 700}))
    assert (charged(ledger), ledger.undeclared) == ({"row-1": 700}, 0)
    ledger.set_demand(POOL, Demand({"l4": 70}, elsewhere=70))
    assert charged(ledger) == {"row-1": 70}
    ledger.drop_demand(POOL)
    assert charged(ledger) == {"row-1": 0}


def test_a_node_that_moves_takes_its_pods_along() -> None:
    ledger = a_ledger(a_domain("row-1"), a_domain("row-2"), rows={"row-1": 1})
    ledger.observe(a_pod(node="row-1-n0"))
    ledger.set_node("row-1-n0", {"row": "row-2"}, "h100")
    assert charged(ledger) == {"row-1": 0, "row-2": 100}
    ledger.drop_node("row-1-n0")
    assert charged(ledger) == {"row-1": 0, "row-2": 0}


def test_a_pod_on_an_unknown_node_is_charged_to_nobody_until_the_node_is_seen() -> None:
    ledger = a_ledger(a_domain())
    ledger.observe(a_pod(node="late"))
    assert charged(ledger) == {"row-1": 0}
    ledger.set_node("late", {"row": "row-1"}, "")
    assert charged(ledger) == {"row-1": 100}


def test_domains_come_and_go_under_running_pods() -> None:
    ledger = a_ledger(rows={"row-1": 1})
    ledger.observe(a_pod(node="row-1-n0"))
    ledger.set_domain(a_domain())
    ledger.settle(0.0)
    assert charged(ledger) == {"row-1": 100}
    ledger.drop_domain("row-1")
    ledger.drop_domain("row-1")
    ledger.settle(0.0)
    assert charged(ledger) == {}
    assert ledger.places["row-1-n0"].books == ()


def test_of_two_domains_of_one_level_the_older_holds_the_node() -> None:
    everything = Labels()
    older = a_domain("b-older", created=1.0, nodes=everything)
    newer = a_domain("a-newer", created=2.0, nodes=everything)
    twin = a_domain("c-twin", created=1.0, nodes=everything)
    ledger = a_ledger(newer, twin, older, rows={"row-1": 1})
    ledger.observe(a_pod(node="row-1-n0"))
    assert charged(ledger) == {"a-newer": 0, "b-older": 100, "c-twin": 0}


def test_domains_of_different_levels_share_a_node() -> None:
    rack = a_domain("r7", level="Rack", nodes=Labels((("row", "row-1"),)))
    ledger = a_ledger(a_domain("row-1"), rack, rows={"row-1": 1})
    ledger.observe(a_pod(node="row-1-n0"))
    assert charged(ledger) == {"row-1": 100, "r7": 100}


@pytest.mark.parametrize("parent", ["row-1", "nowhere", "row-2"])
def test_a_circle_or_a_missing_parent_ends_the_chain(parent: str) -> None:
    ledger = a_ledger(a_domain("row-1", parent=parent), a_domain("row-2", parent="row-1"), rows={"row-1": 1})
    ledger.observe(a_pod(node="row-1-n0"))
    assert charged(ledger)["row-1"] == 100


def test_a_hold_becomes_a_charge_when_the_pod_is_seen_bound() -> None:
    ledger = a_ledger(a_domain("row-1"), a_domain("row-2"), rows={"row-1": 1, "row-2": 1})
    ledger.hold(a_pod(), {"row-1": 100, "row-2": 100}, at=0.0)
    assert held(ledger) == {"row-1": 100, "row-2": 100}
    assert ledger.observe(a_pod()) is Sighting.PENDING
    assert ledger.observe(a_pod(node="row-2-n0")) is Sighting.EXPECTED
    assert (held(ledger), charged(ledger)) == ({"row-1": 0, "row-2": 0}, {"row-1": 0, "row-2": 100})
    assert ledger.observe(a_pod(node="row-2-n0")) is Sighting.KNOWN


def test_a_pod_that_never_passed_is_charged_on_sight_and_told_apart() -> None:
    ledger = a_ledger(a_domain(), rows={"row-1": 1})
    assert ledger.observe(a_pod(node="row-1-n0")) is Sighting.UNEXPECTED
    assert charged(ledger) == {"row-1": 100}


def test_a_hold_runs_out() -> None:
    ledger = a_ledger(a_domain(), rows={"row-1": 1}, hold_seconds=30.0)
    ledger.hold(a_pod("u1"), {"row-1": 100}, at=0.0)
    ledger.hold(a_pod("u2"), {"row-1": 200}, at=10.0)
    assert ledger.settle(29.9) == []
    assert ledger.settle(30.0) == ["u1"]
    assert held(ledger) == {"row-1": 200}


def test_a_second_attempt_replaces_the_hold_of_the_first() -> None:
    ledger = a_ledger(a_domain(), rows={"row-1": 1})
    ledger.hold(a_pod(), {"row-1": 100}, at=0.0)
    ledger.hold(a_pod(), {"row-1": 70}, at=1.0)
    assert held(ledger) == {"row-1": 70}
    assert ledger.on_their_way == 1


def test_a_hold_shrinks_to_the_node_that_the_scheduler_announces() -> None:
    ledger = a_ledger(a_domain("row-1"), a_domain("row-2"), rows={"row-1": 1, "row-2": 1})
    ledger.hold(a_pod(), {"row-1": 100, "row-2": 100}, at=0.0)
    ledger.observe(a_pod(nominated="row-2-n0"))
    assert held(ledger) == {"row-1": 0, "row-2": 100}


def test_a_node_that_was_announced_before_the_pod_passed_says_nothing_about_where_it_lands() -> None:
    ledger = a_ledger(a_domain("row-1"), a_domain("row-2"), rows={"row-1": 1, "row-2": 1})
    ledger.hold(a_pod(nominated="row-2-n0"), {"row-1": 100, "row-2": 100}, at=0.0)
    ledger.observe(a_pod(nominated="row-2-n0"))
    assert held(ledger) == {"row-1": 100, "row-2": 100}


def test_holds_survive_a_change_of_the_domains() -> None:
    ledger = a_ledger(a_domain("row-1"), rows={"row-1": 1})
    ledger.hold(a_pod(), {"row-1": 100}, at=0.0)
    ledger.set_domain(a_domain("row-2"))
    ledger.settle(1.0)
    assert held(ledger) == {"row-1": 100, "row-2": 0}
    ledger.forget("u1")
    assert held(ledger) == {"row-1": 0, "row-2": 0}


def test_a_changed_limit_takes_effect_without_opening_new_books() -> None:
    ledger = a_ledger(a_domain(watts=1000), rows={"row-1": 1})
    before = ledger.book("row-1")
    ledger.set_domain(a_domain(watts=2000, margin_percent=10))
    ledger.settle(0.0)
    after = ledger.book("row-1")
    assert after is before
    assert after is not None
    assert after.usable == 1800


def test_a_derate_ends_by_itself() -> None:
    ledger = a_ledger(a_domain(watts=1000, derate=Derate(75, until=60.0)), rows={"row-1": 1})
    book = ledger.book("row-1")
    assert book is not None
    assert book.usable == 750
    ledger.settle(59.9)
    assert book.usable == 750
    ledger.settle(60.0)
    assert book.usable == 1000


def test_a_mode_change_moves_the_limit_between_enforced_and_watched() -> None:
    ledger = a_ledger(a_domain(enforced=False), rows={"row-1": 1})
    place = ledger.places["row-1-n0"]
    assert (len(place.limits), len(place.watched)) == (0, 1)
    ledger.set_domain(a_domain(enforced=True))
    ledger.settle(0.0)
    place = ledger.places["row-1-n0"]
    assert (len(place.limits), len(place.watched)) == (1, 0)


def test_who_is_longest_on_its_way() -> None:
    ledger = a_ledger(a_domain(), rows={"row-1": 1})
    assert ledger.longest_on_its_way() is None
    ledger.hold(a_pod("u1"), {}, at=5.0)
    ledger.hold(a_pod("u2"), {}, at=6.0)
    assert ledger.longest_on_its_way() == (a_pod("u1"), 5.0)
