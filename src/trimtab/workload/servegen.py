"""The ServeGen data: not a recording, but how each client of a service behaves, from which requests are drawn.

Source: repository alibaba/ServeGen (NSDI 2026), merged into two files per service. `NAME_rates.csv` says for every
client and window of 600 s how often it sends and how bursty; `NAME_pdfs.jsonl` or `NAME_quantiles.jsonl` says for
every client and window of 6 h how long its requests and answers are.

Every client is a renewal process that is stationary inside a window: the first gap is drawn from the law of the
time that is left of a gap under way, so that the expected number of requests is exactly rate x time however bursty
the client is. The fitted law gives the shape of the gaps, the measured rate their mean (the mean of a heavy-tailed
fit can be off by a factor of two). Lengths are drawn independently of each other and of the arrivals: the data
holds no joint distribution.
"""

import math
import zlib
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trimtab.workload.fault import TraceError
from trimtab.workload.request import MAX_TOKENS, Media, MediaKind, Trace, TraceRequest
from trimtab.workload.textfile import COMPRESSIONS, Row, bare_name, csv_rows, json_rows

COLUMNS = ("client", "t_s", "rate_rps", "cv", "dist", "p1", "p2")
RATES_ENDING = "_rates.csv"
LENGTHS_ENDINGS = ("_pdfs.jsonl", "_quantiles.jsonl")
WINDOW_SECONDS = 600.0
MAX_REQUESTS = 5_000_000
"""More expected requests than this are refused: they would not fit into memory."""

LEVELS = (0.0, 0.01, 0.025, *(step / 20 for step in range(1, 20)), 0.975, 0.99, 0.999, 1.0)
"""The levels of a row of quantiles."""

_PROBABILITY_SLACK = 0.01
_COMMON_FIELDS = frozenset({"client", "t"})
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RateWindow:
    """How one client sends during one window.

    Attributes:
        start_seconds: when the window begins.
        rate: mean requests per second; above 0.
        law: `Gamma` or `Weibull`, the law of the gaps.
        shape: the shape parameter of that law.
    """

    start_seconds: float
    rate: float
    law: str
    shape: float

    def arrivals(self, rng: np.random.Generator, seconds: float, rate_scale: float) -> Floats:
        """Draw arrival times in [0, `seconds`) at `rate_scale` times the rate."""
        mean = 1.0 / (self.rate * rate_scale)
        times = self._residual_gap(rng, mean)
        while times[-1] < seconds:
            count = int((seconds - times[-1]) / mean * 1.2) + 16
            times = np.concatenate([times, times[-1] + np.cumsum(self._gaps(rng, count, mean))])
        return times[times < seconds]

    def _gaps(self, rng: np.random.Generator, count: int, mean: float) -> Floats:
        if self.law == "Gamma":
            return rng.gamma(self.shape, mean / self.shape, count)
        return rng.weibull(self.shape, count) * (mean / math.gamma(1 + 1 / self.shape))

    def _residual_gap(self, rng: np.random.Generator, mean: float) -> Floats:
        """Draw what is left of the gap under way: a uniform part of a gap chosen in proportion to its length."""
        if self.law == "Gamma":
            whole = rng.gamma(self.shape + 1, mean / self.shape, 1)
        else:
            whole = mean / math.gamma(1 + 1 / self.shape) * rng.gamma(1 + 1 / self.shape, 1.0, 1) ** (1 / self.shape)
        return whole * rng.random(1)


@dataclass(frozen=True, slots=True)
class Lengths:
    """The distribution of one field of one client during one window.

    Attributes:
        values: ascending values.
        cumulative: the probability up to and including each value.
        smooth: whether values between the given ones occur (quantiles), or only the given ones (a PDF).
    """

    values: Floats
    cumulative: Floats
    smooth: bool

    def draw(self, rng: np.random.Generator, count: int) -> Floats:
        """Draw `count` values by inversion."""
        uniform = rng.random(count)
        if self.smooth:
            return np.interp(uniform, self.cumulative, self.values)
        places = np.searchsorted(self.cumulative, uniform, side="right")
        return self.values[np.minimum(places, len(self.values) - 1)]

    @property
    def is_zero(self) -> bool:
        """Say whether nothing but 0 can be drawn: the client was idle."""
        return bool(self.values[-1] == 0)


LengthsWindow = tuple[float, Mapping[str, Lengths]]


@dataclass(frozen=True, slots=True)
class Client:
    """One client: when it sends, and how much.

    Attributes:
        name: the client's id.
        rates: its windows, ascending; windows without requests are absent.
        lengths: its distributions, ascending by time; empty where the data lacks them.
    """

    name: str
    rates: tuple[RateWindow, ...]
    lengths: tuple[LengthsWindow, ...]

    def lengths_at(self, at_seconds: float) -> Mapping[str, Lengths]:
        """Return the distributions in force at a time; before the first ones, the first."""
        place = bisect_right([start for start, _ in self.lengths], at_seconds) - 1
        return self.lengths[max(0, place)][1]


@dataclass(frozen=True, slots=True)
class ServeGen:
    """A service as the mixture of its clients.

    Attributes:
        name: what the catalog calls it.
        source: the file with the rates.
        clients: the clients whose lengths are known.
        unknown_clients: how many clients have rates but no lengths; they are left out.
        unknown_fraction: their part of all requests.
    """

    name: str
    source: str
    clients: tuple[Client, ...]
    unknown_clients: int
    unknown_fraction: float

    @property
    def duration_seconds(self) -> float:
        """Return how long the data lasts."""
        return max(client.rates[-1].start_seconds for client in self.clients) + WINDOW_SECONDS

    def generate(self, *, seed: int, start_seconds: float, duration_seconds: float, rate_scale: float = 1.0) -> Trace:
        """Draw the requests of one stretch of time.

        Each (seed, client, window) has its own random stream, so that a stretch, a scale or a client more does not move
        the others, and the same arguments always give the same requests.

        Args:
            seed: any whole number from 0.
            start_seconds: where in the data the stretch begins; time 0 of the trace.
            duration_seconds: how long it is.
            rate_scale: factor on every client's rate.

        Raises:
            TraceError: nothing is recorded in that stretch, or it holds more than `MAX_REQUESTS`.
        """
        end_seconds = min(start_seconds + duration_seconds, self.duration_seconds)
        expected = self._expected(start_seconds, end_seconds) * rate_scale
        if not expected:
            raise TraceError(self.source, f"no requests between {start_seconds:g} s and {end_seconds:g} s of the data")
        if expected > MAX_REQUESTS:
            raise TraceError(
                self.source,
                f"about {expected:,.0f} requests in {end_seconds - start_seconds:g} s; take a shorter stretch "
                f"or a rate scale below {MAX_REQUESTS / expected * rate_scale:.2g}",
            )
        requests = [
            request
            for client in self.clients
            for window in client.rates
            if window.start_seconds < end_seconds and window.start_seconds + WINDOW_SECONDS > start_seconds
            for request in _draw_window(client, window, seed, rate_scale)
            if start_seconds <= request.at_seconds < end_seconds
        ]
        requests.sort(key=lambda request: (request.at_seconds, request.client))
        drawn = Trace(self.name, self.source, tuple(requests), end_seconds, self._notes())
        return drawn.window(start_seconds, duration_seconds)

    def _expected(self, start_seconds: float, end_seconds: float) -> float:
        def overlap_seconds(window: RateWindow) -> float:
            ends_seconds = min(end_seconds, window.start_seconds + WINDOW_SECONDS)
            return max(0.0, ends_seconds - max(start_seconds, window.start_seconds))

        return sum(window.rate * overlap_seconds(window) for client in self.clients for window in client.rates)

    def _notes(self) -> tuple[str, ...]:
        if not self.unknown_clients:
            return ()
        everyone = len(self.clients) + self.unknown_clients
        who = f"{self.unknown_clients} of {everyone} clients ({self.unknown_fraction:.0%} of all requests)"
        return (f"{who} have no lengths in the data and are left out",)


def _draw_window(client: Client, window: RateWindow, seed: int, rate_scale: float) -> Iterator[TraceRequest]:
    rng = np.random.default_rng([seed, zlib.crc32(client.name.encode()), int(window.start_seconds)])
    times = window.start_seconds + window.arrivals(rng, WINDOW_SECONDS, rate_scale)
    known = client.lengths_at(window.start_seconds)
    drawn = {field: known[field].draw(rng, len(times)) for field in sorted(known) if not field.endswith("_count")}
    media = _draw_media(known, rng, len(times))
    for place, at_seconds in enumerate(times):
        items = media[place]
        text = drawn["input_tokens" if "input_tokens" in drawn else "text_tokens"][place]
        output = max(1, round(drawn["output_tokens"][place]))
        reasoning = round(output * drawn["reason_ratio"][place]) if "reason_ratio" in drawn else 0
        yield TraceRequest(
            at_seconds=float(at_seconds),
            input_tokens=max(1, round(text) + sum(item.tokens for item in items)),
            output_tokens=output,
            client=client.name,
            reasoning_tokens=min(output, reasoning),
            media=items,
        )


def _draw_media(known: Mapping[str, Lengths], rng: np.random.Generator, count: int) -> list[tuple[Media, ...]]:
    """Draw each request's pictures, sounds and films; the data gives the tokens of one."""
    media: list[tuple[Media, ...]] = [()] * count
    for kind in MediaKind:
        if f"{kind}_count" not in known:
            continue
        counts = known[f"{kind}_count"].draw(rng, count)
        for place, items in enumerate(counts):
            tokens = known[f"{kind}_tokens"].draw(rng, round(items))
            media[place] += tuple(Media(kind, round(each)) for each in tokens)
    return media


def lengths_file(rates: Path) -> Path | None:
    """Return the file with the lengths that belongs to a file with rates, if it is there."""
    stem = bare_name(rates).removesuffix(RATES_ENDING)
    candidates = (rates.with_name(f"{stem}{ending}{packed}") for ending in LENGTHS_ENDINGS for packed in COMPRESSIONS)
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def read_servegen(rates: Path, *, name: str = "servegen") -> ServeGen:
    """Read one service: the file with its rates and, beside it, the file with its lengths.

    Raises:
        TraceError: a fault in either file, by row and field, or no file with lengths.
    """
    lengths = lengths_file(rates)
    if lengths is None:
        stem = bare_name(rates).removesuffix(RATES_ENDING)
        wanted = " or ".join(f"{stem}{ending}" for ending in LENGTHS_ENDINGS)
        raise TraceError(rates, f"needs {wanted} (plain, .gz or .xz) beside it")
    windows = _read_rates(rates)
    known = _read_lengths(lengths)
    clients = tuple(
        Client(client, tuple(windows[client]), tuple(known[client])) for client in windows if known.get(client)
    )
    if not clients:
        raise TraceError(lengths, "no client of the file with rates has lengths here")
    everything = _weight(windows.values())
    unknown = [windows[client] for client in windows if not known.get(client)]
    return ServeGen(name, str(rates), clients, len(unknown), _weight(unknown) / everything)


def _weight(clients: Iterable[Sequence[RateWindow]]) -> float:
    return sum(window.rate for windows in clients for window in windows)


def _read_rates(path: Path) -> dict[str, list[RateWindow]]:
    windows: dict[str, list[RateWindow]] = defaultdict(list)
    for row in csv_rows(path, COLUMNS):
        known = windows[row.value("client")]
        earliest = known[-1].start_seconds + WINDOW_SECONDS if known else 0.0
        start_seconds = row.arrival("t_s", row.number_of("t_s"), 0.0)
        if start_seconds < earliest:
            raise row.fault(
                "t_s", f"{start_seconds:g} s lies in the client's window above; its next can begin at {earliest:g} s"
            )
        known.append(RateWindow(start_seconds, _positive(row, "rate_rps"), _law(row), _positive(row, "p1")))
    if not windows:
        raise TraceError(path, "no client in the file, only the header")
    return windows


def _positive(row: Row, field: str) -> float:
    number = row.number_of(field)
    if number <= 0:
        raise row.fault(field, f"{number:g} must be above 0")
    return number


def _law(row: Row) -> str:
    law: str = row.value("dist")
    if law not in {"Gamma", "Weibull"}:
        raise row.fault("dist", f"{law!r} is neither Gamma nor Weibull")
    return law


def _read_lengths(path: Path) -> dict[str, list[LengthsWindow]]:
    known: dict[str, list[LengthsWindow]] = defaultdict(list)
    parse = _quantiles if "_quantiles." in path.name else _pdf
    for row in json_rows(path):
        client = str(row.value("client"))
        start_seconds = row.arrival("t", row.number_of("t"), known[client][-1][0] if known[client] else 0.0)
        fields = {field: parse(row, field) for field in row.fields if field not in _COMMON_FIELDS}
        _check_fields(row, fields)
        if not fields["output_tokens"].is_zero:
            known[client].append((start_seconds, fields))
    if not known:
        raise TraceError(path, "the file is empty")
    return known


def _check_fields(row: Row, fields: Mapping[str, Lengths]) -> None:
    needed = ["output_tokens", "text_tokens" if "text_tokens" in fields else "input_tokens"]
    needed += [f"{kind}_tokens" for kind in MediaKind if f"{kind}_count" in fields]
    for field in needed:
        if field not in fields:
            raise row.fault(field, "missing")


def _quantiles(row: Row, field: str) -> Lengths:
    values = row.value(field)
    if not isinstance(values, list) or len(values) != len(LEVELS):
        raise row.fault(field, f"not a list of {len(LEVELS)} quantiles")
    numbers = [_amount(row, field, value) for value in values]
    if sorted(numbers) != numbers:
        raise row.fault(field, "the quantiles do not ascend")
    return Lengths(np.array(numbers), np.array(LEVELS), smooth=True)


def _pdf(row: Row, field: str) -> Lengths:
    bins = row.value(field)
    if not isinstance(bins, dict) or not bins:
        raise row.fault(field, "not an object of value: probability")
    pairs = sorted((_amount(row, field, value), _amount(row, field, share)) for value, share in bins.items())
    total = sum(share for _, share in pairs)
    if abs(total - 1) > _PROBABILITY_SLACK:
        raise row.fault(field, f"the probabilities add up to {total:g}, not 1")
    cumulative = np.cumsum([share for _, share in pairs]) / total
    return Lengths(np.array([value for value, _ in pairs]), cumulative, smooth=False)


def _amount(row: Row, field: str, value: object) -> float:
    number = Row(row.path, row.number, {field: value}).number_of(field)
    if not 0 <= number <= MAX_TOKENS:
        raise row.fault(field, f"{number:g} is not between 0 and {MAX_TOKENS}")
    return number
