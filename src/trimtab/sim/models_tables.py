"""One seed of each table of the experiment `qlm`."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from trimtab.decide.queueing import edf
from trimtab.decide.queueing.mean_length import MeanLengths
from trimtab.decide.queueing.oracle import Oracle
from trimtab.decide.queueing.qlm import Qlm
from trimtab.sim.experiment import Cell, Row, Setting
from trimtab.sim.models_runs import BASELINES, LATE_LAST, POLICIES, QLM, SWAP_BATCHING, Site, compare, run
from trimtab.sim.models_settings import (
    BATCH_1_SECONDS,
    BATCH_2_SECONDS,
    HOUR_ARRIVAL_SECONDS,
    HOUR_SECONDS,
    SEVERAL_REQUESTS,
    SINGLE_REQUESTS,
    hour_horizon,
    hour_site,
    hour_workload,
    mega_workload,
    mixed_site,
    several_site,
    several_workload,
    single_site,
    single_workload,
)
from trimtab.sim.models_workload import Workload
from trimtab.sim.models_world import Arrival

NO_ISOLATION = replace(QLM, name="QLM without isolation", mega_tokens=None)
NO_EVICTION = replace(QLM, name="without eviction", evicts=False, makes_room=False)
NO_SWAPPING = replace(QLM, name="without swapping")
NO_BALANCING = replace(QLM, name="without balancing", balances=False, plan=Qlm(payback=1e9))
NO_GROUPING = replace(QLM, name="without grouping", group_batches=0.0)
EDF_PLAN = replace(QLM, name="with the plan of EDF", plan=edf.plan)
NEW_GROUPS = replace(QLM, name="QLM, planned at new groups", on_timer=False, judge_start=False)
WITH_PROGRAM = "QLM with integer program"
NEVER_LEARNS = 1e9
"""As how many answers a mean counts that is not to change."""


def _number(setting: Setting, name: str) -> float:
    value = setting.values[name]
    assert isinstance(value, int | float), f"{name} is a number"
    return float(value)


def _rate(setting: Setting, site: Site) -> float:
    return _number(setting, "load") * site.capacity()


def _drawn(seed: int, setting: Setting, site: Site, workload: Workload, usual: int) -> tuple[list[Arrival], float]:
    """Draw requests at the setting's load, `usual` of them unless it says how many; with the seconds that they take."""
    rate = _rate(setting, site)
    requests = int(setting.values.get("requests") or usual)
    return workload.arrivals(seed, requests, rate), requests / rate


def run_several(seed: int, setting: Setting, data: Path | None) -> Sequence[Row]:
    """Several models on machines that must swap them, under every policy."""
    del data
    site = several_site(_number(setting, "swap_seconds"))
    arrivals, seconds = _drawn(seed, setting, site, several_workload(), SEVERAL_REQUESTS)
    return compare(POLICIES, site, arrivals, seconds + BATCH_2_SECONDS)


def run_hour(seed: int, setting: Setting, data: Path | None) -> Sequence[Row]:
    """Several models and long answers, with an hour for the large jobs."""
    del data
    site = hour_site(_number(setting, "swap_seconds"))
    usual = round(_rate(setting, site) * HOUR_ARRIVAL_SECONDS)
    arrivals, _ = _drawn(seed, setting, site, hour_workload(), usual)
    return compare((*BASELINES, NEW_GROUPS), site, arrivals, hour_horizon())


def run_estimates(seed: int, setting: Setting, data: Path | None) -> Sequence[Row]:
    """Several models, with a queue that takes machines or answers for something else than they are."""
    del data
    site = several_site(_number(setting, "swap_seconds"))
    arrivals, seconds = _drawn(seed, setting, site, several_workload(), SEVERAL_REQUESTS)
    wrong = _wrongly_known(site, _number(setting, "speeds"), _number(setting, "lengths"))
    return compare((LATE_LAST, SWAP_BATCHING, QLM), wrong, arrivals, seconds + BATCH_2_SECONDS)


def _wrongly_known(site: Site, speeds: float, lengths: float) -> Site:
    """The same machines, taken to be so many times as fast, for answers taken to be so many times as long."""
    known = {name: (replace(kind, believed=speeds), resident) for name, (kind, resident) in site.machines.items()}
    return replace(site, machines=known, lengths=partial(MeanLengths, lengths * site.mean_answer, NEVER_LEARNS))


def run_single(seed: int, setting: Setting, data: Path | None) -> Sequence[Row]:
    """One model with three service levels, under every policy."""
    del data
    site = single_site()
    arrivals, seconds = _drawn(seed, setting, site, single_workload(), SINGLE_REQUESTS)
    return compare(POLICIES, site, arrivals, seconds + HOUR_SECONDS)


def run_mega(seed: int, setting: Setting, data: Path | None) -> Sequence[Row]:
    """Very long prompts among others, in groups of their own and not."""
    del data
    site = single_site()
    workload = mega_workload(_number(setting, "mega_share"))
    arrivals, seconds = _drawn(seed, setting, site, workload, SINGLE_REQUESTS)
    return compare((BASELINES[0], LATE_LAST, NO_ISOLATION, QLM), site, arrivals, seconds + BATCH_1_SECONDS)


def run_ablation(seed: int, setting: Setting, data: Path | None) -> Sequence[Row]:
    """QLM on the several-model workload, each time with one operation less."""
    del data
    site = several_site(_number(setting, "swap_seconds"))
    arrivals, seconds = _drawn(seed, setting, site, several_workload(), SEVERAL_REQUESTS)
    until = seconds + BATCH_2_SECONDS
    rows = compare((QLM, EDF_PLAN, NO_EVICTION, NO_BALANCING, NO_GROUPING), site, arrivals, until)
    return [*rows, run(NO_SWAPPING, _without_swapping(site), arrivals, until)]


def _without_swapping(site: Site) -> Site:
    """The same machines, each of which keeps the model that it holds."""
    kept = {}
    for name, (kind, resident) in site.machines.items():
        assert resident is not None, "every machine holds a model"
        kept[name] = replace(kind, models={resident: kind.models[resident]}), resident
    return replace(site, machines=kept)


def run_oracle(seed: int, setting: Setting, data: Path | None) -> Sequence[Row]:
    """A few jobs on two machines, where the integer program can plan."""
    del data
    site = several_site(_number(setting, "swap_seconds"))
    site = replace(site, machines=dict(list(site.machines.items())[:2]))
    workload = several_workload()
    smaller = {level: replace(demand, job_size=demand.job_size / 5) for level, demand in workload.demands.items()}
    arrivals, seconds = _drawn(seed, setting, site, replace(workload, demands=smaller), 200)
    oracle = Oracle()
    until = seconds + BATCH_2_SECONDS
    rows = compare((*BASELINES, QLM), site, arrivals, until)
    exact = run(replace(QLM, name=WITH_PROGRAM, plan=oracle), site, arrivals, until)
    return [{**row, **_use_of(None)} for row in rows] + [{**exact, **_use_of(oracle)}]


def _use_of(oracle: Oracle | None) -> dict[str, Cell]:
    """Of the plans with a penalty, in %: those that the program solved, proved and bettered."""
    if oracle is None or not oracle.late:
        return dict.fromkeys(("solved", "proved", "bettered"))
    counts = {"solved": oracle.solved, "proved": oracle.proved, "bettered": oracle.better}
    return {name: 100.0 * count / oracle.late for name, count in counts.items()}


def run_mixed(seed: int, setting: Setting, data: Path | None) -> Sequence[Row]:
    """Fast and slow machines for one model; `fast` is the part of all requests that the fast ones served, in %."""
    del data
    site = mixed_site(_number(setting, "slowdown"))
    arrivals, seconds = _drawn(seed, setting, site, single_workload(), SINGLE_REQUESTS)
    rows = compare(POLICIES, site, arrivals, seconds + HOUR_SECONDS)
    return [{**row, "fast": float(row["share_fast-0"] or 0) + float(row["share_fast-1"] or 0)} for row in rows]
