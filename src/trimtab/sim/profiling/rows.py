"""From what clients saw to linear equations in the costs of a profile.

The unknowns are, in the order of `UNKNOWNS`, what a request takes beside its iterations and what an iteration takes
for its parts (see `trimtab.sim.profile`). Three things give an equation:

* **an idle request's first token**: the front end and the iterations of one prompt;
* **decoding together**: while a constant number of sequences decode and no prompt is computed, the mean iteration;
* **a prompt among decoding sequences**: the iterations that computed it, seen as gaps in the other answers. They hold
  no front end, which is what tells a slow tokenizer from a slow prefill.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final, Literal

import numpy as np

from trimtab.sim.profiling.target import Seen

UNKNOWNS: Final = (
    "front_end.per_request",
    "iteration.base",
    "iteration.per_prefill_token",
    "iteration.per_decode_sequence",
    "iteration.per_context_token",
    "iteration.per_attention_pair",
    "front_end.per_prompt_token",
    "iteration.mixed",
)
"""Their names in a profile's file, as far as the equations are linear in them; `estimate` knows those they are not."""

Kind = Literal["first token", "decoding", "interruption"]
_FEWEST_ITERATIONS: Final = 4


@dataclass(frozen=True, slots=True)
class Row:
    """One equation: `features` times the unknowns are `seconds`.

    Attributes:
        kind: What was seen.
        features: How much of each unknown is in it.
        sizes: Its iterations as (how many, of how many tokens), for the products with the weights.
        seconds: How long it took.
        note: What the load was, for people.
    """

    kind: Kind
    features: tuple[float, ...]
    sizes: tuple[tuple[float, float], ...]
    seconds: float
    note: str


def _chunks(prompt: int, room: int, beside: int = 0) -> tuple[tuple[float, float], ...]:
    """The iterations of a prompt in chunks of at most `room` tokens, with `beside` tokens more in each."""
    full, rest = divmod(prompt, room)
    return tuple((count, tokens + beside) for count, tokens in ((full, room), (int(rest > 0), rest)) if count)


def first_token_row(seen: Seen, budget: int) -> Row:
    """The first token of a request that was alone, on an engine that computes `budget` prompt tokens an iteration."""
    prompt = seen.prompt_tokens
    iterations = float(ceil(prompt / budget))
    features = (1.0, iterations, float(prompt), 0.0, 0.0, prompt * prompt / 2, float(prompt), iterations)
    return Row("first token", features, _chunks(prompt, budget), seen.ttft, f"{prompt} tokens")


@dataclass(frozen=True, slots=True)
class Together:
    """A stretch of time in which a constant number of sequences decoded.

    Attributes:
        sequences: How many.
        start: When the last of them had its first token.
        end: When the first of them had its last one.
    """

    sequences: int
    start: float
    end: float


def longest_together(seen: Sequence[Seen]) -> Together:
    """The longest stretch with the most sequences that decode at once; nobody's prompt is computed in it.

    With one more prompt to compute, and room for it, there would be one more sequence afterwards.
    """
    stretched = [s for s in seen if s.first_at < s.last_at]  # the others came in one piece
    changes = sorted([(s.first_at, 1) for s in stretched] + [(s.last_at, -1) for s in stretched])
    best, count = Together(0, 0.0, 0.0), 0
    following_changes = [*changes[1:], *changes[-1:]]
    for (time, change), (following, _) in zip(changes, following_changes, strict=True):
        count += change
        if (count, following - time) > (best.sequences, best.end - best.start):
            best = Together(count, time, following)
    return best


def decoding_row(seen: Sequence[Seen]) -> Row | None:
    """The mean iteration while as many sequences as ever in this burst decoded; None if that was too short."""
    together = longest_together(seen)
    if not together.sequences:
        return None
    inside = [s for s in seen if s.first_at <= together.start and s.last_at >= together.end]
    start, end = zip(*((s.tokens_by(together.start), s.tokens_by(together.end)) for s in inside), strict=True)
    iterations = float(np.median(np.array(end) - np.array(start)))
    if iterations < _FEWEST_ITERATIONS:
        return None
    # The iteration that makes token j reads the prompt and j - 2 tokens of the answer: all but the newest one.
    middle = (np.array(start) + np.array(end) - 3) / 2
    context = float(sum(s.prompt_tokens + tokens for s, tokens in zip(inside, middle, strict=True)))
    sequences = float(together.sequences)
    features = (0.0, 1.0, 0.0, sequences, context, 0.0, 0.0, 0.0)
    seconds = (together.end - together.start) / iterations
    note = f"{sequences:.0f} sequences, {context:.0f} tokens of context"
    return Row("decoding", features, ((1.0, sequences),), seconds, note)


def interruption_row(intruder: Seen, others: Sequence[Seen], budget: int) -> Row | None:
    """The iterations that computed a prompt while others decoded; None where the others' pieces do not show them.

    The others' pieces of the iteration that ended the prompt came with the intruder's first one; so many iterations
    before, it began.
    """
    decoding = [s for s in others if s.first_at < intruder.sent_at and s.last_at > intruder.first_at]
    room = budget - len(decoding)
    if not decoding or room < 1:
        return None
    iterations = ceil(intruder.prompt_tokens / room)
    spans, contexts = [], []
    for other in decoding:
        pieces = np.array(other.pieces)
        last = int(np.abs(pieces - intruder.first_at).argmin())
        if last >= iterations:
            spans.append(float(pieces[last] - pieces[last - iterations]))
        contexts.append(other.prompt_tokens + other.tokens_by(float(pieces[last])) - 2)
    if not spans:
        return None
    prompt, context = intruder.prompt_tokens, sum(contexts)
    features = (
        0.0,
        float(iterations),
        float(prompt),
        float(iterations * len(decoding)),
        float(iterations * context),
        prompt * prompt / 2,
        0.0,
        float(iterations),
    )
    sizes = _chunks(prompt, room, len(decoding))
    note = f"{prompt} tokens among {len(decoding)} sequences"
    return Row("interruption", features, sizes, float(np.median(spans)), note)
