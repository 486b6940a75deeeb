"""Probe verdicts: thresholds over successive results."""

from dataclasses import dataclass, replace

from trimtab.local.process_node.spec import Probe


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a probe says, and how it came to say so.

    Attributes:
        good: the verdict.
        last: the last single result; None before the first.
        streak: how many results in a row were like the last.
    """

    good: bool
    last: bool | None = None
    streak: int = 0


def observe(probe: Probe, verdict: Verdict, *, succeeded: bool) -> Verdict:
    """Return the verdict after one more result. It turns only when a threshold of equal results is reached."""
    streak = verdict.streak + 1 if succeeded is verdict.last else 1
    threshold = probe.success_threshold if succeeded else probe.failure_threshold
    return replace(verdict, good=succeeded if streak >= threshold else verdict.good, last=succeeded, streak=streak)


def gave_up(probe: Probe, verdict: Verdict) -> bool:
    """Return whether failures in a row have reached the threshold: time to restart the container."""
    return verdict.last is False and verdict.streak >= probe.failure_threshold
