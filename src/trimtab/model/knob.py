"""A knob: one field of one object that policies may turn. Each has one writer, the arbiter."""

from dataclasses import dataclass

from trimtab.model.ref import Ref

REPLICAS = "replicas"


@dataclass(frozen=True, slots=True, order=True)
class Knob:
    """One field of one object.

    Attributes:
        object: whose field it is.
        field: the field's short name, e.g. `replicas`.
    """

    object: Ref
    field: str

    def __str__(self) -> str:
        """Return `Kind/namespace/name.field`."""
        return f"{self.object}.{self.field}"


@dataclass(frozen=True, slots=True)
class Bounds:
    """The closed interval that a knob's value stays in, whoever asks; `None` leaves a side open."""

    low: int | None = None
    high: int | None = None

    def clip(self, value: int) -> int:
        """Return the value of the interval that is nearest to `value`; where the sides cross, `high` wins."""
        if self.low is not None:
            value = max(value, self.low)
        if self.high is not None:
            value = min(value, self.high)
        return value

    def within(self, outer: "Bounds") -> "Bounds":
        """Return the part of these bounds that `outer` allows; where they do not meet, the nearest edge of `outer`."""
        low = outer.low if self.low is None else outer.clip(self.low)
        high = outer.high if self.high is None else outer.clip(self.high)
        return Bounds(low, high)
