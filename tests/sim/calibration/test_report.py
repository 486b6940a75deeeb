"""The report's figures: quantiles, errors, bars, and what is not judged."""

from pathlib import Path

import pytest

from trimtab.sim.calibration.report import ALL, Figure, calibrate, figures_of, summary, to_values
from trimtab.sim.calibration.source import Compared, Findings, Latency, Run


def compared(stage: str, measured: float, predicted: float, tokens: int = 11) -> Compared:
    """A request whose times were and are said to be so and so many times (0.1 s, 1.1 s)."""
    return Compared(
        stage,
        Latency(0.1 * measured, 1.1 * measured, tokens),
        Latency(0.1 * predicted, 1.1 * predicted, tokens),
    )


def run(*requests: Compared, judged: bool = True, reason: str = "", name: str = "r") -> Run:
    return Run(
        name,
        "set",
        {"model": "m"},
        "p",
        extrapolated=False,
        in_fit=False,
        requests=requests,
        judged=judged,
        reason=reason,
    )


def figure(figures: list[Figure], stage: str, metric: str, quantile: float) -> Figure:
    (found,) = (f for f in figures if (f.stage, f.metric, f.quantile) == (stage, metric, quantile))
    return found


class Found:
    """A source that finds what it is given."""

    name = title = "set"

    def __init__(self, *runs: Run, problems: tuple[str, ...] = ()) -> None:
        self.findings = Findings(runs, problems)

    def replay(self, data: Path, *, fit: bool) -> Findings:
        del data, fit
        return self.findings


def test_quantiles_and_errors() -> None:
    figures = figures_of(run(*(compared("a", n, 1.1 * n) for n in range(1, 12))))
    median = figure(figures, ALL, "ttft", 0.5)
    assert median.n == 11
    assert median.measured == pytest.approx(0.6)
    assert median.predicted == pytest.approx(0.66)
    assert median.error == pytest.approx(0.1)
    assert median.deviation == pytest.approx(0.1)
    assert figure(figures, "a", "e2e", 0.9).measured == pytest.approx(11.0)
    assert figure(figures, ALL, "time_between_tokens", 0.5).measured == pytest.approx(0.6)
    slow = figure(figures_of(run(*(compared("a", 1.0, 0.7) for _ in range(3)))), ALL, "ttft", 0.5)
    assert slow.error == pytest.approx(0.3)
    assert slow.deviation == pytest.approx(-0.3)


@pytest.mark.parametrize(
    ("stage", "quantile", "error", "within"),
    [
        (ALL, 0.5, 0.09, True),
        (ALL, 0.5, 0.11, False),
        (ALL, 0.9, 0.19, True),
        (ALL, 0.9, 0.21, False),
        ("a", 0.5, 0.19, True),
        ("a", 0.5, 0.21, False),
    ],
)
def test_bars(stage: str, quantile: float, error: float, *, within: bool) -> None:
    for sign in (1, -1):
        found = figure(
            figures_of(run(*(compared("a", 1.0, 1 + sign * error) for _ in range(5)))), stage, "ttft", quantile
        )
        assert found.judged
        assert found.within is within


def test_answers_of_one_token_have_no_time_between_tokens() -> None:
    figures = figures_of(run(*(compared("a", 1, 1) for _ in range(4)), compared("a", 1, 1, tokens=1)))
    assert figure(figures, ALL, "time_between_tokens", 0.5).n == 4
    assert figure(figures, ALL, "e2e", 0.5).n == 5
    short = figures_of(run(*(compared("a", 1, 1, tokens=1) for _ in range(4))))
    assert {f.metric for f in short} == {"ttft", "e2e"}


def test_what_is_not_judged_says_why() -> None:
    few = figures_of(run(compared("a", 1, 2), compared("b", 1, 2), compared("b", 1, 2), compared("b", 1, 2)))
    assert figure(few, "a", "ttft", 0.5).reason == "Only 1 requests."
    assert figure(few, "b", "ttft", 0.5).judged
    assert "no bar" in figure(few, "b", "ttft", 0.9).reason
    out = figures_of(run(*(compared("a", 1, 2) for _ in range(3)), judged=False, reason="Used for the fit."))
    assert {(f.judged, f.reason) for f in out} == {(False, "Used for the fit.")}
    (nothing,) = figures_of(run(judged=False, reason="Unknown model."))
    assert (nothing.n, nothing.metric, nothing.judged, nothing.reason) == (0, None, False, "Unknown model.")


def test_the_summary_counts_and_names() -> None:
    good = run(*(compared("a", 1.0, 1.05) for _ in range(4)), name="good")
    bad = run(*(compared("a", 1.0, 1.3) for _ in range(4)), name="bad")
    unknown = run(name="unknown", judged=False, reason="Unknown model.")
    report = calibrate([Found(good, bad), Found(unknown, problems=("no such folder",))], Path(), fit=False)
    said = summary(report)
    assert (said["runs"], said["judged_runs"], said["within_bars"]) == (3, 2, 1)
    assert said["figures"] == {"judged": 18, "within": 9}
    assert {miss["id"] for miss in said["missed"]} == {"bad"}
    assert said["worst"]["ttft"]["run_median"] == pytest.approx(0.3)
    assert said["not_judged"] == [{"id": "unknown", "reason": "Unknown model."}]
    assert said["problems"] == ["no such folder"]


def test_the_values_have_the_promised_keys() -> None:
    report = calibrate([Found(run(*(compared("a", 1, 1) for _ in range(3))))], Path(), fit=False)
    values = to_values(report)
    keys = ["id", "stage", "n", "metric", "quantile", "measured", "predicted", "error", "judged", "reason"]
    assert set(values) == {"runs", "summary"}
    assert all(list(row) == keys for row in values["runs"])
    assert calibrate([], Path(), fit=False).figures == ()
