"""The three ports through which decisions meet the world. Each has a real and a simulated implementation."""

from typing import Protocol, TypeVar

Seen_co = TypeVar("Seen_co", covariant=True)
Act_contra = TypeVar("Act_contra", contravariant=True)
Done_co = TypeVar("Done_co", covariant=True)


class Clock(Protocol):
    """Time, in seconds since the epoch of the clock's own choosing (Unix time in production)."""

    def now(self) -> float:
        """Return the current time in seconds."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` of this clock's time."""


class Telemetry(Protocol[Seen_co]):
    """What can be seen of the world."""

    async def snapshot(self) -> Seen_co:
        """Return one consistent view; every signal in it carries its age."""


class Actuator(Protocol[Act_contra, Done_co]):
    """What can be done to the world."""

    async def apply(self, action: Act_contra) -> Done_co:
        """Carry out one action, or say why not; never raise for a refusal."""
