from tests.support.power import a_domain, a_ledger, a_pod
from trimtab.decide.charges import Ledger
from trimtab.decide.placement import admit
from trimtab.decide.wake import WaitingRoom
from trimtab.model.power import Derate, PodFacts


def turn_away(
    room: WaitingRoom, ledger: Ledger, pod: PodFacts, nodes: list[str], *, at: float, partial: bool = False
) -> None:
    admission = admit(ledger, pod, nodes, at)
    assert not admission.passed
    room.note(pod, admission, partial=partial, at=at)


def test_nobody_is_woken_while_nothing_has_changed() -> None:
    ledger, room = a_ledger(a_domain("row-1", 50), rows={"row-1": 1}), WaitingRoom()
    turn_away(room, ledger, a_pod(), ["row-1-n0"], at=0.0)
    assert len(room) == 1
    assert room.call(ledger, 1000.0) is None


def test_a_raised_limit_wakes_each_pod_once() -> None:
    ledger, room = a_ledger(a_domain("row-1", 50), rows={"row-1": 1}), WaitingRoom()
    for uid in ("u1", "u2"):
        turn_away(room, ledger, a_pod(uid), ["row-1-n0"], at=0.0)
    ledger.set_domain(a_domain("row-1", 500))
    wake = room.call(ledger, 1.0)
    assert wake is not None
    assert (wake.node, wake.pods) == ("row-1-n0", 2)
    assert room.call(ledger, 2.0) is None


def test_a_pod_that_is_turned_away_again_is_woken_again() -> None:
    ledger, room = a_ledger(a_domain("row-1", 50), rows={"row-1": 1}), WaitingRoom()
    turn_away(room, ledger, a_pod(), ["row-1-n0"], at=0.0)
    ledger.set_domain(a_domain("row-1", 500))
    assert room.call(ledger, 1.0) is not None
    ledger.set_domain(a_domain("row-1", 50))
    turn_away(room, ledger, a_pod(), ["row-1-n0"], at=2.0)
    ledger.set_domain(a_domain("row-1", 500))
    assert room.call(ledger, 3.0) is not None


def test_the_end_of_a_derate_wakes() -> None:
    ledger, room = a_ledger(a_domain("row-1", 150, derate=Derate(50, until=60.0)), rows={"row-1": 1}), WaitingRoom()
    turn_away(room, ledger, a_pod(), ["row-1-n0"], at=0.0)
    assert room.call(ledger, 59.0) is None
    assert room.call(ledger, 60.0) is not None


def test_a_pod_that_ended_makes_room_and_wakes() -> None:
    ledger, room = a_ledger(a_domain("row-1", 150), rows={"row-1": 1}), WaitingRoom()
    ledger.observe(a_pod("old", node="row-1-n0"))
    turn_away(room, ledger, a_pod("new"), ["row-1-n0"], at=0.0)
    ledger.forget("old")
    assert room.call(ledger, 1.0) is not None


def test_a_domain_that_is_deleted_or_stops_enforcing_wakes() -> None:
    for change in ("delete", "observe"):
        ledger, room = a_ledger(a_domain("row-1", 50), rows={"row-1": 1}), WaitingRoom()
        turn_away(room, ledger, a_pod(), ["row-1-n0"], at=0.0)
        if change == "delete":
            ledger.drop_domain("row-1")
        else:
            ledger.set_domain(a_domain("row-1", 50, enforced=False))
        assert room.call(ledger, 1.0) is not None, change


def test_pods_that_passed_or_are_gone_do_not_wait() -> None:
    ledger, room = a_ledger(a_domain("row-1", 50), rows={"row-1": 1}), WaitingRoom()
    turn_away(room, ledger, a_pod("u1"), ["row-1-n0"], at=0.0)
    turn_away(room, ledger, a_pod("u2"), ["row-1-n0"], at=0.0)
    room.leave("u1")
    ledger.set_domain(a_domain("row-1", 500))
    room.note(a_pod("u2"), admit(ledger, a_pod("u2"), ["row-1-n0"], 1.0), partial=False, at=1.0)
    assert len(room) == 0


def test_room_elsewhere_wakes_nobody_who_was_shown_every_node() -> None:
    ledger, room = a_ledger(a_domain("row-1", 50), rows={"row-1": 1, "row-9": 1}), WaitingRoom()
    turn_away(room, ledger, a_pod(), ["row-1-n0"], at=0.0)
    assert room.call(ledger, 1000.0) is None


def test_room_elsewhere_wakes_who_was_shown_a_sample_at_growing_intervals() -> None:
    ledger, room = a_ledger(a_domain("row-1", 50), rows={"row-1": 1, "row-9": 1}), WaitingRoom()
    turn_away(room, ledger, a_pod(), ["row-1-n0"], at=0.0, partial=True)
    assert room.call(ledger, 1.9) is None
    wake = room.call(ledger, 2.0)
    assert wake is not None
    assert wake.node == "row-9-n0"
    turn_away(room, ledger, a_pod(), ["row-1-n0"], at=3.0, partial=True)
    assert room.call(ledger, 6.9) is None
    assert room.call(ledger, 7.0) is not None
