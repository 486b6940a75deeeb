"""Prompts with a wanted number of tokens and wanted shared prefixes, the same for the same seed.

Every word has four letters and is one token of the common tokenizers, so that a prompt of n tokens is n words, and
n words are a slice of one long text. A real tokenizer may count a few percent more or fewer: the server's own count
is recorded.
"""

from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np

from trimtab.workload.request import BLOCK_TOKENS, TraceRequest

_WORDS: Final = tuple((Path(__file__).parent / "data" / "words.txt").read_text(encoding="utf-8").split())
_WIDTH: Final = 5
_MARK_WORDS: Final = 4


class Prompts:
    """Writes the prompts of one replay.

    Prompts differ from their first words on, so that they share no prefix, unless the trace gives them equal blocks.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        order = np.random.default_rng([seed, 2]).integers(0, len(_WORDS), 1 << 17)
        self._text = "".join(f"{_WORDS[place]} " for place in order)
        self._block = lru_cache(maxsize=4096)(self._new_block)

    def text(self, number: int, request: TraceRequest) -> str:
        """Return the prompt of the `number`-th request: `input_tokens` words."""
        if not request.blocks:
            return self._stretch(2 * number, request.input_tokens)[:-1]
        whole = "".join(self._block(block) for block in request.blocks)
        return whole[: request.input_tokens * _WIDTH - 1]

    def _new_block(self, block: int) -> str:
        return self._stretch(2 * block + 1, BLOCK_TOKENS)

    def _stretch(self, mark: int, words: int) -> str:
        """Return `words` words, each followed by a space: a few that spell `mark`, then a slice of the long text."""
        spelled = "".join(f"{_WORDS[mark // len(_WORDS) ** place % len(_WORDS)]} " for place in range(_MARK_WORDS))
        length = words * _WIDTH - len(spelled)
        # A multiplicative hash spreads neighboring marks over the long text.
        start = (mark * 2_654_435_761 + self._seed) % (len(self._text) // _WIDTH) * _WIDTH
        slices = [spelled]
        while length > 0:
            slices.append(self._text[start : start + length])
            length -= len(slices[-1])
            start = 0
        return "".join(slices)[: words * _WIDTH]
