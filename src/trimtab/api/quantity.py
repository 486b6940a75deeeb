"""Kubernetes quantities as numbers."""

from decimal import Decimal

_SUFFIXES = {
    "m": Decimal("0.001"),
    **{letter: Decimal(1000) ** power for power, letter in enumerate("kMGT", start=1)},
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGT", start=1)},
}


def parse_quantity(text: str) -> Decimal:
    """Return the number that a quantity such as `100m`, `4` or `8Gi` stands for, in cores or bytes.

    Raises:
        ValueError: the text is no quantity.
    """
    for suffix in (text[-2:], text[-1:]):
        if suffix in _SUFFIXES:
            return _number(text, text.removesuffix(suffix)) * _SUFFIXES[suffix]
    return _number(text, text)


def _number(text: str, digits: str) -> Decimal:
    if not (digits.isascii() and digits.replace(".", "", 1).isdecimal()):
        raise ValueError(f"{text!r} is no quantity: write a number such as 100m, 4 or 8Gi")
    return Decimal(digits)
