import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.local.process_node.probes import Verdict, gave_up, observe
from trimtab.local.process_node.spec import Probe, TcpConnect


def after(probe: Probe, verdict: Verdict, results: str) -> Verdict:
    for result in results:
        verdict = observe(probe, verdict, succeeded=result == "+")
    return verdict


@pytest.mark.parametrize(
    ("results", "good"),
    [("", False), ("+", False), ("++", True), ("+-+", False), ("++--", True), ("++---", False), ("++--+--", True)],
)
def test_the_verdict_turns_at_its_thresholds(results: str, good: bool) -> None:
    probe = Probe(TcpConnect(1), success_threshold=2, failure_threshold=3)

    assert after(probe, Verdict(good=False), results).good is good


@pytest.mark.parametrize(("results", "given_up"), [("", False), ("--", False), ("---", True), ("--+-", False)])
def test_a_container_is_given_up_after_failures_in_a_row(results: str, given_up: bool) -> None:
    probe = Probe(TcpConnect(1), failure_threshold=3)

    assert gave_up(probe, after(probe, Verdict(good=True), results)) is given_up


@given(st.text(alphabet="+-", max_size=30), st.integers(1, 4), st.integers(1, 4), st.booleans())
def test_the_streak_counts_the_equal_results_at_the_end(results: str, ups: int, downs: int, start: bool) -> None:
    probe = Probe(TcpConnect(1), success_threshold=ups, failure_threshold=downs)

    verdict = after(probe, Verdict(good=start), results)

    tail = len(results) - len(results.rstrip(results[-1:])) if results else 0
    assert verdict.streak == tail
    if tail >= (ups if results.endswith("+") else downs) and results:
        assert verdict.good is results.endswith("+")
