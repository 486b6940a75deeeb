"""Kubernetes quantities as exact decimals: `500m`, `1.5Gi`, `2e3`."""

import re
from collections.abc import Iterable, Mapping
from decimal import ROUND_CEILING, Decimal

_SUFFIXES = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    "k": Decimal(10) ** 3,
    "M": Decimal(10) ** 6,
    "G": Decimal(10) ** 9,
    "T": Decimal(10) ** 12,
    "P": Decimal(10) ** 15,
    "E": Decimal(10) ** 18,
    "Ki": Decimal(2) ** 10,
    "Mi": Decimal(2) ** 20,
    "Gi": Decimal(2) ** 30,
    "Ti": Decimal(2) ** 40,
    "Pi": Decimal(2) ** 50,
    "Ei": Decimal(2) ** 60,
}
_FORM = re.compile(r"([+-]?[0-9.]+)(?:([eE][+-]?[0-9]+)|([numkMGTPE]|[KMGTPE]i)?)")


def parse(text: str | float) -> Decimal:
    """Return the amount that a quantity stands for, in its base unit (cores, bytes, devices).

    Raises:
        ValueError: the text is not a quantity.
    """
    match = _FORM.fullmatch(str(text))
    if match is None:
        raise ValueError(f"{text!r} is not a quantity")
    number, exponent, suffix = match.groups()
    try:
        return Decimal(number + (exponent or "")) * _SUFFIXES[suffix or ""]
    except ArithmeticError as error:
        raise ValueError(f"{text!r} is not a quantity") from error


def divide(text: str, divisor: str) -> int:
    """Return how many divisors a quantity holds, rounded up, as `resourceFieldRef` defines it. `0` divides by one."""
    by = parse(divisor) or Decimal(1)
    return int((parse(text) / by).to_integral_value(ROUND_CEILING))


def total(amounts: Iterable[Mapping[str, Decimal]]) -> dict[str, Decimal]:
    """Return the sum per resource."""
    sums: dict[str, Decimal] = {}
    for amount in amounts:
        for resource, value in amount.items():
            sums[resource] = sums.get(resource, Decimal()) + value
    return sums


def largest(amounts: Iterable[Mapping[str, Decimal]]) -> dict[str, Decimal]:
    """Return the largest amount per resource."""
    most: dict[str, Decimal] = {}
    for amount in amounts:
        for resource, value in amount.items():
            most[resource] = max(most.get(resource, value), value)
    return most
