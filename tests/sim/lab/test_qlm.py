"""The experiment on queues of several models: small runs of each table, and the choice of loads."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from trimtab.sim.experiment import Row, Setting
from trimtab.sim.experiments.qlm import EXPERIMENT
from trimtab.sim.models_pilot import PILOT_SEEDS, find_load
from trimtab.sim.models_settings import LOADS, SWAPS

PARTS = {part.name: part for part in EXPERIMENT.parts()}
SMALL = {"rates": 80, "swaps": 700, "hour": 80, "mega": 60, "ablation": 80, "oracle": 40, "mixed": 80}


def small(name: str) -> tuple[Setting, Sequence[Row]]:
    setting = PARTS[name].settings[-1]
    setting = replace(setting, values={**setting.values, "requests": SMALL[name]})
    return setting, PARTS[name].run(7, setting, None)


@pytest.mark.parametrize("name", SMALL)
def test_each_row_has_the_metrics_and_claims_speak_of_its_policies(name: str) -> None:
    part = PARTS[name]
    _, rows = small(name)
    policies = [row["policy"] for row in rows]
    assert len(set(policies)) == len(policies)
    for row in rows:
        assert all(isinstance(row[metric.name], float | None) for metric in part.metrics)
        assert isinstance(row["attained"], float)
    assert part.baseline in policies
    for claim in part.claims:
        assert {claim.policy, claim.against} <= set(policies)
        assert claim.metric in {metric.name for metric in part.metrics}
        assert set(claim.settings) <= {setting.name for setting in part.settings}


def test_levels_make_up_the_whole() -> None:
    _, rows = small("swaps")
    for row in rows:
        classes = [float(row["batch_1"] or 0.0), float(row["batch_2"] or 0.0)]
        assert row["worst"] == min(classes)
        assert min(classes) <= float(row["attained"] or 0.0) <= max(classes)


def curve(knee: float) -> Callable[[float], float]:
    return lambda load: 100.0 - 10.0 * load / knee


def test_the_pilot_finds_the_load_that_keeps_ninety_percent() -> None:
    assert find_load(curve(0.4), 0.05, 1.3, steps=20) == pytest.approx(0.4, abs=1e-4)


def test_pilot_seeds_are_never_reported() -> None:
    assert min(PILOT_SEEDS) >= 1_000_000
    assert max(part.seeds or EXPERIMENT.seeds for part in PARTS.values()) < min(PILOT_SEEDS)


def test_every_swap_time_has_its_load() -> None:
    assert set(LOADS) == set(SWAPS)
    assert [LOADS[swap] for swap in SWAPS] == sorted(LOADS.values(), reverse=True), "swaps take capacity"
