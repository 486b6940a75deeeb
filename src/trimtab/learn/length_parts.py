"""Which requests train, which calibrate and which judge: cut by time, never by row."""

from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.decide.queueing.lengths import Example

TRAIN, CALIBRATE = 0.6, 0.2
"""Shares of the requests, in order of arrival; the rest, the latest, judges."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Where the requests of one source belong, as indices in order of arrival.

    Attributes:
        train: the earliest ones.
        calibrate: those after them.
        judge: the latest ones.
        left_out: requests of a conversation that began in an earlier part: neither here nor there.
    """

    train: tuple[int, ...]
    calibrate: tuple[int, ...]
    judge: tuple[int, ...]
    left_out: int


def parts_of(examples: Sequence[Example], train: float = TRAIN, calibrate: float = CALIBRATE) -> Parts:
    """Cut `examples`, sorted by arrival.

    A row-wise split would put near-duplicates, e.g. the turns of one conversation, on both sides and flatter every
    predictor. Where conversations are known, none is on two sides.
    """
    ends = (round(train * len(examples)), round((train + calibrate) * len(examples)))
    began: dict[str, int] = {}
    members: tuple[list[int], list[int], list[int]] = ([], [], [])
    left_out = 0
    for index, example in enumerate(examples):
        part = sum(index >= end for end in ends)
        if example.conversation and began.setdefault(example.conversation, part) != part:
            left_out += 1
        else:
            members[part].append(index)
    return Parts(tuple(members[0]), tuple(members[1]), tuple(members[2]), left_out)
