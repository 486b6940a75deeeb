"""Training: what is learned, from which part, and what is left behind."""

import json
from collections.abc import Sequence
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from tests.unit.learn.made_up import PROMPTS, service
from trimtab.decide.queueing.length_boosted import Boosted
from trimtab.decide.queueing.length_trees import forest_from
from trimtab.decide.queueing.lengths import Example, Features, Outcome, Prediction
from trimtab.learn.encoder import load_encoder, within
from trimtab.learn.length_judge import judge_all
from trimtab.learn.length_parts import parts_of
from trimtab.learn.length_replay import foresee
from trimtab.learn.length_scores import pinball, score
from trimtab.learn.lengths import Source, plain_ensemble, train
from trimtab.learn.shipped import predictor_from, read_weights, write_weights
from trimtab.model.problem import Problem

TREES = 15


@pytest.fixture(scope="module")
def trained() -> Any:
    return train([Source("made-up", service(900, seed=1))], ("history",), name="small", trees=TREES)


@pytest.mark.parametrize(
    "loss", [{"loss": "quantile", "quantile": 0.9}, {"loss": "squared_error"}, {"loss": "poisson"}]
)
def test_plain_trees_give_what_the_library_gives(loss: dict[str, Any]) -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(800, 5))
    rows[rng.random(rows.shape) < 0.2] = nan
    target = np.exp(np.nan_to_num(rows[:, 0]) + (rows[:, 1] > 0) + 0.1 * rng.normal(size=800))
    with threadpool_limits(limits=1):
        model = HistGradientBoostingRegressor(**loss, max_iter=25, random_state=0).fit(rows, target)
    fresh = np.vstack([rng.normal(size=(300, 5)), np.full((1, 5), nan), rows])
    ours = forest_from([json.loads(json.dumps(plain_ensemble(model)))], columns=5).evaluate(fresh)[:, 0]
    theirs = model.predict(fresh)
    np.testing.assert_allclose(np.exp(ours) if loss["loss"] == "poisson" else ours, theirs, rtol=1e-9, atol=1e-9)


def test_what_is_trained_ranks_and_covers_what_it_has_not_seen(trained: Any) -> None:
    (source,) = trained["provenance"]
    assert source["requests"] == {"train": 540, "calibrate": 180, "judge": 180, "left_out": 0}
    assert source["held_out"]["tau"] > 0.5
    assert 0.84 <= source["held_out"]["coverage_p90"] <= 0.96
    assert abs(source["held_out"]["bias"]) < 0.1


def test_the_weights_work_on_a_service_of_another_size(trained: Any) -> None:
    larger = [
        Example(
            Features(7 * example.request.input_tokens, arrived_at=example.request.arrived_at),
            Outcome(5 * example.outcome.tokens, ended_at=example.outcome.ended_at),
        )
        for example in service(900, seed=2)
    ]
    predictions = foresee(Boosted(trained), larger)
    scores = score(larger, predictions, parts_of(larger).judge)
    assert scores.tau > 0.5
    assert 0.84 <= scores.coverage_p90 <= 0.96


def test_the_same_log_gives_the_same_weights(trained: Any, tmp_path: Path) -> None:
    again = train([Source("made-up", service(900, seed=1))], ("history",), name="small", trees=TREES)
    for file, weights in (("one.json", trained), ("two.json", again)):
        write_weights(weights, tmp_path / file)
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert read_weights(tmp_path / "one.json") == json.loads(json.dumps(trained))


def test_the_latest_part_is_not_trained_on(trained: Any) -> None:
    """Other endings for what judges change the figures, not the trees."""
    examples = service(900, seed=1)
    changed = [
        example if index < 720 else Example(example.request, Outcome(1, ended_at=example.outcome.ended_at))
        for index, example in enumerate(examples)
    ]
    again = train([Source("made-up", changed)], ("history",), name="small", trees=TREES)
    assert again["heads"] == trained["heads"]
    assert again["p90_shift"] == trained["p90_shift"]
    assert again["provenance"][0]["held_out"]["tau"] == 0.0


def test_requests_that_were_cut_off_are_no_examples() -> None:
    """A third of the answers was cut after one token; taken for exact, they would pull every prediction down."""
    examples = service(1_500, seed=4, cut_off=0.33)
    weights = train([Source("cut", examples)], ("history",), name="cut", trees=TREES)
    held_out = weights["provenance"][0]["held_out"]
    assert held_out["censored"] > 50
    assert held_out["requests"] + held_out["censored"] == 300
    assert abs(held_out["bias"]) < 0.1
    assert held_out["tau"] > 0.5


@pytest.mark.parametrize(("count", "cut_off", "message"), [(300, 0.0, "180 requests"), (2_000, 0.95, "to train on")])
def test_too_few_examples_are_refused(count: int, cut_off: float, message: str) -> None:
    with pytest.raises(Problem, match=message):
        train([Source("short", service(count, seed=5, cut_off=cut_off))], ("history",), name="short")


def test_a_column_that_nothing_is_known_of_does_no_harm() -> None:
    """No request says its limit or its turn; the trees get by without, and do not stumble over one that does."""
    weights = train([Source("made-up", service(900, seed=1))], ("history", "metadata"), name="more", trees=TREES)
    assert weights["provenance"][0]["held_out"]["tau"] > 0.5
    (prediction,) = Boosted(weights).predict([Features(90, max_tokens=77, turn=3)])
    assert prediction.plausible


def test_text_that_is_missing_is_named() -> None:
    with pytest.raises(Problem, match=r"made-up: 900 of 900 requests have no text\nfix: .*without --features lexical"):
        train([Source("made-up", service(900, seed=1))], ("history", "lexical"), name="x")


def with_text(examples: Sequence[Example]) -> list[Example]:
    """Give each request the prompt that fits its answer; nothing else says how long that will be."""
    rng = np.random.default_rng(6)
    made = []
    for example in examples:
        wordy = int(rng.integers(0, 2))
        request = Features(50, arrived_at=example.request.arrived_at, text=f"{PROMPTS[wordy]} {rng.integers(0, 9)}")
        tokens = max(1, round((5, 700)[wordy] * np.exp(0.3 * rng.normal())))
        made.append(Example(request, Outcome(tokens, ended_at=example.request.arrived_at + 1.0)))
    return made


def test_an_embedding_trains_a_head_only() -> None:
    """The encoder here counts words; what a real one is worth cannot be measured without a log that holds text."""

    def encoder(prompts: Sequence[str]) -> Any:
        return np.array([[len(prompt.split()), 1.0] for prompt in prompts], dtype=np.float64)

    source = Source("text", with_text(service(1_200, seed=7)))
    weights = train([source], ("history", "embedding"), name="embedded", encoder=encoder, trees=TREES)
    assert len(weights["embedding"]["weights"]) == 2
    assert weights["provenance"][0]["held_out"]["tau"] > 0.4
    without = train([source], ("history",), name="blind", trees=TREES)
    assert abs(without["provenance"][0]["held_out"]["tau"]) < 0.2
    with pytest.raises(Problem, match="need an encoder"):
        judge_all([source], weights, None, whole=False)


def test_an_encoder_that_is_late_raises_in_time_and_recovers() -> None:
    from threading import Event

    may_answer = Event()

    def slow(prompts: Sequence[str]) -> Any:
        may_answer.wait()
        return np.zeros((len(prompts), 2))

    encoder = within(slow, seconds=0.01)
    with pytest.raises(TimeoutError):
        encoder(["a"])
    may_answer.set()
    assert within(slow, seconds=60.0)(["a", "b"]).shape == (2, 2)


def test_an_encoder_without_its_package_says_what_to_install(monkeypatch: Any) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sentence_transformers", None)
    with pytest.raises(Problem, match="fix: pip install sentence-transformers"):
        load_encoder("anything")


def test_pinball_loss_by_hand() -> None:
    predicted, true = np.array([10.0, 10.0]), np.array([20.0, 4.0])
    assert pinball(predicted, true, 0.5) == pytest.approx((5.0 + 3.0) / 2)
    assert pinball(predicted, true, 0.9) == pytest.approx((9.0 + 0.6) / 2)


def test_scores_by_hand() -> None:
    examples = [
        Example(Features(1, arrived_at=float(at)), Outcome(tokens, exact, at + 1.0))
        for at, (tokens, exact) in enumerate([(10, True), (20, True), (1, False), (40, True)])
    ]
    predictions = [Prediction(p50, 2 * p50, p50) for p50 in (12.0, 8.0, 99.0, 50.0)]
    scores = score(examples, predictions, range(4))
    assert (scores.requests, scores.censored) == (3, 1)
    assert scores.tau == pytest.approx(1 / 3)
    assert (scores.coverage_p50, scores.coverage_p90) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert scores.bias == pytest.approx(0.0)
    assert scores.order == "fcfs"
    assert score(examples, predictions, [2]).fields()["tau"] is None


def test_weights_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"none\.json: cannot be read: No such file"):
        predictor_from(tmp_path / "none.json")
    broken = tmp_path / "broken.json"
    for text, message in (
        ("{", "not JSON"),
        ("[]", "a list where an object"),
        ('{"format": 1}', "weights without name"),
    ):
        broken.write_text(text)
        with pytest.raises(Problem, match=rf"broken\.json: {message}"):
            predictor_from(broken)
    with pytest.raises(Problem, match="cannot be written"):
        write_weights({"heads": {}}, tmp_path / "no-such-folder" / "w.json")
    assert sorted(tmp_path.iterdir()) == [broken]
