import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.objects import MINIMAL
from trimtab.api import PowerDomain, ServingPool, declared, keys
from trimtab.model.power import Demand, Derate, PodFacts

DATA = Path(__file__).parents[2] / "data" / "extender"


def a_power_domain(**spec: Any) -> PowerDomain:
    metadata = {"name": "row-1", "creationTimestamp": "2026-01-01T00:00:00Z"}
    return PowerDomain.model_validate({"metadata": metadata, "spec": MINIMAL["PowerDomain"] | spec})


def a_pool(*models: dict[str, Any]) -> ServingPool:
    return ServingPool.model_validate(
        {"metadata": {"name": "chat", "namespace": "ai"}, "spec": MINIMAL["ServingPool"] | {"models": list(models)}}
    )


def a_model(name: str, *variants: dict[str, int | None]) -> dict[str, Any]:
    """A model whose variants draw so many watts by accelerator; None: a profile that does not say."""
    return {
        "name": name,
        "variants": [
            {
                "name": f"v{index}",
                "profiles": [
                    {"accelerator": accelerator} | ({} if watts is None else {"watts": {"idle": 0, "busy": watts}})
                    for accelerator, watts in draws.items()
                ],
            }
            for index, draws in enumerate(variants)
        ],
    }


def test_a_domain_has_the_margin_that_the_schema_defaults_to() -> None:
    domain = declared.domain(a_power_domain())
    assert (domain.name, domain.level, domain.parent) == ("row-1", "Row", "")
    assert domain.usable_watts(0.0) == 171_000
    assert domain.created == 1_767_225_600.0
    assert domain.nodes.matches({"app": "shop"})
    assert not domain.nodes.matches({})


@pytest.mark.parametrize(("mode", "enforced"), [("Observe", False), ("Propose", False), ("Enforce", True)])
def test_only_mode_enforce_turns_pods_away(mode: str, enforced: bool) -> None:
    assert declared.domain(a_power_domain(mode=mode)).enforced is enforced


def test_a_domain_may_have_no_power_limit() -> None:
    assert declared.domain(a_power_domain(limits={"inletCelsius": 27})).usable_watts(0.0) is None


def test_a_derate_of_air_is_no_derate_of_power() -> None:
    limits = {"powerWatts": 1000, "airflowCFM": 10}
    cut = {"airflowPercent": 50, "reason": "fan lost"}
    assert declared.domain(a_power_domain(limits=limits, derate=cut)).derate is None


def test_a_derate_may_have_an_end() -> None:
    cut = {"powerPercent": 75, "reason": "UPS lost", "until": "2026-01-01T01:00:00+01:00"}
    assert declared.domain(a_power_domain(derate=cut)).derate == Derate(75, 1_767_225_600.0)


def test_the_hungriest_variant_of_any_model_counts() -> None:
    pool = a_pool(a_model("llama", {"h100": 2600, "l4": 70}, {"h100": 1300}), a_model("mistral", {"h100": 900}))
    assert declared.demand(pool) == Demand({"h100": 2600, "l4": 70}, elsewhere=2600)


def test_a_pool_without_watts_declares_nothing() -> None:
    for pool in (a_pool({"name": "llama"}), a_pool(a_model("llama", {"h100": None}))):
        demand = declared.demand(pool)
        assert not demand.declared
        assert demand.watts_on("h100") is None


def test_an_accelerator_without_a_profile_draws_the_highest_of_the_others() -> None:
    demand = declared.demand(a_pool(a_model("llama", {"h100": 2600, "l4": 70})))
    assert [demand.watts_on(accelerator) for accelerator in ("l4", "b200", "")] == [70, 2600, 2600]


@pytest.mark.parametrize(
    ("text", "watts"),
    [
        (None, None),
        ("700", 700),
        ("0", 0),
        ("1000000", 1_000_000),
        ("0000700", 700),
        ("1000001", None),
        ("99999999999999999999", None),
        ("", None),
        ("-1", None),
        ("700W", None),
        ("700.5", None),
        ("7e2", None),
        ("\u0667\u0660\u0660", None),
        ("nan", None),
    ],
)
def test_watts_are_a_whole_number_or_nothing(text: str | None, watts: int | None) -> None:
    assert declared.watts(text) == watts


def test_what_is_known_of_a_recorded_pod_of_a_pool() -> None:
    pod = json.loads((DATA / "filter-12.json").read_bytes())["Pod"]
    metadata = pod["metadata"]
    expected = PodFacts(metadata["uid"], "default", metadata["name"], None, ("default", "chat"))
    assert declared.pod_facts(pod) == expected
    assert declared.is_sent(pod)
    assert not declared.has_claims(pod)
    assert not declared.has_ended(pod)


def test_what_is_known_of_a_recorded_pod_that_opted_in() -> None:
    pod = json.loads((DATA / "filter-opted-in.json").read_bytes())["Pod"]
    assert declared.pod_facts(pod).watts == 350
    assert declared.is_sent(pod)


def test_an_init_container_is_enough_to_be_sent() -> None:
    assert declared.is_sent(json.loads((DATA / "filter-init-only.json").read_bytes())["Pod"])


@pytest.mark.parametrize("section", ["requests", "limits"])
@pytest.mark.parametrize("resource", [*keys.ACCELERATOR_RESOURCES, keys.PLACEMENT_RESOURCE])
def test_each_managed_resource_is_enough_to_be_sent(section: str, resource: str) -> None:
    assert declared.is_sent({"spec": {"containers": [{"name": "c", "resources": {section: {resource: "1"}}}]}})


@pytest.mark.parametrize(
    "spec", [{}, {"containers": []}, {"containers": [{"name": "c"}]}, {"containers": [{"resources": None}]}]
)
def test_other_pods_are_not_sent(spec: dict[str, Any]) -> None:
    assert not declared.is_sent({"spec": spec})
    assert not declared.is_sent({})


def test_a_sparse_pod_is_read() -> None:
    assert declared.pod_facts({"metadata": {}}) == PodFacts("", "", "")


def test_where_a_pod_is_bound_or_meant_to_be() -> None:
    pod = {
        "metadata": {"uid": "u", "name": "p", "namespace": "ai"},
        "spec": {"nodeName": "n1"},
        "status": {"nominatedNodeName": "n2", "phase": "Succeeded"},
    }
    facts = declared.pod_facts(pod)
    assert (facts.node, facts.nominated) == ("n1", "n2")
    assert declared.has_ended(pod)
