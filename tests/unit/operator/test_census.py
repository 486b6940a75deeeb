from typing import TYPE_CHECKING, cast

from tests.support.clocks import FakeClock
from tests.support.operators import a_pool
from trimtab.kube.resources import POWER_DOMAINS
from trimtab.obs.metrics import OperatorMetrics
from trimtab_operator.census import take_census
from trimtab_operator.events import Events
from trimtab_operator.handlers.kinds import take_placeholder, take_pool
from trimtab_operator.pulse import Pulse
from trimtab_operator.runtime import Runtime
from trimtab_operator.settings import OperatorSettings

if TYPE_CHECKING:
    from trimtab.kube import Kube


def a_runtime() -> Runtime:
    clock, metrics, kube = FakeClock(), OperatorMetrics(), cast("Kube", None)  # nothing is sent
    return Runtime(OperatorSettings(), kube, clock, metrics, Events(kube, clock, metrics), Pulse(30))


def see(runtime: Runtime, name: str, happened: str = "ADDED", reason: str = "") -> None:
    pool = a_pool(name, "ai", replicas=1)
    pool["metadata"] |= {"uid": f"u-{name}", "generation": 1, "resourceVersion": "1"}
    if reason:
        ready = {"type": "Ready", "status": "False", "reason": reason, "message": "", "lastTransitionTime": "x"}
        pool["status"] = {"conditions": [ready]}
    take_pool(runtime.store, happened, pool)


def counted(runtime: Runtime, name: str, **labels: str) -> float | None:
    return runtime.metrics.registry.get_sample_value(name, labels)


def test_objects_of_every_kind_are_counted_and_what_is_gone_is_no_longer() -> None:
    runtime = a_runtime()
    for name in ("a", "b"):
        see(runtime, name)
    domain = {"metadata": {"name": "row-1", "uid": "u-1", "generation": 1}}
    take_placeholder(runtime.store, POWER_DOMAINS, "ADDED", domain)
    take_census(runtime)
    assert counted(runtime, "trimtab_operator_objects", kind="ServingPool") == 2
    assert counted(runtime, "trimtab_operator_objects", kind="PowerDomain") == 1
    assert counted(runtime, "trimtab_operator_objects", kind="SharedBudget") == 0
    see(runtime, "a", "DELETED")
    take_placeholder(runtime.store, POWER_DOMAINS, "DELETED", domain)
    take_census(runtime)
    assert counted(runtime, "trimtab_operator_objects", kind="ServingPool") == 1
    assert counted(runtime, "trimtab_operator_objects", kind="PowerDomain") == 0


def test_pools_are_counted_by_the_reason_of_ready_and_unknown_reasons_are_one() -> None:
    runtime = a_runtime()
    for name, reason in (("a", "NameTaken"), ("b", "NameTaken"), ("c", ""), ("d", "Made"), ("e", "Up")):
        see(runtime, name, reason=reason)
    take_census(runtime)
    pools = "trimtab_operator_pools"
    counts = [counted(runtime, pools, reason=reason) for reason in ("NameTaken", "", "Other", "Made")]
    assert counts == [2, 1, 2, None]
    see(runtime, "a", "DELETED")
    see(runtime, "b", "DELETED")
    take_census(runtime)
    assert counted(runtime, pools, reason="NameTaken") == 0
