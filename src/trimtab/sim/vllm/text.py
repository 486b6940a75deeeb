r"""Tokens and answers without a model.

The tokenizer is simple on purpose: a token is a special marker such as `<|im_start|>`, up to ten word characters, or
one other visible character; white space belongs to the token after it. A text of n short words therefore has n tokens.
A chat is wrapped as ChatML: three tokens more per message and two at the end.

Answers are words made of two syllables, one token each, drawn by a generator that is seeded with the engine's seed, the
request's `seed` and the prompt, so that the same request gets the same answer from engines with the same seed.
"""

import math
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, Literal
from zlib import crc32

from trimtab.sim.profile import OutputLength

VOCABULARY_SIZE: Final = 128_000
_TOKEN: Final = re.compile(r"<\|\w+\|>|\w{1,10}|[^\w\s]")
_SYLLABLES: Final = tuple(consonant + vowel for consonant in "bdfghjklmnprstvz" for vowel in "aeio")
_WORDS: Final = tuple(f" {first}{second}" for first in _SYLLABLES for second in _SYLLABLES)

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer before it is produced.

    Attributes:
        pieces: Text of each token; the end-of-answer token is "".
        stop_reason: The stop string that ended it, if one did.
    """

    pieces: list[str]
    finish_reason: FinishReason
    stop_reason: str | None = None


@dataclass(frozen=True, slots=True)
class AnswerLimits:
    """What a request says about the length of its answer.

    Attributes:
        exact_tokens: A length chosen by the client (`vllm_xargs.output_tokens`) instead of a drawn one.
    """

    max_tokens: int
    min_tokens: int = 0
    ignore_eos: bool = False
    stop: tuple[str, ...] = ()
    exact_tokens: int | None = None


def tokenize(text: str) -> list[str]:
    """Split a text into tokens."""
    return _TOKEN.findall(text)


def token_id(token: str) -> int:
    """A stable number for a token."""
    return crc32(token.encode()) % VOCABULARY_SIZE


def render_chat(messages: Iterable[Mapping[str, Any]], *, add_generation_prompt: bool = True) -> str:
    """The prompt of a conversation, as ChatML."""
    turns = [f"<|im_start|>{m.get('role', '')}\n{content_text(m.get('content'))}<|im_end|>\n" for m in messages]
    if add_generation_prompt:
        turns.append("<|im_start|>assistant\n")
    return "".join(turns)


def content_text(content: object) -> str:
    """The text of a message's content: a string, or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return ""


def block_hashes(tokens: Sequence[str], block_size: int, salt: str) -> tuple[int, ...]:
    """Chained hashes of the full blocks of a text; texts with different salts share none."""
    digest = blake2b(salt.encode(), digest_size=8).digest()
    hashes = []
    for start in range(0, len(tokens) - block_size + 1, block_size):
        block = " ".join(tokens[start : start + block_size]).encode()
        digest = blake2b(block, digest_size=8, key=digest).digest()
        hashes.append(int.from_bytes(digest, "big"))
    return tuple(hashes)


def generator_for(seed: int, *parts: object) -> random.Random:
    """A generator that depends on the seed and the parts alone, whatever the hash seed of the process."""
    digest = blake2b(repr((seed, *parts)).encode(), digest_size=8).digest()
    return random.Random(int.from_bytes(digest, "big"))  # noqa: S311 - texts and lengths, no secrets


def write_answer(generator: random.Random, limits: AnswerLimits, lengths: OutputLength) -> Answer:
    """Draw the length of an answer, where the request leaves it open, and its words."""
    natural = limits.exact_tokens or _draw_length(generator, lengths)
    tokens = max(natural, limits.min_tokens)
    if limits.ignore_eos or tokens >= limits.max_tokens:
        pieces = generator.choices(_WORDS, k=limits.max_tokens)
        answer = Answer(pieces, "length")
    else:
        answer = Answer([*generator.choices(_WORDS, k=tokens - 1), ""], "stop")
    return _cut_at_stop(answer, limits)


def _draw_length(generator: random.Random, lengths: OutputLength) -> int:
    return max(1, round(math.exp(generator.gauss(math.log(lengths.median_tokens), lengths.log_sigma))))


def _cut_at_stop(answer: Answer, limits: AnswerLimits) -> Answer:
    if not limits.stop:
        return answer
    text = ""
    for index, piece in enumerate(answer.pieces):
        searched = max(0, len(text) - max(map(len, limits.stop)))
        text += piece
        if index + 1 < limits.min_tokens:
            continue
        for stop in limits.stop:
            if (at := text.find(stop, searched)) >= 0:
                return Answer(_trim(answer.pieces[: index + 1], at), "stop", stop)
    return answer


def _trim(pieces: list[str], length: int) -> list[str]:
    """Cut the joined text to `length` characters without changing the number of pieces."""
    trimmed = []
    for piece in pieces:
        trimmed.append(piece[:length])
        length = max(0, length - len(piece))
    return trimmed
