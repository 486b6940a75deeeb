"""Cheap features of a prompt's text."""

from trimtab.decide.queueing.length_text import COLUMNS, lexical, truncate


def seen(text: str) -> dict[str, float]:
    return {name.removeprefix("text_"): value for name, value in zip(COLUMNS, lexical(text), strict=True)}


def test_there_are_nineteen_finite_ones_whatever_the_text() -> None:
    assert len(COLUMNS) == 19
    for text in ("", " ", "???", "é" * 5_000, "\n" * 9, "```" * 2_000, "9" * 99):
        assert all(value == value and abs(value) < 1e6 for value in lexical(text))  # noqa: PLR0124 - NaN


def test_short_and_long_wishes_are_told_apart() -> None:
    brief = seen("Is 7 prime? Answer yes or no only.")
    assert (brief["brief_words"], brief["question_marks"], brief["starts_as_question"]) == (2.0, 1.0, 1.0)
    story = seen("Write a detailed essay of 800 words about tides. Explain step by step.")
    assert (story["long_words"], story["wanted_number"], story["sentences"]) == (4.0, 800.0, 2.0)


def test_code_formats_and_transformations_are_seen() -> None:
    code = seen("Write a python function:\n```\ndef f(x):\n```\n- fast\n- short\n1. typed")
    assert code["asks_for_code"] == 1.0
    assert code["code"] >= 3.0
    assert code["list_items"] == 3.0
    assert code["lines"] == 7.0
    assert seen("Translate to German")["transforms"] == 1.0
    assert seen("Extract the names as JSON")["asks_for_format"] == 1.0
    assert seen("Classify the sentiment")["classifies"] == 1.0


def test_shares_are_shares() -> None:
    half = seen("AB12")
    assert (half["digits"], half["capitals"], half["not_ascii"]) == (0.5, 0.5, 0.0)
    assert seen("ab ab ab ab")["variety"] == 0.25


def test_only_the_head_and_the_tail_of_a_long_prompt_are_sent() -> None:
    text = "a" * 500 + "b" * 10_000 + "c" * 2_000
    assert truncate(text) == "a" * 500 + " " + "c" * 2_000
    assert truncate("short") == "short"
