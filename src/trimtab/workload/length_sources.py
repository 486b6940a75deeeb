"""Traces as sources of requests whose lengths are known; those that are only described are drawn."""

import math

from trimtab.workload.catalog import Entry
from trimtab.workload.fault import TraceError
from trimtab.workload.request import Trace

DRAWN_REQUESTS = 20_000
DRAWN_SECONDS = 3_600.0
_PROBE_SCALE = 0.01
_LEAST_PROBED = 20


def recorded(entry: Entry, seed: int = 0) -> Trace:
    """Return a whole recording, or about 20,000 requests of the first hour of a service that is only described.

    Raises:
        TraceError: a fault in the file, or a service that is too idle to draw from.
    """
    if not is_drawn(entry):
        return entry.load(seed=seed, start_seconds=0.0, duration_seconds=math.inf)
    probe_scale = _PROBE_SCALE
    while True:
        try:
            found = len(_drawn(entry, seed, probe_scale).requests)
        except TraceError:
            found = 0
        if found >= _LEAST_PROBED:
            return _drawn(entry, seed, probe_scale * DRAWN_REQUESTS / found)
        if probe_scale > 1.0 / _PROBE_SCALE:
            raise TraceError(entry.path, f"fewer than {_LEAST_PROBED} requests in the first hour at 100 times its rate")
        probe_scale *= 10.0


def is_drawn(entry: Entry) -> bool:
    """Say whether requests are drawn, their lengths independent of their prompts, rather than recorded."""
    return entry.format.name == "servegen"


def _drawn(entry: Entry, seed: int, rate_scale: float) -> Trace:
    return entry.load(seed=seed, start_seconds=0.0, duration_seconds=DRAWN_SECONDS, rate_scale=rate_scale)
