"""Traces made of traces: one after the other, on top of each other, faster, thinner.

Prefix blocks with equal ids hold equal text, so that putting a trace together with another one, or with itself, would
make prefix-cache hits that nobody recorded: each part gets ids of its own. That clients have the same name does no
harm, and stays.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from trimtab.workload.fault import TraceError
from trimtab.workload.request import Trace, TraceRequest


def concatenate(traces: Sequence[Trace], *, pause_seconds: float = 0.0) -> Trace:
    """One trace after the other, each at its recorded length, with a pause in between.

    Raises:
        TraceError: There is no trace.
    """
    parts = _apart(traces)
    requests: list[TraceRequest] = []
    begins_at = 0.0
    for trace in parts:
        requests += [replace(request, at_seconds=begins_at + request.at_seconds) for request in trace.requests]
        begins_at += trace.duration_seconds + pause_seconds
    return _joined(parts, requests, begins_at - pause_seconds, "+")


def overlay(traces: Sequence[Trace]) -> Trace:
    """All traces at the same time; requests of the same moment come in the order of the traces.

    Raises:
        TraceError: There is no trace.
    """
    parts = _apart(traces)
    requests = [request for trace in parts for request in trace.requests]
    requests.sort(key=lambda request: request.at_seconds)
    return _joined(parts, requests, max(trace.duration_seconds for trace in parts), "&")


def compress(trace: Trace, factor: float) -> Trace:
    """The same requests in 1 / `factor` of the time: that many times the rate, the same burstiness.

    Raises:
        TraceError: The factor is not a number above 0.
    """
    if not 0 < factor < float("inf"):
        raise TraceError(trace.source, f"compressed by {factor:g}; the factor must be a number above 0")
    requests = tuple(replace(request, at_seconds=request.at_seconds / factor) for request in trace.requests)
    return replace(trace, requests=requests, duration_seconds=trace.duration_seconds / factor)


def thin(trace: Trace, kept_fraction: float, rng: np.random.Generator) -> Trace:
    """Every request with the same probability, independently: a lower rate, and burstiness nearer to Poisson.

    Raises:
        TraceError: The fraction is not above 0 and at most 1, or nothing is left.
    """
    if not 0 < kept_fraction <= 1:
        raise TraceError(trace.source, f"{kept_fraction:g} of the requests kept; the part must be above 0, at most 1")
    chosen = rng.random(len(trace.requests)) < kept_fraction
    requests = tuple(request for request, keep in zip(trace.requests, chosen, strict=True) if keep)
    if not requests:
        raise TraceError(trace.source, f"none of {len(trace.requests)} requests is left of keeping {kept_fraction:g}")
    return replace(trace, requests=requests)


def _apart(traces: Sequence[Trace]) -> list[Trace]:
    """The traces with prefix blocks that none of them shares with another."""
    if not traces:
        raise TraceError("", "no trace to put together")
    parts, first_free = [], 0
    for trace in traces:
        ids = [block for request in trace.requests for block in request.blocks]
        if not ids:
            parts.append(trace)
            continue
        shift = first_free - min(ids)
        first_free = max(ids) + shift + 1
        moved = tuple(replace(r, blocks=tuple(block + shift for block in r.blocks)) for r in trace.requests)
        parts.append(replace(trace, requests=moved))
    return parts


def _joined(parts: Sequence[Trace], requests: Sequence[TraceRequest], seconds: float, mark: str) -> Trace:
    notes = dict.fromkeys(note for trace in parts for note in trace.notes)
    names, sources = (
        mark.join(dict.fromkeys(values)) for values in zip(*((t.name, t.source) for t in parts), strict=True)
    )
    return Trace(names, sources, tuple(requests), seconds, tuple(notes))
