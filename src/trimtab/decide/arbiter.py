"""One writer per knob: of all that policies want of one knob, the value that is written, and who had to give way.

Precedence is safety, then budget, then service levels, then efficiency. A higher class narrows the interval that
lower classes may choose from. Within a class the stricter limit wins: the lowest upper limit, the highest lower one,
and where the two cross, the upper one. Among exact values of one class the larger wins for service levels, which
protect users, and the smaller elsewhere, which protects the machines.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby

from trimtab.model.decision import Precedence, Sense, Want
from trimtab.model.knob import Bounds, Knob


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the arbiter decided about one knob.

    Attributes:
        knob: which one.
        value: what is to be written; None when only limits are wanted and nothing asks for a value.
        allowed: the interval that the bounds and the limits of the winner's class and above leave.
        winner: the want whose value is written, possibly clipped; None when nobody asked for a value.
        losers: the wants that are not met by `value`, in order of precedence.
    """

    knob: Knob
    value: int | None
    allowed: Bounds
    winner: Want | None
    losers: tuple[Want, ...]


def arbitrate(wants: Iterable[Want], bounds: Mapping[Knob, Bounds] | None = None) -> tuple[Ruling, ...]:
    """Return one ruling for each knob that is wanted, sorted by knob; the order of `wants` does not matter.

    Args:
        wants: what all policies want, several per knob or policy allowed.
        bounds: limits of each knob that nobody passes, whatever their class.
    """
    limits = bounds or {}
    ordered = sorted(wants, key=_order)
    return tuple(
        _rule(knob, tuple(group), limits.get(knob, Bounds()))
        for knob, group in groupby(ordered, lambda want: want.knob)
    )


def _order(want: Want) -> tuple[Knob, Precedence, str, str, int, str]:
    reason = want.reason
    return (
        want.knob,
        want.precedence,
        want.policy,
        want.sense,
        want.value,
        f"{reason.code}{reason.numbers}{reason.words}",
    )


def _rule(knob: Knob, wants: tuple[Want, ...], allowed: Bounds) -> Ruling:
    winner: Want | None = None
    value: int | None = None
    for precedence, members in groupby(wants, lambda want: want.precedence):
        group = tuple(members)
        allowed = _limits(group).within(allowed)
        winner = _strictest(precedence, group)
        if winner is not None:  # limits of lower classes do not bind a value that a higher class chose
            value = allowed.clip(winner.value)
            break
    return Ruling(knob, value, allowed, winner, tuple(want for want in wants if not _is_met(want, value, allowed)))


def _limits(group: tuple[Want, ...]) -> Bounds:
    low = max((want.value for want in group if want.sense is Sense.AT_LEAST), default=None)
    high = min((want.value for want in group if want.sense is Sense.AT_MOST), default=None)
    if low is not None and high is not None and low > high:
        low = high
    return Bounds(low, high)


def _strictest(precedence: Precedence, group: tuple[Want, ...]) -> Want | None:
    exact = [want for want in group if want.sense is Sense.EXACTLY]
    if not exact:
        return None
    choose = max if precedence is Precedence.SLO else min
    return choose(exact, key=lambda want: want.value)


def _is_met(want: Want, value: int | None, allowed: Bounds) -> bool:
    if value is not None:
        met = {
            Sense.EXACTLY: value == want.value,
            Sense.AT_LEAST: value >= want.value,
            Sense.AT_MOST: value <= want.value,
        }
        return met[want.sense]
    if want.sense is Sense.AT_LEAST:
        return allowed.low is not None and allowed.low >= want.value
    return want.sense is Sense.AT_MOST and allowed.high is not None and allowed.high <= want.value
