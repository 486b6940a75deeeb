"""The parts of a measurement, one by one."""

from dataclasses import replace

import numpy as np
import pytest

from tests.sim.profiling.known import FRONT, SLOW, known_engine
from trimtab.sim.iteration import EngineConfig
from trimtab.sim.profile import IterationCost
from trimtab.sim.profiling.budget import estimate_budget
from trimtab.sim.profiling.estimate import estimate, solve, speed_of
from trimtab.sim.profiling.judge import judge
from trimtab.sim.profiling.load import Limits
from trimtab.sim.profiling.measure import Measurements
from trimtab.sim.profiling.modelled import ModelledTarget, Speed
from trimtab.sim.profiling.rows import (
    UNKNOWNS,
    Row,
    decoding_row,
    first_token_row,
    interruption_row,
    longest_together,
)
from trimtab.sim.profiling.target import Ask, Seen


def seen(sent: float, *pieces: float, prompt: int = 100, tokens: int | None = None) -> Seen:
    return Seen(prompt, len(pieces) if tokens is None else tokens, sent, pieces)


def test_tokens_between_the_pieces_of_a_lumpy_stream() -> None:
    lumpy = seen(0.0, 1.0, 2.0, 3.0, tokens=9)  # five pieces would be tokens; three pieces hold nine
    assert [lumpy.tokens_by(t) for t in (0.5, 1.0, 2.0, 9.0)] == [0, 1, 5, 9]
    assert lumpy.time_between_tokens == 0.25
    assert seen(0.0, 1.0).time_between_tokens is None


def test_the_longest_stretch_with_the_most_that_decode() -> None:
    together = longest_together([seen(0, 1, 9), seen(0, 2, 8), seen(0, 3, 4), seen(0, 5, 8.5)])
    assert (together.sequences, together.start, together.end) == (3, 5, 8)


def test_an_answer_that_came_in_one_lump_gives_no_equation() -> None:
    assert decoding_row([seen(0.0, *[1.0] * 20)]) is None
    assert decoding_row([seen(0.0, *[at] * 20) for at in (1.0, 2.0)]) is None
    assert decoding_row([seen(0.0, 1.0, 1.1, 1.2)]) is None, "too short"


def test_equations_hold_for_an_engine_without_noise() -> None:
    target = known_engine()
    costs = [getattr(SLOW, name.split(".")[1]) for name in UNKNOWNS[1:6]]
    true = np.array([FRONT.per_request, *costs, FRONT.per_prompt_token, SLOW.mixed])
    idle = target.play([Ask(3000, 12)], 1, 9e9)
    burst = target.play([Ask(300, 40)] * 8, 8, 9e9)
    mixed = target.play([Ask(64, 60)] * 3 + [Ask(32, 8), Ask(3000, 2)], 4, 9e9)
    rows = [
        first_token_row(idle[0], 2048),
        decoding_row(idle),
        decoding_row(burst),
        interruption_row(mixed[-1], mixed[:3], 2048),
    ]
    for row in rows:
        assert row is not None
        assert float(np.array(row.features) @ true) == pytest.approx(row.seconds, rel=1e-3), row.kind
    assert rows[2] is not None
    assert rows[2].features[3] == 8
    assert first_token_row(idle[0], 2048).sizes == ((1, 2048), (1, 952))
    assert rows[3] is not None
    assert rows[3].sizes == ((1, 2048), (1, 3000 - 2045 + 3)), "three sequences decode beside the prompt"


def test_a_prompt_that_nobody_was_interrupted_by_gives_no_equation() -> None:
    assert interruption_row(seen(5.0, 6.0), [seen(0, 1, 2)], 2048) is None
    assert interruption_row(seen(5.0, 6.0), [seen(0, 1, 9)], 1) is None, "no room in an iteration"


@pytest.mark.parametrize("budget", [512, 1000, 2048, 4096])
def test_the_budget_of_an_iteration(budget: int) -> None:
    target = known_engine(budget=budget, noise=0.05)
    interrupted = []
    for _ in range(4):
        asks = [Ask(64, 130)] * 3 + [Ask(32, 8), *(Ask(length, 2) for length in (500, 900, 1700, 3000, 6000))]
        answers = target.play(asks, 4, 9e9)
        interrupted.append((answers[:3], answers[4:]))
    found = estimate_budget(interrupted)
    assert found is not None
    assert found.low <= budget + 64
    assert found.high is not None
    assert found.high >= budget - 64
    assert found.tokens == pytest.approx(budget, rel=0.1)


def test_no_budget_is_made_of_noise() -> None:
    """Prompts that cost little, on an engine whose iterations vary, came in one part as far as can be seen."""
    cheap = IterationCost(0.002, 1e-6, 5e-5, 1e-8, 1e-10)
    target = known_engine(cost=cheap, budget=2048, noise=0.3)
    interrupted = []
    for _ in range(6):
        asks = [Ask(64, 90)] * 3 + [Ask(32, 8), *(Ask(length, 2) for length in (32, 64, 128, 256, 512, 900))]
        answers = target.play(asks, 4, 9e9)
        interrupted.append((answers[:3], answers[4:]))
    found = estimate_budget(interrupted)
    assert found is not None
    assert (found.tokens, found.high) == (1024, None)


def test_no_budget_without_interruptions() -> None:
    assert estimate_budget([]) is None
    assert estimate_budget([([], [seen(0, 1, 2)])]) is None


def test_a_cost_that_is_not_there_is_zero_and_not_negative() -> None:
    rng = np.random.default_rng(0)
    features = rng.random((40, 3)) + 0.1
    seconds = features @ np.array([1.0, 0.0, 2.0]) * (1 + 0.01 * rng.standard_normal(40))
    solution = solve(features, seconds)
    assert (solution >= 0).all()
    assert solution == pytest.approx([1.0, 0.0, 2.0], abs=0.03)


def test_outliers_do_not_move_the_solution() -> None:
    rng = np.random.default_rng(1)
    features = np.column_stack([np.ones(60), rng.random(60)])
    seconds = features @ np.array([1.0, 3.0])
    seconds[::6] *= 5
    assert solve(features, seconds) == pytest.approx([1.0, 3.0], rel=1e-3)


def test_without_interruptions_the_prompt_token_is_all_prefill() -> None:
    rows = [Row("first token", (1, 1, p, 0, 0, 0, p, 1), ((1, p),), 0.01 + 1e-4 * p, "") for p in (100, 200, 400, 800)]
    rows += [Row("decoding", (0, 1, 0, n, 0, 0, 0, 0), ((1, n),), 0.004 + 1e-3 * n, "") for n in (1, 2, 4)]
    found = estimate(rows, np.random.default_rng(0))
    assert found.values["front_end.per_prompt_token"] == 0
    assert found.values["iteration.per_prefill_token"] == pytest.approx(1e-4)
    assert found.speed == speed_of(found.values)


def test_the_judge_sees_a_prediction_that_is_off() -> None:
    config = EngineConfig(kv_blocks=4096, max_num_seqs=8, prefix_caching=False)
    answers = ModelledTarget(config, Speed(FRONT, SLOW)).play([Ask(200, 20)] * 60, 16, 9e9)
    exact = {(f.metric, f.quantile): f.error for f in judge(answers, 16, config, Speed(FRONT, SLOW))}
    assert max(map(abs, exact.values())) < 1e-9
    slow = Speed(FRONT, replace(SLOW, base=2 * SLOW.base))
    off = {(f.metric, f.quantile): f.error for f in judge(answers, 16, config, slow)}
    assert off["time between tokens", 0.5] > 0.5
    assert off["output tokens per second", None] < -0.2


@pytest.mark.parametrize("max_model_len", [256, 1024, 4096, 131_072])
@pytest.mark.parametrize("kv_tokens", [None, 2000, 10**6])
def test_the_load_fits_into_the_context_and_the_cache(max_model_len: int, kv_tokens: int | None) -> None:
    limits = Limits(max_model_len, kv_tokens, 64, 600)
    lengths = limits.prompt_lengths()
    assert lengths == sorted(set(lengths))
    assert lengths[-1] <= min(8192, max_model_len)
    assert len(lengths) >= 3
    asks = [asks for level in limits.levels() for asks in limits.bursts(level)]
    asks += [limits.interruption(8, lengths)[0], limits.mixture(np.random.default_rng(0), 200, 1.0)]
    assert all(ask.prompt_tokens + ask.output_tokens <= max_model_len for burst in asks for ask in burst)
    if kv_tokens:
        bursts = [asks for level in limits.levels() for asks in limits.bursts(level)]
        assert all(sum(a.prompt_tokens + a.output_tokens for a in burst) <= kv_tokens for burst in bursts)


def test_clients_send_one_after_the_other_and_stop_in_time() -> None:
    target = known_engine()
    answers = target.play([Ask(100, 10)] * 50, 2, 0.5)
    assert 2 < len(answers) < 50
    assert all(answer.sent_at < 0.5 for answer in answers)
    by_client = sorted(answers, key=lambda a: a.sent_at)
    assert all(later.sent_at >= earlier.last_at for earlier, later in zip(by_client, by_client[2:], strict=False))


def waves(sequences: int, clients: int) -> list[Seen]:
    return known_engine(sequences=sequences, noise=0.05).play([Ask(100, 40)] * clients, clients, 9e9)


def lump(answer: Seen) -> Seen:
    """The same answer, delivered in one piece at its end."""
    return Seen(answer.prompt_tokens, answer.output_tokens, answer.sent_at, (answer.last_at,) * answer.output_tokens)


def test_the_limit_of_a_batch_shows_as_waves() -> None:
    assert Measurements().sequences == 1
    assert not Measurements().sequences_bounded
    fits = Measurements(bursts=[waves(16, 8), waves(16, 16)])
    assert (fits.sequences, fits.sequences_bounded) == (16, False)
    waits = Measurements(bursts=[waves(16, 8), waves(16, 32)])
    assert (waits.sequences, waits.sequences_bounded) == (16, True)


def test_answers_delivered_in_lumps_are_no_limit() -> None:
    whole = waves(64, 32)
    lumpy = [lump(answer) if n % 2 else answer for n, answer in enumerate(whole)]
    seen = Measurements(bursts=[waves(64, 8), lumpy])
    assert (seen.sequences, seen.sequences_bounded) == (16, False)
