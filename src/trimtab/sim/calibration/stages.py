"""Which stage of a sweep each request belongs to, and in which stages clients wait for answers.

A sweep runs one stage after the other: one client that sends when it has its answer (synchronous), everything at once
(throughput), then constant rates, each higher than the last. A stage begins on an idle engine, because the one before
it has ended. Where the client's own record is there, it says when its stages were; else the arrivals tell:

* Synchronous is the beginning in which nobody arrives while another request is served.
* Throughput is what follows, up to the next idle moment.
* The rest is cut, at idle moments, into stretches that fit a regular beat best (exact, by dynamic programming). A
  missing beat is a request that is not recorded.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np

from trimtab.sim.calibration.recorded import Recorded, RecordedRun

SYNCHRONOUS: Final = "synchronous"
THROUGHPUT: Final = "throughput"
CONCURRENT: Final = "concurrent"
PROMPTLY: Final = 0.25  # seconds after which a client that waited for an answer has sent its next request
SWEEP: Final = "sweep"
_WAITING: Final = frozenset({SYNCHRONOUS, THROUGHPUT, CONCURRENT})
_STRAYED: Final = 0.2  # part of the requests that may be in one record only
_NEW_BEAT: Final = 0.3  # what another stage costs, in beats of misfit
_MISSING_BEAT: Final = 0.02
_MANY_CUTS: Final = 400
_NEARBY: Final = 10
_PAUSE: Final = 1.3  # of the usual gap
_OFF_BEAT: Final = 0.25


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: requests `start` to `stop` of its run.

    Attributes:
        waits: Whether clients send a request when another one has ended.
    """

    name: str
    start: int
    stop: int
    waits: bool = False

    @property
    def chained(self) -> bool:
        """Whether there is one client, which sends each request when the one before has ended."""
        return self.name == SYNCHRONOUS


def stages_of(run: RecordedRun) -> list[Stage]:
    """Return the stages of a run, in order; together they are all its requests, and no two have the same name."""
    named: list[Stage] = []
    for stage in _stages_of(run):
        same = sum(other.name.partition(" (")[0] == stage.name for other in named)
        named.append(replace(stage, name=f"{stage.name} ({same + 1})") if same else stage)
    return named


def _stages_of(run: RecordedRun) -> list[Stage]:
    requests, kind = run.requests, run.setup.rate_type
    if run.client_stages and (said := _by_client(run)):
        return said
    idle = _idle_before(requests)
    if kind == "constant":
        return _beats([request.arrived_at for request in requests], idle, 0)
    if kind != SWEEP:
        return [_named(kind, 0, len(requests))]
    busy = next((i for i in range(1, len(requests)) if not idle[i]), len(requests) + 1)
    first, quiet = busy - 1, next((i for i in range(busy, len(requests)) if idle[i]), len(requests))
    stages = [_named(SYNCHRONOUS, 0, first), _named(THROUGHPUT, first, quiet)]
    stages += _beats([request.arrived_at for request in requests], idle, quiet)
    return [stage for stage in stages if stage.stop > stage.start]


def _named(name: str, start: int, stop: int) -> Stage:
    return Stage(name, start, stop, waits=name in _WAITING)


def _by_client(run: RecordedRun) -> list[Stage]:
    """Cut where the client began its stages; its clock is set by the first request of both records.

    Returns:
        The stages; none where they do not have about as many requests as the client counted, because the two records
        are not of the same requests then.
    """
    starts = [run.first.arrived_at + stage.start - PROMPTLY for stage in run.client_stages]
    arrivals = [request.arrived_at for request in run.requests]
    cuts = [0, *np.searchsorted(arrivals, starts[1:]).tolist(), len(arrivals)]
    stages = [_named(s.name, a, b) for s, (a, b) in zip(run.client_stages, pairwise(cuts), strict=True)]
    counted = [stage.requests for stage in run.client_stages]
    strayed = sum(abs(stage.stop - stage.start - n) for stage, n in zip(stages, counted, strict=True))
    if strayed > _STRAYED * len(arrivals) + 1:
        return []
    return [stage for stage in stages if stage.stop > stage.start]


def _idle_before(requests: Sequence[Recorded]) -> list[bool]:
    """For each request, whether the engine had nothing to do when it arrived."""
    idle, busy_until = [], float("-inf")
    for request in requests:
        idle.append(request.arrived_at > busy_until)
        busy_until = max(busy_until, request.finished_at)
    return idle


def _beats(arrivals: Sequence[float], idle: Sequence[bool], start: int) -> list[Stage]:
    """Cut what begins at `start` into stages of one rate each."""
    if start == len(arrivals):
        return []
    cuts = [start, *_cuts(arrivals, idle, start), len(arrivals)]
    least = [0.0, *[float("inf")] * (len(cuts) - 1)]
    previous = [0] * len(cuts)
    for end in range(1, len(cuts)):
        for begin in range(end):
            cost = least[begin] + _NEW_BEAT + _misfit(np.diff(arrivals[cuts[begin] : cuts[end]]))
            if cost < least[end]:
                least[end], previous[end] = cost, begin
    bounds = [len(cuts) - 1]
    while bounds[-1]:
        bounds.append(previous[bounds[-1]])
    return [_beat(arrivals, cuts[a], cuts[b]) for b, a in reversed(list(pairwise(bounds)))]


def _cuts(arrivals: Sequence[float], idle: Sequence[bool], start: int) -> list[int]:
    """Where a stage may begin: at idle moments; of very many only those after a pause, as there is between stages."""
    cuts = [i for i in range(start + 1, len(arrivals)) if idle[i]]
    if len(cuts) <= _MANY_CUTS:
        return cuts
    gaps = np.diff(arrivals)  # gaps[i - 1] is the one before request i
    usual = [float(np.median(gaps[max(i - 1 - _NEARBY, 0) : i + _NEARBY])) for i in cuts]
    return [i for i, gap in zip(cuts, usual, strict=True) if gaps[i - 1] > _PAUSE * gap]


def _misfit(gaps: np.typing.NDArray[np.float64]) -> float:
    """How far gaps are from whole multiples of their median, in beats."""
    if not gaps.size or (beat := float(np.median(gaps))) <= 0:
        return 0.0
    beats = np.maximum(np.round(gaps / beat), 1)
    return float((np.minimum(np.abs(gaps / beat - beats), _OFF_BEAT) + _MISSING_BEAT * (beats - 1)).sum())


def _beat(arrivals: Sequence[float], start: int, stop: int) -> Stage:
    gaps = np.diff(arrivals[start:stop])
    beat = float(np.median(gaps)) if gaps.size else 0.0
    return Stage(f"constant {1 / beat:.3g}/s" if beat > 0 else "single request", start, stop)
