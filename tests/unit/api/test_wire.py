"""Records on the wire: leniency, names, lists that are maps, quantities."""

import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.support.objects import CASES, Case
from trimtab.api import ServingPool
from trimtab.api.common import Selector
from trimtab.api.errors import field_errors
from trimtab.api.quantity import parse_quantity


def _pool(**changes: Any) -> dict[str, Any]:
    return Case("ServingPool", "", changes).document()


def test_a_live_object_may_have_fields_that_this_version_does_not_know() -> None:
    document = _pool(**{"spec.hologram": {"depth": 3}, "metadata.managedFields": [], "status": {"mood": "good"}})
    assert ServingPool.model_validate(document).spec.replicas == 1


def test_check_ignores_metadata_that_is_not_ours_to_check() -> None:
    document = _pool(**{"metadata.managedFields": [], "metadata.generateName": "x-"})
    assert ServingPool.check(document).metadata.name == "sample"


def test_a_list_item_without_api_version_and_kind_parses() -> None:
    document = _pool()
    del document["apiVersion"], document["kind"]
    assert ServingPool.model_validate(document).kind == "ServingPool"


def test_an_object_of_another_kind_does_not_parse() -> None:
    with pytest.raises(ValidationError, match="ServingPool"):
        ServingPool.model_validate(_pool(kind="PowerDomain"))


def test_objects_are_frozen() -> None:
    pool = ServingPool.model_validate(_pool())
    with pytest.raises(ValidationError, match="frozen"):
        pool.spec.replicas = 3  # type: ignore[misc]


def test_words_with_capitals_keep_them_on_the_wire() -> None:
    names = {"airflowCFM", "hottestGPUCelsius", "promQL", "quotaMBps", "minClockMHz", "minMbps", "gpuCelsius"}
    from trimtab.api import crd  # the generated text is the wire's truth

    text = "".join(crd.files().values())
    assert [name for name in names if f" {name}:" not in text] == []


def test_every_error_names_its_field_in_the_form_of_kubernetes() -> None:
    changes = {"spec.models.1": {"name": "a b"}, "spec.replicas": -1, "spec.odd": 1}
    with pytest.raises(ValidationError) as refusal:
        ServingPool.check(_pool(**changes))
    assert {error.field for error in field_errors(refusal.value)} == {
        "spec.models[1].name",
        "spec.replicas",
        "spec.odd",
    }


def test_all_broken_rules_are_named_at_once() -> None:
    changes = {"spec.scaling": {"policy": "Fixed", "minReplicas": 3, "maxReplicas": 2}}
    crossed = ServingPool.model_validate(_pool(**{"spec.scaling": {"policy": "External"}}))
    assert crossed.spec.scaling.policy == "External"
    document = _pool(**changes | {"spec.targetRef": {"apiVersion": "v1", "kind": "D", "name": "x"}})
    document["spec"].pop("replicas")
    document["spec"]["scaling"] = {"policy": "Fixed"}
    with pytest.raises(ValidationError) as refusal:
        ServingPool.check(document)
    (error,) = field_errors(refusal.value)
    assert "spec.workload: set exactly one" in error.message
    assert "spec.replicas: scaling policy Fixed needs it" in error.message


@pytest.mark.parametrize(
    ("selector", "labels", "matches"),
    [
        ({}, {}, True),
        ({"matchLabels": {"a": "1"}}, {"a": "1", "b": "2"}, True),
        ({"matchLabels": {"a": "1"}}, {"a": "2"}, False),
        ({"matchLabels": {"a": "1"}}, {}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, {"a": "2"}, True),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1"]}]}, {}, False),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, {}, True),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, {"a": "1"}, False),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {"a": ""}, True),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {}, False),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, {}, True),
        (
            {"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "DoesNotExist"}]},
            {"a": "1", "b": "2"},
            False,
        ),
    ],
)
def test_selectors_match_as_kubernetes_does(selector: dict[str, Any], labels: dict[str, str], *, matches: bool) -> None:
    assert Selector.model_validate(selector).matches(labels) is matches


@pytest.mark.parametrize(
    ("text", "number"),
    [("100m", "0.1"), ("4", "4"), ("0.5", "0.5"), ("8Gi", "8589934592"), ("1k", "1000"), ("1.5M", "1500000")],
)
def test_quantities_are_numbers(text: str, number: str) -> None:
    assert parse_quantity(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "m", "two", "1.2.3", "-1", "1 Gi", "1gi", "0x10", "\u0661"])
def test_what_is_no_quantity_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="100m, 4 or 8Gi"):
        parse_quantity(text)


@given(st.integers(0, 10**6), st.sampled_from(["m", "", "k", "Ki", "M", "Mi", "G", "Gi"]))
def test_quantities_with_one_suffix_keep_their_order(number: int, suffix: str) -> None:
    assert parse_quantity(f"{number}{suffix}") < parse_quantity(f"{number + 1}{suffix}")


def test_parsing_a_pool_is_cheap_enough_for_ten_thousand_of_them() -> None:
    """About 20 microseconds on the machine it was written on; the bound leaves room for a slow one."""
    document = next(case for case in CASES if case.title == "everything set").document()
    ServingPool.model_validate(document)
    started = time.process_time()
    for _ in range(500):
        ServingPool.model_validate(document)
    assert (time.process_time() - started) / 500 < 500e-6
