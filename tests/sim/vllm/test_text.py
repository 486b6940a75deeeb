"""Tokens, hashes of blocks, and answers that depend on nothing but the seed and the request."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.sim.profile import OutputLength
from trimtab.sim.vllm import text
from trimtab.sim.vllm.text import Answer, AnswerLimits

LENGTHS = OutputLength(median_tokens=50, log_sigma=0.5)


@pytest.mark.parametrize(
    ("given_text", "tokens"),
    [
        ("", []),
        ("  \n", []),
        ("hello gateway", ["hello", "gateway"]),
        ("don't", ["don", "'", "t"]),
        ("internationalization", ["internatio", "nalization"]),
        ("<|im_start|>user\nhi", ["<|im_start|>", "user", "hi"]),
        ("größe 42€", ["größe", "42", "€"]),
    ],
)
def test_tokens(given_text: str, tokens: list[str]) -> None:
    assert text.tokenize(given_text) == tokens


@given(st.lists(st.from_regex(r"[a-z]{1,10}", fullmatch=True)))
def test_short_words_are_one_token_each(words: list[str]) -> None:
    assert text.tokenize(" ".join(words)) == words


def test_a_chat_costs_three_tokens_per_message_and_two() -> None:
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    assert len(text.tokenize(text.render_chat(messages))) == (3 + 2) + (3 + 1) + 2
    assert len(text.tokenize(text.render_chat(messages, add_generation_prompt=False))) == (3 + 2) + (3 + 1)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("hi", "hi"),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "a\nb"),
        (None, ""),
        (["bare"], ""),
    ],
)
def test_content_of_a_message(content: object, expected: str) -> None:
    assert text.content_text(content) == expected


def test_hashes_cover_full_blocks_and_chain() -> None:
    first = text.block_hashes(["a", "b", "c", "d", "e"], 2, "")
    second = text.block_hashes(["a", "b", "x", "d"], 2, "")
    other = text.block_hashes(["z", "b", "c", "d"], 2, "")
    assert len(first) == 2
    assert first[0] == second[0]
    assert first[1] != second[1]
    assert first[1] != other[1], "equal blocks after different prefixes differ"
    assert text.block_hashes(["a"], 2, "") == ()


def test_a_salt_isolates() -> None:
    assert text.block_hashes(["a", "b"], 2, "x") != text.block_hashes(["a", "b"], 2, "y")


@given(st.lists(st.sampled_from("abc"), max_size=12), st.lists(st.sampled_from("abc"), max_size=12))
def test_hashes_agree_exactly_as_far_as_the_prefixes_do(first: list[str], second: list[str]) -> None:
    hashes = zip(text.block_hashes(first, 2, ""), text.block_hashes(second, 2, ""), strict=False)
    for index, (one, other) in enumerate(hashes):
        end = 2 * (index + 1)
        assert (one == other) == (first[:end] == second[:end])


def answer(limits: AnswerLimits, seed: int = 0) -> Answer:
    return text.write_answer(text.generator_for(seed, "prompt"), limits, LENGTHS)


def test_ignore_eos_fills_the_limit() -> None:
    written = answer(AnswerLimits(200, ignore_eos=True))
    assert (len(written.pieces), written.finish_reason) == (200, "length")
    assert text.tokenize("".join(written.pieces)) == [piece.strip() for piece in written.pieces]


def test_a_drawn_answer_ends_by_itself_with_an_empty_token() -> None:
    written = answer(AnswerLimits(100_000))
    assert written.finish_reason == "stop"
    assert written.pieces[-1] == ""
    assert all(written.pieces[:-1])


def test_the_limit_cuts_a_drawn_answer() -> None:
    assert [len(answer(AnswerLimits(3), seed).pieces) for seed in range(20)] == [3] * 20


def test_min_tokens_stretches_a_drawn_answer() -> None:
    assert all(len(answer(AnswerLimits(1000, min_tokens=400), seed).pieces) >= 400 for seed in range(20))


@pytest.mark.parametrize(
    ("exact", "limit", "tokens", "reason"), [(1, 50, 1, "stop"), (7, 50, 7, "stop"), (50, 50, 50, "length")]
)
def test_an_exact_length(exact: int, limit: int, tokens: int, reason: str) -> None:
    written = answer(AnswerLimits(limit, exact_tokens=exact))
    assert (len(written.pieces), written.finish_reason) == (tokens, reason)


def test_drawn_lengths_have_the_median_of_the_profile() -> None:
    lengths = sorted(len(answer(AnswerLimits(100_000), seed).pieces) for seed in range(400))
    assert 44 <= lengths[200] <= 56
    assert lengths[40] < 35
    assert lengths[360] > 75


class TestStop:
    def cut(self, stop: str, **limits: object) -> tuple[str, Answer]:
        plain = "".join(answer(AnswerLimits(60, ignore_eos=True)).pieces)
        return plain, answer(AnswerLimits(60, ignore_eos=True, stop=(stop,), **limits))  # type: ignore[arg-type]

    def test_the_text_ends_before_the_first_stop_string(self) -> None:
        plain, _ = self.cut("")
        stop = plain[100:104]
        _, written = self.cut(stop)
        assert "".join(written.pieces) == plain[: plain.index(stop)]
        assert (written.finish_reason, written.stop_reason) == ("stop", stop)

    def test_the_token_that_completes_it_is_counted(self) -> None:
        plain, _ = self.cut("")
        words = plain.split(" ")[1:]
        _, written = self.cut(f"{words[4]} {words[5]}")
        assert len(written.pieces) == 6
        assert "".join(written.pieces) == " " + " ".join(words[:4]) + " "

    def test_a_stop_string_that_never_comes_changes_nothing(self) -> None:
        plain, written = self.cut("QQQ")
        assert "".join(written.pieces) == plain
        assert written.stop_reason is None

    def test_it_is_not_looked_for_before_min_tokens(self) -> None:
        _, written = self.cut("a", min_tokens=20)
        assert len(written.pieces) >= 20


def test_answers_depend_on_the_seed_and_the_request_alone() -> None:
    code = (
        "from trimtab.sim.vllm import text; from trimtab.sim.profile import OutputLength;"
        "g = text.generator_for(3, None, '', 0, ['a', 'b']);"
        "print(text.write_answer(g, text.AnswerLimits(500), OutputLength(50, .5)));"
        "print(text.block_hashes(['a', 'b'], 2, ''))"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("0", "1", "77")
    }
    assert len(runs) == 1
    assert answer(AnswerLimits(500), 1) != answer(AnswerLimits(500), 2)
