"""What a part's rows say: order, differences, verdicts."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sim.lab.toy import MAIN, SETTINGS
from trimtab.sim.experiment import Claim, Metric
from trimtab.sim.findings import Verdict, tabulate
from trimtab.sim.sweep import Outcome, Task, execute, tasks_of

OUTCOMES = [execute(task) for task in tasks_of(MAIN, 6, None)]
TABLE = tabulate(MAIN, 6, OUTCOMES)


def outcome(rows: Any, seed: Any = 0) -> Any:
    return Outcome(Task(MAIN.run, 0, SETTINGS[0], seed, None), tuple(rows), 0.0)


def part_of(claim: Any, **metric: Any) -> Any:
    return replace(MAIN, settings=SETTINGS[:1], metrics=(Metric("m", "M", **metric),), claims=(claim,), expected=None)


def verdict(ours: Any, theirs: Any, claim: Any, **metric: Any) -> Any:
    outcomes = [
        outcome([{"policy": "a", "m": a}, {"policy": "b", "m": b}], seed)
        for seed, (a, b) in enumerate(zip(ours, theirs, strict=True))
    ]
    table = tabulate(part_of(claim, **metric), len(outcomes), outcomes)
    return table.verdict(table.part.claims[0])


@given(st.randoms(use_true_random=False))
def test_the_order_in_which_runs_finish_changes_nothing(random: Any) -> None:
    shuffled = list(OUTCOMES)
    random.shuffle(shuffled)
    assert tabulate(MAIN, 6, shuffled) == TABLE


def test_lines_are_of_the_settings_policies_and_metrics_in_their_order() -> None:
    assert TABLE.policies == ("fcfs", "short <first>", "same", "slow")
    first = [(line.setting.name, line.policy, line.metric.name) for line in TABLE.lines[:3]]
    assert first == [
        ("rate 0.5, 1 slots", "fcfs", "jct"),
        ("rate 0.5, 1 slots", "fcfs", "met"),
        ("rate 0.5, 1 slots", "short <first>", "jct"),
    ]
    assert len(TABLE.lines) == 6 * 4 * 2
    assert TABLE.complete


def test_differences_are_within_seeds_and_relative_where_the_metric_is() -> None:
    line = TABLE.line("rate 1, 1 slots", "short <first>", "jct")
    rows = [record.row for record in TABLE.records if record.place == 1]
    mine = np.mean([row["jct"] for row in rows if row["policy"] == "short <first>"])
    base = np.mean([row["jct"] for row in rows if row["policy"] == "fcfs"])
    assert line.difference.mean == pytest.approx(mine / base - 1)
    assert line.expected == -0.245
    assert line.gain == 1
    assert TABLE.line("rate 1, 1 slots", "slow", "met").gain == -1
    assert TABLE.line("rate 1, 1 slots", "same", "jct").gain == 0
    assert TABLE.line("rate 1, 1 slots", "fcfs", "jct").difference is None


def test_a_metric_without_values_is_empty_not_zero() -> None:
    line = TABLE.line("rate 1, 1 slots", "same", "met")
    assert line.value.n == 0
    assert np.isnan(line.value.mean)


def test_claims_get_their_verdicts() -> None:
    assert [TABLE.verdict(claim) for claim in MAIN.claims] == [
        Verdict.HOLDS,
        Verdict.NOT_SHOWN,
        Verdict.REFUTED,
        Verdict.HOLDS,
        Verdict.HOLDS,
    ]


def test_a_claim_holds_only_where_all_its_settings_say_so() -> None:
    claim = Claim("x", "short <first>", "same", "jct")
    everywhere = tabulate(replace(MAIN, claims=(claim,)), 6, OUTCOMES)
    assert len(everywhere.findings) == 6
    assert everywhere.verdict(claim) is Verdict.HOLDS
    worse = [replace(one, rows=tuple(swapped(one.rows))) if one.task.place == 5 else one for one in OUTCOMES]
    assert tabulate(replace(MAIN, claims=(claim,)), 6, worse).verdict(claim) is Verdict.REFUTED


def swapped(rows: Any) -> Any:
    names = {"short <first>": "same", "same": "short <first>"}
    return [{**row, "policy": names.get(row["policy"], row["policy"])} for row in rows]


def test_claims_are_corrected_for_being_many() -> None:
    base = np.arange(10.0, 18.0)
    ours = base - np.array([1.2, 0.1, 0.9, -0.2, 0.8, 0.3, 1.1, -0.1])  # p = 0.025
    outcomes = [
        outcome([{"policy": "a", "m": a}, {"policy": "b", "m": b}], seed)
        for seed, (a, b) in enumerate(zip(ours, base, strict=True))
    ]
    one = part_of(Claim("x", "a", "b", "m"))
    many = replace(one, claims=tuple(Claim(f"x{place}", "a", "b", "m") for place in range(8)))
    assert tabulate(one, 8, outcomes).findings[0].verdict is Verdict.HOLDS
    assert {finding.verdict for finding in tabulate(many, 8, outcomes).findings} == {Verdict.NOT_SHOWN}


@pytest.mark.parametrize(("margin", "expected"), [(0.0, Verdict.REFUTED), (0.4, Verdict.NOT_SHOWN), (2, Verdict.HOLDS)])
def test_a_margin_allows_to_be_a_little_worse(margin: Any, expected: Any) -> None:
    theirs = np.array([80.0, 81, 79, 82, 80])
    ours = theirs - np.array([0.5, 0.3, 0.6, 0.2, 0.5])
    assert verdict(ours, theirs, Claim("x", "a", "b", "m", margin=margin), better="higher") is expected
    assert verdict(theirs, ours, Claim("x", "a", "b", "m", margin=margin), better="lower") is expected


def test_a_relative_margin_is_a_part_of_the_other() -> None:
    theirs = np.array([100.0, 200, 150, 120])
    claim = Claim("x", "a", "b", "m", margin=0.1)
    assert verdict(theirs * 1.05, theirs, claim, relative=True) is Verdict.HOLDS
    assert verdict(theirs * 1.2, theirs, claim, relative=True) is Verdict.REFUTED
    assert verdict(theirs * 0.95, theirs, claim, relative=True, better="higher") is Verdict.HOLDS


def test_no_difference_at_all_is_not_a_gain() -> None:
    same = [1.0, 2.0, 3.0]
    assert verdict(same, same, Claim("x", "a", "b", "m")) is Verdict.NOT_SHOWN
    assert verdict(same, same, Claim("x", "a", "b", "m", margin=0.1)) is Verdict.HOLDS


def test_what_was_not_run_is_not_shown() -> None:
    assert verdict([1.0], [2.0], Claim("x", "a", "b", "m")) is Verdict.NOT_SHOWN
    assert verdict([1.0, 2], [2.0, 3], Claim("x", "nobody", "b", "m")) is Verdict.NOT_SHOWN


def test_seeds_that_are_missing_leave_a_table_incomplete() -> None:
    partial = tabulate(MAIN, 6, OUTCOMES[:10])
    assert not partial.complete
    assert partial.line("rate 1, 1 slots", "fcfs", "jct").value.n == 2
    assert tabulate(MAIN, 6, []).lines == ()


def test_a_row_without_a_promised_column_is_a_defect() -> None:
    with pytest.raises(ValueError, match="part main: a row of 'a' lacks jct, met"):
        tabulate(MAIN, 1, [outcome([{"policy": "a"}])])
