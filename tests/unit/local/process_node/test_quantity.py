from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.local.process_node import quantity


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("0", "0"),
        ("2", "2"),
        ("100m", "0.1"),
        ("1500u", "0.0015"),
        ("1.5", "1.5"),
        ("64Mi", str(64 * 2**20)),
        ("1.5Gi", str(3 * 2**29)),
        ("2k", "2000"),
        ("3E", "3e18"),
        ("1e3", "1000"),
        ("1E3", "1000"),
        ("-5", "-5"),
        (4, "4"),
    ],
)
def test_a_quantity_is_its_exact_amount(text: str | int, amount: str) -> None:
    assert quantity.parse(text) == Decimal(amount)


@pytest.mark.parametrize("text", ["", "m", "1.2.3", "5 Gi", "1Kb", "ten", "1e", "Mi"])
def test_what_is_no_quantity_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        quantity.parse(text)


@pytest.mark.parametrize(
    ("text", "divisor", "units"),
    [("250m", "1", 1), ("250m", "1m", 250), ("250m", "0", 1), ("100Mi", "1Mi", 100), ("1", "0", 1), ("1500m", "1", 2)],
)
def test_units_of_a_divisor_are_rounded_up(text: str, divisor: str, units: int) -> None:
    assert quantity.divide(text, divisor) == units


@given(st.lists(st.dictionaries(st.sampled_from(["cpu", "memory", "gpu"]), st.decimals(0, 1000, places=3)), max_size=5))
def test_the_sum_is_at_least_the_largest(amounts: list[dict[str, Decimal]]) -> None:
    total, largest = quantity.total(amounts), quantity.largest(amounts)

    assert total.keys() == largest.keys()
    assert all(total[resource] >= largest[resource] for resource in total)
