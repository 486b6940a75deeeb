"""Traces that are named by the law they are drawn from, such as `gamma:rate=5,cv=3`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from trimtab.workload.arrivals import Arrivals, Gamma, MarkovModulated, Poisson
from trimtab.workload.drawn import Independent, InverseCdf, Observed, RequestLengths, draw_trace
from trimtab.workload.fault import TraceError
from trimtab.workload.request import Trace

SYNTAX = (
    "poisson:rate=5, gamma:rate=5,cv=3 or mmpp:rates=2/20,dwell=60/5 (per second, and seconds), each with lengths=TRACE"
    " or with input=TOKENS,output=TOKENS, where TOKENS is a number or quantiles at even levels such as 16/200/4000"
)
_ARRIVALS_STREAM, _LENGTHS_STREAM = 3, 4


@dataclass(frozen=True, slots=True)
class Generated:
    """A law to draw a trace from.

    Attributes:
        name: The text that it was read from.
        arrivals: When requests come.
        lengths: How long they are.
    """

    name: str
    arrivals: Arrivals
    lengths: RequestLengths

    @property
    def drawn(self) -> bool:
        """Whether every seed gives other requests: yes."""
        return True

    def load(self, *, seed: int, start_seconds: float, duration_seconds: float, rate_scale: float = 1.0) -> Trace:
        """Draw a stretch; see `trimtab.workload.catalog.Entry.load`."""
        arrivals_rng, lengths_rng = (np.random.default_rng([seed, n]) for n in (_ARRIVALS_STREAM, _LENGTHS_STREAM))
        whole = draw_trace(
            self.arrivals.scaled(rate_scale),
            self.lengths,
            seconds=start_seconds + duration_seconds,
            arrivals_rng=arrivals_rng,
            lengths_rng=lengths_rng,
            name=self.name,
        )
        return whole.window(start_seconds, duration_seconds)


def is_generated(text: str) -> bool:
    """Say whether a text names a law, rightly or not."""
    return text.partition(":")[0] in _LAWS and ":" in text


def parse_generated(text: str, find_lengths: Callable[[str], Trace]) -> Generated:
    """Read a text of the form `SYNTAX`.

    Args:
        text: What names the law.
        find_lengths: Reads the trace whose lengths are asked for, by name or file; the empty name is the usual one.

    Raises:
        TraceError: It is not of that form; the message names the field.
    """
    law, _, rest = text.partition(":")
    fields: dict[str, str] = {}
    for part in rest.split(","):
        key, equals, value = part.partition("=")
        if not equals or not value or key in fields:
            raise TraceError(text, f"{part!r} is not NAME=VALUE, each once; write {SYNTAX}")
        fields[key] = value
    arrivals = _LAWS[law](text, fields)
    if unknown := [name for name in fields if name not in {"lengths", "input", "output"}]:
        raise TraceError(text, f"{unknown[0]} means nothing to {law}; write {SYNTAX}")
    return Generated(text, arrivals, _lengths(text, fields, find_lengths))


def _lengths(text: str, fields: dict[str, str], find_lengths: Callable[[str], Trace]) -> RequestLengths:
    if "input" not in fields and "output" not in fields:
        return Observed.of(find_lengths(fields.pop("lengths", "")))
    if "lengths" in fields:
        raise TraceError(text, "either the lengths of a trace, or input and output", field="lengths")
    laws = []
    for name in ("input", "output"):
        numbers = _numbers(text, fields, name)
        try:
            laws.append(InverseCdf.evenly(*numbers))
        except ValueError as error:
            raise TraceError(text, str(error), field=name) from error
    return Independent(*laws)


def _numbers(text: str, fields: dict[str, str], name: str) -> tuple[float, ...]:
    """Take a field that holds numbers between slashes."""
    if name not in fields:
        raise TraceError(text, f"missing; write {SYNTAX}", field=name)
    try:
        return tuple(float(number) for number in fields.pop(name).split("/"))
    except ValueError as error:
        raise TraceError(text, f"{error}; write numbers, with slashes between them", field=name) from error


def _number(text: str, fields: dict[str, str], name: str) -> float:
    numbers = _numbers(text, fields, name)
    if len(numbers) != 1:
        raise TraceError(text, f"{len(numbers)} numbers where one is needed", field=name)
    return numbers[0]


def _poisson(text: str, fields: dict[str, str]) -> Arrivals:
    return _made(text, Poisson, _number(text, fields, "rate"))


def _gamma(text: str, fields: dict[str, str]) -> Arrivals:
    return _made(text, Gamma, _number(text, fields, "rate"), _number(text, fields, "cv"))


def _mmpp(text: str, fields: dict[str, str]) -> Arrivals:
    return _made(text, MarkovModulated, _numbers(text, fields, "rates"), _numbers(text, fields, "dwell"))


def _made(text: str, kind: Callable[..., Arrivals], *values: object) -> Arrivals:
    try:
        return kind(*values)
    except ValueError as error:
        raise TraceError(text, str(error)) from error


_LAWS: Mapping[str, Callable[[str, dict[str, str]], Arrivals]] = {"poisson": _poisson, "gamma": _gamma, "mmpp": _mmpp}
