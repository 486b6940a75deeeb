"""The search for replicas and the knee, and what is said of them."""

import json
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from math import isnan, nan
from pathlib import Path
from typing import Any

import joblib
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.sim.lab.test_lab import Silent
from tests.sim.whatif.pools import SLOW, case, write_trace
from trimtab.model.problem import Problem
from trimtab.sim.whatif import answer as module
from trimtab.sim.whatif.answer import Answer, answer, answer_values
from trimtab.sim.whatif.study import Question, Study, _least, chances_of, least_enough, study, values_by_seed
from trimtab.sim.whatif.view import answer_view, range_text, write_answer

SECONDS = 30.0


def ask(trace: Path, **changes: Any) -> Study:
    settings: dict[str, Any] = {"load": 3.0, "policies": ("FCFS", "SSJF"), "seeds": 3, "seconds": SECONDS}
    question = Question(case(shares={"fast": 1, "slow": 1}, **SLOW), str(trace), None, **{**settings, **changes})
    with joblib.parallel_config(n_jobs=1):
        return study(question, Silent())


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_trace(tmp_path_factory.mktemp("trace"), seconds=240)


@pytest.fixture(scope="module")
def found(trace: Path) -> Study:
    return ask(trace)


@pytest.fixture(scope="module")
def answered(found: Study) -> Answer:
    return answer(found, gpu_hour_price=2.0)


def test_the_least_number_that_is_enough_was_tried_and_so_was_the_one_below(found: Study, answered: Answer) -> None:
    for policy in answered.policies:
        chances = chances_of(found.replicas, policy.policy)
        least = least_enough(chances, 0.95)
        assert least is not None
        assert policy.likely is not None
        assert policy.likely <= least
        assert chances[least] >= 0.95
        assert least == 1 or chances[least - 1] < 0.95


def test_what_was_found_is_held_against_draws_that_it_was_not_found_by(found: Study, answered: Answer) -> None:
    for policy in answered.policies:
        confirmed = policy.confirmed
        assert confirmed is not None
        assert policy.sure == confirmed.replicas
        assert confirmed.replicas >= (least_enough(chances_of(found.replicas, policy.policy), 0.95) or 0)
        assert confirmed.met >= 0.95 * confirmed.share.n
        assert confirmed.share.low < confirmed.share.mean <= confirmed.share.high == 1.0


def test_cost_is_of_the_replicas_that_are_enough(answered: Answer) -> None:
    for policy in answered.policies:
        assert policy.gpu_hours == 24 * 2 * (policy.sure or 0)
        assert policy.price == 2.0 * policy.gpu_hours
    assert isnan(answer(answered.study, None).policies[0].price)


def test_the_curve_falls_and_its_knee_lies_on_it(found: Study, answered: Answer) -> None:
    spare = values_by_seed(found.loads, "FCFS", "spare")
    means = [sum(values.values()) / len(values) for _, values in sorted(spare.items())]
    assert means[0] >= 0 > means[-1]
    rates = [setting.values["requests_per_second"] for setting in found.loads.part.settings]
    for policy in answered.policies:
        assert rates[0] <= policy.knee.low <= policy.knee.mean <= policy.knee.high <= rates[-1]  # type: ignore[operator]


def test_one_draw_is_the_same_for_every_policy(found: Study) -> None:
    first = values_by_seed(found.loads, "FCFS", "attainment")[0]
    assert values_by_seed(found.loads, "SSJF", "attainment")[0] == first  # without a queue the order is no matter


def test_workers_change_no_byte(found: Study, tmp_path: Path) -> None:
    with joblib.parallel_config(backend="threading", n_jobs=3):
        again = study(found.question, Silent())
    for folder, one in ((tmp_path / "one", found), (tmp_path / "threads", again)):
        folder.mkdir()
        write_answer(answer(one, None), folder, "trimtab whatif")
    files = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    assert {"report.html", "answer.json", "replicas.csv", "loads.csv", "load.png", "replicas.png"} == set(files)
    assert {path.name: path.read_bytes() for path in (tmp_path / "threads").iterdir()} == files


def test_a_target_that_no_replica_can_meet_is_said_to_be_one(trace: Path) -> None:
    pool = case(serviceLevels=[{"name": "hasty", "tpotMilliseconds": 1}], **SLOW)
    question = Question(pool, str(trace), None, 1.0, ("FCFS",), 2, 15.0)
    with joblib.parallel_config(n_jobs=1):
        said = answer(study(question, Silent()), None)
    assert said.policies[0].sure is None
    assert said.sentences[0].startswith("No number of replicas")
    assert "at no load that was tried" in said.sentences[2]


def test_a_trace_that_the_engine_cannot_hold_is_refused(trace: Path) -> None:
    pool = case(args=("--profile=tiny", "--max-model-len=60"))
    with pytest.raises(Problem, match="are longer than the 60 tokens of the engine\nfix: ask with another trace"):
        study(Question(pool, str(trace), None, 1.0, ("FCFS",), 2, 15.0), Silent())


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 60))
def test_the_search_finds_the_least_number_wherever_it_starts(start: int, most: int, least: int) -> None:
    tried: list[int] = []

    def enough(count: int) -> bool:
        tried.append(count)
        return count >= least

    assert _least(start, most, enough) == (least if least <= most else None)
    assert len(tried) < 20


@pytest.mark.parametrize(
    ("spare", "knee"),
    [([5, 5, -5], 15.0), ([-1, -5, -9], 0.0), ([5, 4, 3], 20.0), ([5, -5, 5], 7.5), ([5, nan, nan], 20.0)],
)
def test_the_knee_is_where_the_objective_is_missed_first(spare: list[float], knee: float) -> None:
    assert module._crossing([5, 10, 20], spare) == knee


def test_the_answer_says_what_an_admin_asks(answered: Answer) -> None:
    text = " ".join(answered.sentences)
    for wanted in ("enough for", "requests/s under FCFS", "of 3", "GPU-hours a day", "up to", "Policies: SSJF"):
        assert wanted in text
    assumed = " ".join(answered.assumptions)
    for wanted in (
        "small.csv",
        "median error 20%",
        "refused requests count as missed",
        "fast 50%",
        "The drift guard trusted it",
    ):
        assert wanted in assumed


def test_requests_that_are_too_long_are_warned_of(found: Study) -> None:
    assert not any("longer than" in warning for warning in answer(found, None).warnings)
    assert any("2.5% of the trace's" in one for one in answer(replace(found, too_long=0.025), None).warnings)


def test_the_terminal_fits_eighty_columns(answered: Answer) -> None:
    wide = {name: module.Range(98.11, 60.25, 100.0) for name in ("fast", "slow")}
    policies = tuple(replace(one, attainment=wide, knee=module.Range(124.9, 116.6, 131.0)) for one in answered.policies)
    console = Console(width=80, record=True, file=StringIO())
    console.print(answer_view(replace(answered, policies=policies)))
    lines = console.export_text().splitlines()
    assert not any("…" in line for line in lines)
    for wanted in ("FCFS", "SSJF", "price a day", "fast [%]", "slow [%]", "knee [1/s]", "[60.2, 100.0]", "[117, 131]"):
        assert any(wanted in line for line in lines), wanted


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in {"script", "link", "iframe"}
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href"}]


def test_the_page_stands_alone_and_has_every_sentence(answered: Answer, tmp_path: Path) -> None:
    write_answer(answered, tmp_path, "trimtab whatif -f pool.yaml")
    text = (tmp_path / "report.html").read_text()
    assert all(address.startswith("data:image/png;base64,") for address in Tags(text).addresses)
    assert len(Tags(text).addresses) == 2
    assert "trimtab whatif -f pool.yaml" in text
    assert "Invented round numbers" in text
    assert "<strong>Outside what was calibrated:</strong> the profile tiny is extrapolated" in text


def test_the_json_holds_the_answer(answered: Answer) -> None:
    values = json.loads(json.dumps(answer_values(answered)))
    assert [policy["policy"] for policy in values["policies"]] == ["FCFS", "SSJF"]
    assert values["policies"][0]["knee_gain"] is None
    assert set(values["policies"][1]["knee_gain"]) == {"mean", "low", "high"}
    assert {row["replicas"] for row in values["by_replicas"]} >= {values["replicas"]}
    assert all(row["attainment fast"]["low"] <= row["attainment fast"]["high"] for row in values["by_load"])


def test_ranges_have_few_digits() -> None:
    assert range_text(module.Range(96.123, 91.0, 99.84)) == "96.1 [91.0, 99.8]"
    assert range_text(module.Range(nan, nan, nan)) == "\u2013"
