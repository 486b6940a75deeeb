"""Numbers as people read them: no more digits than the interval allows, a real minus sign, units once."""

from math import floor, isfinite, log10

from trimtab.sim.experiment import Metric
from trimtab.sim.findings import Finding, Line
from trimtab.sim.statistics import Estimate

DASH = "\u2013"
_MOST_DECIMALS = 6
_ROUNDING_ERROR = 1e-9
_LEAST_P = 1e-4
_POINTS = "points"


def decimals(scale: float, digits: int = 2) -> int:
    """Return how many decimals show `digits` significant digits of a number of this size."""
    if not isfinite(scale) or abs(scale) < _ROUNDING_ERROR:
        return 0
    return min(_MOST_DECIMALS, max(0, digits - 1 - floor(log10(abs(scale)))))


def plain(value: float, places: int) -> str:
    """Write a number with a typographic minus and thin thousands separators; a dash for NaN, a word for infinity."""
    if value != value:  # noqa: PLR0124 - NaN
        return DASH
    if not isfinite(value):
        return "∞" if value > 0 else "\u2212∞"
    text = f"{abs(value):,.{places}f}".replace(",", "\u202f")
    return f"\u2212{text}" if value < 0 and float(f"{value:.{places}f}") != 0 else text


def signed(value: float, places: int) -> str:
    """Write a difference: with a plus where it is above zero."""
    text = plain(value, places)
    return f"+{text}" if value > 0 and float(f"{value:.{places}f}") != 0 else text


def short(value: float, digits: int = 3) -> str:
    """Write a lone number with three significant digits at most, without zeros at its end."""
    places = decimals(value, digits)
    while places and isfinite(value) and round(value, places) == round(value, places - 1):
        places -= 1
    return plain(value, places)


def value_text(estimate: Estimate) -> str:
    """Write a mean with the half width of its interval: `23.1 ± 0.4`."""
    if not estimate.known:
        return short(estimate.mean) if estimate.n else DASH
    reach = (estimate.high - estimate.low) / 2
    if reach < _ROUNDING_ERROR:
        return f"{short(estimate.mean)} ± 0"
    return f"{plain(estimate.mean, decimals(reach))} ± {plain(reach, decimals(reach))}"


def difference_text(estimate: Estimate, metric: Metric) -> str:
    """Write a difference with its interval: `-24.5 % [-26.1, -22.9]`."""
    if not estimate.n:
        return DASH
    factor, unit = difference_scale(metric)
    mean, low, high = (factor * value for value in (estimate.mean, estimate.low, estimate.high))
    reach = (high - low) / 2 if estimate.known else 0.0
    places = decimals(reach) if reach > _ROUNDING_ERROR else decimals(mean, 3)
    places = min(places, 2) if metric.relative else places
    text = f"{signed(mean, places)}{unit and ' ' + unit}"
    return f"{text} [{signed(low, places)}, {signed(high, places)}]" if low == low else text  # noqa: PLR0124 - NaN


def difference_scale(metric: Metric) -> tuple[float, str]:
    """Return what a difference of this metric is multiplied by to be shown, and its unit then."""
    if metric.relative:
        return 100.0, "%"
    return 1.0, _POINTS if metric.unit == "%" else metric.unit


def expected_text(line: Line) -> str:
    """Write the specification's figure in the form of the measured one; empty where there is none."""
    if line.expected is None:
        return ""
    if line.metric.relative and line.difference is not None:
        return f"{signed(100 * line.expected, decimals(100 * line.expected, 3))} %"
    return short(line.expected)


def margin_text(finding: Finding) -> str:
    """Write what a claim allows, where it allows something: `, allowed to be 100 % worse`."""
    margin, metric = finding.claim.margin, finding.metric
    if not margin:
        return ""
    factor, unit = difference_scale(metric)
    return f", allowed to be {short(factor * margin)}{unit and ' ' + unit} worse"


def p_text(p: float) -> str:
    """Write a p value; a dash where the test could not be made."""
    if p != p:  # noqa: PLR0124 - NaN
        return DASH
    return "< 0.0001" if p < _LEAST_P else f"{p:.2g}"


def heading(metric: Metric) -> str:
    """Return a metric's title with its unit."""
    return f"{metric.title} [{metric.unit}]" if metric.unit else metric.title


def sign(line: Line) -> str:
    """Return a mark that says better or worse without color; empty where the interval says neither."""
    return {1: "✓", -1: "✗", 0: ""}[line.gain]
