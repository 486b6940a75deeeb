"""One seed of each table of the experiment `qlm`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from trimtab.decide.queueing.oracle import Oracle
from trimtab.decide.queueing.qlm import Qlm
from trimtab.sim.experiment import Row, Setting
from trimtab.sim.models_runs import BASELINES, LATE_LAST, POLICIES, QLM, Site, compare, run
from trimtab.sim.models_settings import (
    BATCH_1_SECONDS,
    BATCH_2_SECONDS,
    SEVERAL_REQUESTS,
    SINGLE_REQUESTS,
    mega_workload,
    mixed_site,
    several_site,
    several_workload,
    single_site,
    single_workload,
)

NO_ISOLATION = replace(QLM, name="QLM without isolation", mega_tokens=None)
NO_EVICTION = replace(QLM, name="without eviction", evicts=False, makes_room=False)
NO_SWAPPING = replace(QLM, name="without swapping")
NO_BALANCING = replace(QLM, name="without balancing", balances=False, plan=Qlm(payback=1e9))
NO_GROUPING = replace(QLM, name="without grouping", group_batches=0.0)
ORACLE = replace(QLM, name="integer program", plan=Oracle(), on_timer=False)


def _number(setting: Setting, name: str) -> float:
    value = setting.values[name]
    assert isinstance(value, int | float), f"{name} is a number"
    return float(value)


def _requests(setting: Setting, usual: int) -> int:
    return int(setting.values.get("requests") or usual)


def run_several(seed: int, setting: Setting, data: Path | None) -> Sequence[Row]:
    """Several models on machines that must swap them, under every policy."""
    del data
    site = several_site(
        _number(setting, "swap_seconds"), float(setting.values.get("batch_2_seconds") or BATCH_2_SECONDS)
    )
    rate = _number(setting, "load") * site.capacity()
    requests = _requests(setting, SEVERAL_REQUESTS)
    arrivals = several_workload().arrivals(seed, requests, rate)
    return compare(POLICIES, site, arrivals, requests / rate + BATCH_2_SECONDS)


def run_single(seed: int, setting: Setting, data: Path | None) -> Sequence[Row]:
    """One model with three service levels, under every policy."""
    del data
    site = single_site()
    rate = _number(setting, "load") * site.capacity()
    requests = _requests(setting, SINGLE_REQUESTS)
    arrivals = single_workload().arrivals(seed, requests, rate)
    return compare(POLICIES, site, arrivals, requests / rate + BATCH_1_SECONDS)


def run_mega(seed: int, setting: Setting, data: Path | None) -> Sequence[Row]:
    """Very long prompts among others, in groups of their own and not."""
    del data
    site = single_site()
    rate = _number(setting, "load") * site.capacity()
    requests = _requests(setting, SINGLE_REQUESTS)
    arrivals = mega_workload(_number(setting, "mega_share")).arrivals(seed, requests, rate)
    return compare((BASELINES[0], LATE_LAST, NO_ISOLATION, QLM), site, arrivals, requests / rate + BATCH_1_SECONDS)


def run_ablation(seed: int, setting: Setting, data: Path | None) -> Sequence[Row]:
    """QLM on the several-model workload, each time with one operation less."""
    del data
    site = several_site(_number(setting, "swap_seconds"))
    rate = _number(setting, "load") * site.capacity()
    requests = _requests(setting, SEVERAL_REQUESTS)
    arrivals = several_workload().arrivals(seed, requests, rate)
    until = requests / rate + BATCH_2_SECONDS
    rows = compare((QLM, NO_EVICTION, NO_BALANCING, NO_GROUPING), site, arrivals, until)
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
    rate = _number(setting, "load") * site.capacity()
    requests = _requests(setting, 200)
    workload = several_workload()
    smaller = {level: replace(demand, job_size=demand.job_size / 5) for level, demand in workload.demands.items()}
    arrivals = replace(workload, demands=smaller).arrivals(seed, requests, rate)
    return compare((*BASELINES, QLM, ORACLE), site, arrivals, requests / rate + BATCH_2_SECONDS)


def run_mixed(seed: int, setting: Setting, data: Path | None) -> Sequence[Row]:
    """Fast and slow machines for one model; `fast` is the part of all requests that the fast ones served, in %."""
    del data
    site = mixed_site(_number(setting, "slowdown"))
    rate = _number(setting, "load") * site.capacity()
    requests = _requests(setting, SINGLE_REQUESTS)
    arrivals = single_workload().arrivals(seed, requests, rate)
    rows = compare(POLICIES, site, arrivals, requests / rate + BATCH_1_SECONDS)
    return [{**row, "fast": float(row["share_fast-0"] or 0) + float(row["share_fast-1"] or 0)} for row in rows]
