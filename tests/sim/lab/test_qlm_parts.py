"""The parts of the experiment `qlm` that need no world: planners against each other, and estimates of the wait."""

import pytest

from trimtab.decide.queueing.plan import cost
from trimtab.decide.queueing.planner import earliest_deadline_first
from trimtab.sim.experiment import Part, Setting
from trimtab.sim.experiments import qlm_planner, qlm_waiting

PILOT = 1_000_000


def by_policy(part: Part, setting: Setting, seed: int = PILOT) -> dict[str, dict]:
    return {str(row["policy"]): dict(row) for row in part.run(seed, setting, None)}


@pytest.mark.parametrize("part", [qlm_planner.PART, qlm_waiting.PART], ids=lambda part: part.name)
def test_a_seed_gives_the_same_rows_again_and_another_one_others(part: Part) -> None:
    setting = part.settings[0]
    assert part.run(PILOT, setting, None) == part.run(PILOT, setting, None)
    assert part.run(PILOT, setting, None) != part.run(PILOT + 1, setting, None)


@pytest.mark.parametrize("part", [qlm_planner.PART, qlm_waiting.PART], ids=lambda part: part.name)
def test_rows_have_the_metrics_and_claims_name_what_there_is(part: Part) -> None:
    policies = set()
    for setting in part.settings[:3]:
        rows = by_policy(part, setting)
        policies |= set(rows)
        assert all({metric.name for metric in part.metrics} <= set(row) for row in rows.values())
    names = {setting.name for setting in part.settings}
    for claim in part.claims:
        assert {claim.policy, claim.against} <= policies
        assert set(claim.settings) <= names
    for setting_name, policy, metric in part.expected or {}:
        assert (setting_name in names, policy in policies) == (True, True)
        assert metric in {metric.name for metric in part.metrics}


def test_problems_are_overloaded_so_that_planners_differ() -> None:
    for seed in range(PILOT, PILOT + 20):
        problem = qlm_planner.draw(seed, 8, 2)
        assert cost(problem, earliest_deadline_first(problem)).penalty > 10


@pytest.mark.parametrize("setting", qlm_planner.SMALL[:2], ids=lambda setting: setting.name)
def test_exact_planners_agree_and_nobody_is_better(setting: Setting) -> None:
    for seed in range(PILOT, PILOT + 3):
        rows = by_policy(qlm_planner.PART, setting, seed)
        program, every = rows[qlm_planner.PROGRAM], rows[qlm_planner.ALL]
        assert program["proved"] == every["proved"] == 100.0
        assert program["penalty"] == pytest.approx(every["penalty"], abs=0.01)
        assert every["excess"] == 0.0
        assert min(row["penalty"] for row in rows.values()) == every["penalty"]


def test_more_work_gives_better_plans_of_a_large_problem() -> None:
    rows = by_policy(qlm_planner.PART, qlm_planner.LARGE[0])
    assert qlm_planner.ALL not in rows
    order = (qlm_planner.TWELVE, qlm_planner.ONE, qlm_planner.GREEDY, qlm_planner.EDF)
    penalties = [rows[policy]["penalty"] for policy in order]
    assert penalties == sorted(penalties)
    assert penalties[0] < penalties[-1]
    assert [rows[policy]["work"] for policy in order] == sorted(
        (rows[policy]["work"] for policy in order), reverse=True
    )


def test_the_published_table_of_waits_repeats_for_requests_that_have_just_begun() -> None:
    for setting in qlm_waiting.FRESH[2:]:
        rows = [by_policy(qlm_waiting.PART, setting, seed)[qlm_waiting.RATE] for seed in range(PILOT, PILOT + 3)]
        published = (qlm_waiting.PART.expected or {})[setting.name, qlm_waiting.RATE, "waited"]
        assert sum(row["waited"] for row in rows) / len(rows) == pytest.approx(published, rel=0.05)


def test_the_rate_has_no_bias_in_the_steady_state() -> None:
    for setting in qlm_waiting.STEADY:
        rows = [by_policy(qlm_waiting.PART, setting, seed)[qlm_waiting.RATE] for seed in range(PILOT, PILOT + 5)]
        assert sum(row["error"] for row in rows) / len(rows) == pytest.approx(0.0, abs=7.0)
