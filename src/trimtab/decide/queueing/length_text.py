"""Cheap features of a prompt's text: what somebody who skims it would look at, in half a millisecond at most.

No weights for them ship: none of the data sets that Trimtab is trained on holds prompts. An operator trains them from
an own log (`trimtab predictor train --features lexical`). The words are English; for other languages only the counts
of characters, lines and marks say something. The choice of features is ours; a paper that ssjf.md §3.1 cites uses 19.
"""

import re
from collections.abc import Callable

_HEAD_CHARACTERS = 500
_TAIL_CHARACTERS = 2_000

_WORD = re.compile(r"[^\W\d_]+")
_SENTENCE = re.compile(r"[.!?]+(?:\s|$)")
_LIST_ITEM = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s", re.MULTILINE)
_WANTED = re.compile(
    r"(\d{1,5})[ -](?:words?|sentences?|paragraphs?|lines?|items?|examples?|points?|pages?|steps?|ideas?|ways?)"
)
_CODE = re.compile(r"```|\bdef |\bclass |\bimport |#include|\bfunction\b|\bselect\b.+\bfrom\b|[{};]$", re.MULTILINE)
_ASKS_FOR_CODE = re.compile(r"\b(?:code|script|function|program|python|java|javascript|sql|html|regex|bash)\b")
_BRIEF = re.compile(r"\b(?:brief|briefly|short|shortly|concise|concisely|one word|one sentence|yes or no|only|just)\b")
_LONG = re.compile(
    r"\b(?:essay|article|story|detailed|in detail|long|comprehensive|step by step|explain|plan|list|report|letter)\b"
)
_TRANSFORMS = re.compile(r"\b(?:translate|summari[sz]e|rewrite|rephrase|paraphrase|correct|proofread|edit|shorten)\b")
_CLASSIFIES = re.compile(r"\b(?:classify|extract|label|category|sentiment|true or false|multiple choice|which of)\b")
_FORMATS = re.compile(r"\b(?:json|yaml|csv|table|xml|markdown|bullet)\b")
_QUESTION = re.compile(r"^\s*(?:who|what|when|where|which|why|how|is|are|do|does|can|could|should|will)\b")


def truncate(text: str) -> str:
    """Return the part of a prompt that a predictor is sent: its first 500 and its last 2,000 characters."""
    if len(text) <= _HEAD_CHARACTERS + _TAIL_CHARACTERS:
        return text
    return f"{text[:_HEAD_CHARACTERS]} {text[-_TAIL_CHARACTERS:]}"


_DIGITS = b"0123456789"
_CAPITALS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _share(marks: bytes) -> Callable[[str, str], float]:
    """Count ASCII characters, as a share of all characters; deleting them at once is faster than looking at each."""

    def share(text: str, _: str) -> float:
        seen = text.encode("ascii", "ignore")
        return (len(seen) - len(seen.translate(None, marks))) / max(1, len(text))

    return share


def _not_ascii(text: str, _: str) -> float:
    return 1.0 - len(text.encode("ascii", "ignore")) / max(1, len(text)) if text else 0.0


def _found(pattern: re.Pattern[str]) -> Callable[[str, str], float]:
    return lambda _, lowered: float(len(pattern.findall(lowered)))


def _is_found(pattern: re.Pattern[str]) -> Callable[[str, str], float]:
    return lambda _, lowered: float(pattern.search(lowered) is not None)


def _variety(_: str, lowered: str) -> float:
    words = _WORD.findall(lowered)
    return len(set(words)) / max(1, len(words))


def _wanted(_: str, lowered: str) -> float:
    return float(max((int(number) for number in _WANTED.findall(lowered)), default=0))


_FEATURES: dict[str, Callable[[str, str], float]] = {
    "characters": lambda text, _: float(len(text)),
    "words": lambda text, _: float(len(_WORD.findall(text))),
    "lines": lambda text, _: float(text.count("\n") + 1),
    "sentences": lambda text, _: float(len(_SENTENCE.findall(text))),
    "variety": _variety,
    "digits": _share(_DIGITS),
    "capitals": _share(_CAPITALS),
    "not_ascii": _not_ascii,
    "question_marks": lambda text, _: float(text.count("?")),
    "starts_as_question": _is_found(_QUESTION),
    "list_items": _found(_LIST_ITEM),
    "code": _found(_CODE),
    "asks_for_code": _is_found(_ASKS_FOR_CODE),
    "asks_for_format": _is_found(_FORMATS),
    "brief_words": _found(_BRIEF),
    "long_words": _found(_LONG),
    "transforms": _is_found(_TRANSFORMS),
    "classifies": _is_found(_CLASSIFIES),
    "wanted_number": _wanted,
}

COLUMNS = tuple(f"text_{name}" for name in _FEATURES)
"""What `lexical` returns, in order."""


def lexical(text: str) -> tuple[float, ...]:
    """Return the features of a prompt, of which only the truncated part is looked at."""
    seen = truncate(text)
    lowered = seen.lower()
    return tuple(feature(seen, lowered) for feature in _FEATURES.values())
