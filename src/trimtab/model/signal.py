"""What was seen, with its age: a missing signal is a value of its own and never zero."""

from dataclasses import dataclass
from typing import Generic, TypeVar

V_co = TypeVar("V_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Signal(Generic[V_co]):
    """One observed value.

    Attributes:
        value: what was seen.
        age_seconds: how long ago it was true.
        coverage: which share of its sources answered, 0 to 1.
    """

    value: V_co
    age_seconds: float
    coverage: float = 1.0

    def is_fresh(self, bound_seconds: float) -> bool:
        """Return whether the value is young enough to act on."""
        return self.age_seconds <= bound_seconds
