"""An engine behind an OpenAI-compatible API as a target."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Final

from trimtab.api.openai import CHAT_COMPLETIONS, COMPLETIONS
from trimtab.model.problem import Problem
from trimtab.sim.profiling.attention import first_in_line
from trimtab.sim.profiling.target import Ask, Seen
from trimtab.workload.answer import Answer, Outcome
from trimtab.workload.prompt import Prompts
from trimtab.workload.replay import ReplaySettings, request_body
from trimtab.workload.request import TraceRequest
from trimtab.workload.wire import AnswerLost, Client, Clock

_BAD_REQUEST: Final = 400
_UNPROCESSABLE: Final = 422
_UNAUTHORIZED: Final = frozenset({401, 403})
_REFUSALS: Final = frozenset({429, 503})
_FAILED_SHARE: Final = 0.05
_PROBE_WORDS: Final = (60, 360)
_PROBE_TOKENS: Final = 8


@dataclass(frozen=True, slots=True)
class Manner:
    """How requests are written.

    Attributes:
        model: What they name.
        chat: Chat completions; False: plain completions.
        exact_output: Whether answers are asked to have exactly the wanted length (`min_tokens`, `ignore_eos`).
        tokens_per_word: Of the prompts' words, by the engine's tokenizer.
        extra_tokens: What every prompt has besides its words.
    """

    model: str
    chat: bool = True
    exact_output: bool = True
    tokens_per_word: float = 1.0
    extra_tokens: float = 0.0

    def words(self, prompt_tokens: int) -> int:
        """Words that make about so many tokens."""
        return max(1, round((prompt_tokens - self.extra_tokens) / self.tokens_per_word))


class HttpTarget:
    """Sends requests to one engine.

    Args:
        client: Connected to it.
        manner: How requests are written.
        clock: The client's, in seconds.
        seed: Of the prompts, no two of which are equal; another one for every measurement, else the engine finds them
            in its prefix cache.
        patience_seconds: How long one answer may take.

    Attributes:
        manner: See above.
        sent: Requests so far.
        prompt_tokens: Of the answered ones, as the engine counted.
        output_tokens: Of the answered ones, as the engine counted.
    """

    def __init__(self, client: Client, manner: Manner, *, clock: Clock, seed: int, patience_seconds: float) -> None:
        self.manner = manner
        self.sent = 0
        self.prompt_tokens = 0
        self.output_tokens = 0
        self._client = client
        self._clock = clock
        self._prompts = Prompts(seed)
        self._offset = seed % 1_000_000  # the first words of a prompt spell its number
        self._patience_seconds = patience_seconds

    def clock(self) -> float:
        """See `Target`."""
        return self._clock()

    async def serve(self, asks: Sequence[Ask], clients: int, seconds: float) -> list[Seen]:
        """See `Target`."""
        with first_in_line():
            return await self._serve(asks, clients, self.clock() + seconds)

    async def _serve(self, asks: Sequence[Ask], clients: int, ends_at: float) -> list[Seen]:
        queue = deque(enumerate(asks))
        answered: dict[int, tuple[float, Answer]] = {}

        async def one_client() -> None:
            while queue and (self.clock() < ends_at or not answered):
                place, ask = queue.popleft()
                answered[place] = await self._ask(self.manner.words(ask.prompt_tokens), ask.output_tokens)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(clients, len(asks))):
                group.create_task(one_client())
        return self._seen([answered[place] for place in sorted(answered)])

    def _seen(self, answered: Sequence[tuple[float, Answer]]) -> list[Seen]:
        good = [(sent_at, answer) for sent_at, answer in answered if answer.outcome() is Outcome.OK and answer.pieces]
        if len(good) < (1 - _FAILED_SHARE) * len(answered):
            raise failure(
                next(answer for _, answer in answered if answer.outcome() is not Outcome.OK or not answer.pieces)
            )
        seen = []
        for sent_at, answer in good:
            pieces = tuple(accumulate(answer.gaps, initial=answer.first_content))
            pieces = pieces[: answer.output_tokens] or pieces  # an empty piece may follow the last token
            output = max(answer.output_tokens, len(pieces))
            self.prompt_tokens += answer.prompt_tokens
            self.output_tokens += answer.output_tokens
            seen.append(Seen(answer.prompt_tokens, output, sent_at, pieces, answer.cached_tokens))
        return seen

    async def _ask(self, words: int, output_tokens: int) -> tuple[float, Answer]:
        """Send one request; returns when, and what came."""
        number, self.sent = self.sent, self.sent + 1
        request = TraceRequest(0.0, words, output_tokens)
        prompt = self._prompts.text(self._offset + number, request)
        settings = ReplaySettings(self.manner.model, chat=self.manner.chat, exact_output=self.manner.exact_output)
        answer, sent_at = Answer(empty_pieces=True), self.clock()
        path = CHAT_COMPLETIONS if self.manner.chat else COMPLETIONS
        try:
            async with asyncio.timeout(self._patience_seconds):
                await self._client.send("POST", path, request_body(settings, prompt, request), answer)
            answer.on_end(self.clock())
        except TimeoutError:
            answer.error, answer.complete = f"no answer in {self._patience_seconds:g} s", False
        except AnswerLost as lost:
            answer.error, answer.complete = str(lost), False
        return sent_at, answer

    async def learn_manner(self) -> None:
        """Find out what the engine accepts, and how it counts the words of prompts.

        Raises:
            Problem: It does not answer, or does not count tokens.
        """
        answer = await self._accepted()
        if not answer.prompt_tokens or not answer.output_tokens:
            raise Problem(
                "the engine does not say how many tokens it read and wrote (`usage` in the stream)",
                fix="point --url at an engine that supports stream_options.include_usage, such as vLLM or SGLang",
            )
        await self._accepted()  # the first one met a cold engine and a new connection
        short, long = [(await self._accepted(words)).prompt_tokens for words in _PROBE_WORDS]
        per_word = (long - short) / (_PROBE_WORDS[1] - _PROBE_WORDS[0])
        if per_word <= 0:
            raise Problem(
                f"the engine counts {short} tokens in a short prompt and {long} in a long one",
                fix="point --url at an engine that counts the tokens of a prompt in `usage`",
            )
        extra = max(0.0, short - per_word * _PROBE_WORDS[0])
        self.manner = replace(self.manner, tokens_per_word=per_word, extra_tokens=extra)

    async def _accepted(self, words: int = _PROBE_WORDS[0]) -> Answer:
        """Send one small request, if need be without the fields that not every engine knows, or as a completion."""
        for chat, exact in ((True, True), (True, False), (False, True), (False, False)):
            if (chat and not self.manner.chat) or (exact and not self.manner.exact_output):
                continue
            self.manner = replace(self.manner, chat=chat, exact_output=exact)
            _, answer = await self._ask(words, _PROBE_TOKENS)
            if answer.status not in {_BAD_REQUEST, _UNPROCESSABLE, 404}:
                break
            self.manner = replace(self.manner, chat=True, exact_output=True)
        if answer.outcome() is not Outcome.OK:
            raise failure(answer)
        return answer


def _is_whole(answer: Answer) -> bool:
    return answer.outcome() is Outcome.OK and answer.pieces > 0


def failure(answer: Answer) -> Problem:
    """Say what a person can do about an answer that did not come."""
    if answer.status in _UNAUTHORIZED:
        fix = "pass --api-key-file, or put the key into OPENAI_API_KEY"
        return Problem(f"the engine answered {answer.status}: {answer.error}", fix=fix)
    if answer.status in _REFUSALS:
        fix = "lower --max-concurrency, or measure when the engine has nothing else to do"
        return Problem(f"the engine refuses the load (status {answer.status}): {answer.error}", fix=fix)
    if answer.outcome() is Outcome.OK:
        return Problem("an answer came without any text", fix="see what the engine answers to a long prompt of words")
    if not answer.status:
        return Problem(f"no answer: {answer.error}", fix="check that the engine at --url is ready")
    what = answer.error or "the stream ended before the answer was complete"
    return Problem(f"a request failed (status {answer.status}): {what}", fix="see the engine's log")
