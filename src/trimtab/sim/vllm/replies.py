"""Answers in vLLM's JSON, whole and streamed."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson

from trimtab.sim.vllm.driver import Job
from trimtab.sim.vllm.errors import BUSY, ApiError
from trimtab.sim.vllm.http import Exchange
from trimtab.sim.vllm.settings import VLLM_VERSION

FINGERPRINT: Final = f"vllm-{VLLM_VERSION}-trimtab"
_DONE: Final = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class ReplyOptions:
    """How one answer is to look.

    Attributes:
        prompt_tokens: Of all prompts together.
        include_usage: A stream ends with a chunk of usage.
        continuous_usage: Every chunk carries usage.
        prompt_details: Usage says how much of the prompt came from the prefix cache.
        interval: Tokens per chunk, at least.
    """

    request_id: str
    model: str
    created: int
    prompt_tokens: int
    block_size: int
    include_usage: bool = False
    continuous_usage: bool = False
    prompt_details: bool = False
    interval: int = 1


class Shape(ABC):
    """What distinguishes the JSON of chat completions from that of text completions."""

    id_prefix: str
    whole_object: str
    chunk_object: str

    @abstractmethod
    def chunk_choice(self, index: int, text: str, finish_reason: str | None, stop_reason: str | None) -> dict[str, Any]:
        """A choice of a chunk; `finish_reason` only in the last one."""

    @abstractmethod
    def whole_choice(self, index: int, text: str, finish_reason: str, stop_reason: str | None) -> dict[str, Any]:
        """A choice of a whole answer."""

    @abstractmethod
    def opening_choice(self, index: int) -> dict[str, Any] | None:
        """The choice of the chunk before the first text, if there is one."""

    @abstractmethod
    def details(self, cached: int, created: int, *, streamed: bool) -> dict[str, Any]:
        """`prompt_tokens_details`."""

    @abstractmethod
    def whole_tail(self) -> dict[str, Any]:
        """Fields at the end of a whole answer."""

    @abstractmethod
    def running_usage(self, usage: dict[str, Any]) -> dict[str, Any]:
        """Usage as it is shown in the middle of a stream."""


class ChatShape(Shape):
    """`/v1/chat/completions`."""

    id_prefix = "chatcmpl-"
    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def chunk_choice(self, index: int, text: str, finish_reason: str | None, stop_reason: str | None) -> dict[str, Any]:
        """A delta of the assistant's message."""
        choice = {"index": index, "delta": {"content": text}, "logprobs": None, "finish_reason": finish_reason}
        if finish_reason is not None:
            choice["stop_reason"] = stop_reason
        return {**choice, "token_ids": None}

    def whole_choice(self, index: int, text: str, finish_reason: str, stop_reason: str | None) -> dict[str, Any]:
        """The assistant's message."""
        message = {
            "role": "assistant",
            "content": text,
            "refusal": None,
            "annotations": None,
            "audio": None,
            "function_call": None,
            "reasoning": None,
        }
        return {
            "index": index,
            "message": message,
            "logprobs": None,
            "finish_reason": finish_reason,
            "stop_reason": stop_reason,
            "token_ids": None,
            "routed_experts": None,
        }

    def opening_choice(self, index: int) -> dict[str, Any] | None:
        """The chunk that names the role."""
        delta = {"role": "assistant", "content": ""}
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}

    def details(self, cached: int, created: int, *, streamed: bool) -> dict[str, Any]:
        """Tokens found in the cache, and tokens that are in it from now on."""
        details: dict[str, Any] = {"cached_tokens": cached, "created_cache_tokens": created}
        return details if streamed else {**details, "multimodal_tokens": None}

    def whole_tail(self) -> dict[str, Any]:
        """Fields that are always null here."""
        names = ("prompt_logprobs", "prompt_token_ids", "prompt_text")
        return dict.fromkeys((*names, "kv_transfer_params", "ec_transfer_params", "metrics"))

    def running_usage(self, usage: dict[str, Any]) -> dict[str, Any]:
        """With an empty field for details, as vLLM has it."""
        return {**usage, "completion_tokens_details": None}


class TextShape(Shape):
    """`/v1/completions`."""

    id_prefix = "cmpl-"
    whole_object = "text_completion"
    chunk_object = "text_completion"

    def chunk_choice(self, index: int, text: str, finish_reason: str | None, stop_reason: str | None) -> dict[str, Any]:
        """A piece of the text."""
        choice = {"index": index, "text": text, "logprobs": None, "finish_reason": finish_reason}
        return {**choice, "stop_reason": stop_reason, "prompt_token_ids": None, "token_ids": None}

    def whole_choice(self, index: int, text: str, finish_reason: str, stop_reason: str | None) -> dict[str, Any]:
        """The text."""
        choice = {"index": index, "text": text, "logprobs": None, "finish_reason": finish_reason}
        nothing = dict.fromkeys(("token_ids", "prompt_logprobs", "prompt_token_ids", "routed_experts"))
        return {**choice, "stop_reason": stop_reason, **nothing}

    def opening_choice(self, index: int) -> dict[str, Any] | None:
        """None: the first chunk has text."""
        del index
        return None

    def details(self, cached: int, created: int, *, streamed: bool) -> dict[str, Any]:
        """Tokens found in the cache."""
        del created
        whole = {"cached_tokens": cached, "created_cache_tokens": None, "multimodal_tokens": None}
        return {"cached_tokens": cached} if streamed else whole

    def whole_tail(self) -> dict[str, Any]:
        """Fields that are always null here."""
        return dict.fromkeys(("kv_transfer_params", "ec_transfer_params", "metrics"))

    def running_usage(self, usage: dict[str, Any]) -> dict[str, Any]:
        """As it is."""
        return usage


class Reply(ABC):
    """The answer to one request: listens to its jobs and writes to its exchange.

    Attributes:
        jobs: One per choice; filled by the caller before they are submitted.
    """

    def __init__(
        self, exchange: Exchange, shape: Shape, options: ReplyOptions, closed: Callable[["Reply"], None]
    ) -> None:
        self.jobs: list[Job] = []
        self._exchange = exchange
        self._shape = shape
        self._options = options
        self._closed = closed
        self._open = 0

    @property
    def response_id(self) -> str:
        """The `id` of the answer."""
        return self._shape.id_prefix + self._options.request_id

    def begin(self, jobs: list[Job]) -> None:
        """Take the jobs of all choices; called once, before they are submitted."""
        self.jobs = jobs
        self._open = len(jobs)

    @abstractmethod
    def progressed(self, job: Job) -> None:
        """See `Listener`."""

    @abstractmethod
    def aborted(self, job: Job) -> None:
        """See `Listener`."""

    @abstractmethod
    def refused(self, job: Job) -> None:
        """See `Listener`."""

    def _usage(self) -> dict[str, Any]:
        completion = sum(job.produced for job in self.jobs)
        prompt = self._options.prompt_tokens
        return {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion}

    def _details(self, *, streamed: bool) -> dict[str, Any]:
        size = self._options.block_size
        cached = sum(job.cached_tokens for job in self.jobs)
        created = sum(job.work.prompt_tokens // size * size - job.cached_tokens for job in self.jobs)
        return self._shape.details(cached, max(created, 0), streamed=streamed)

    def _head(self, kind: str) -> dict[str, Any]:
        options = self._options
        return {"id": self.response_id, "object": kind, "created": options.created, "model": options.model}

    def _one_closed(self) -> bool:
        self._open -= 1
        if self._open == 0:
            self._closed(self)
        return self._open == 0


class WholeReply(Reply):
    """An answer that is sent when all its choices are complete."""

    def __init__(
        self, exchange: Exchange, shape: Shape, options: ReplyOptions, closed: Callable[[Reply], None]
    ) -> None:
        super().__init__(exchange, shape, options, closed)
        self._choices: dict[int, dict[str, Any]] = {}
        self._refused = False

    def progressed(self, job: Job) -> None:
        """Nothing is sent before the end."""
        if job.finished:
            self._close(job, job.answer.finish_reason, job.answer.stop_reason)

    def aborted(self, job: Job) -> None:
        """What there is is the answer."""
        self._close(job, "abort", None)

    def refused(self, job: Job) -> None:
        """The whole request is refused, whatever became of its other choices."""
        del job
        self._refused = True
        self._respond_if_last()

    def _close(self, job: Job, finish_reason: str, stop_reason: str | None) -> None:
        text = "".join(job.answer.pieces[: job.produced])
        self._choices[job.choice] = self._shape.whole_choice(job.choice, text, finish_reason, stop_reason)
        self._respond_if_last()

    def _respond_if_last(self) -> None:
        if not self._one_closed():
            return
        if self._refused:
            self._exchange.respond(BUSY.status, orjson.dumps(BUSY.body()))
        else:
            self._exchange.respond(200, orjson.dumps(self._body()))

    def _body(self) -> dict[str, Any]:
        details = self._details(streamed=False) if self._options.prompt_details else None
        usage = {**self._usage(), "prompt_tokens_details": details, "completion_tokens_details": None}
        return {
            **self._head(self._shape.whole_object),
            "choices": [self._choices[index] for index in sorted(self._choices)],
            "service_tier": None,
            "system_fingerprint": FINGERPRINT,
            "usage": usage,
            **self._shape.whole_tail(),
        }


class StreamReply(Reply):
    """An answer that is sent as server-sent events, token by token."""

    def begin(self, jobs: list[Job]) -> None:
        """Send the head at once, as vLLM does, long before the first token."""
        super().begin(jobs)
        self._sent = [0] * len(jobs)
        self._middles = [self._template(job.choice) for job in jobs]
        self._exchange.start_stream()

    def progressed(self, job: Job) -> None:
        """Send the new tokens as one chunk."""
        choice = job.choice
        opening = b"" if self._sent[choice] else self._opening(choice)
        if job.finished:
            self._finish(job, opening, job.answer.finish_reason, job.answer.stop_reason)
        elif opening or job.produced - self._sent[choice] >= self._options.interval:
            text = self._unsent(job)
            self._exchange.write(opening + self._middle(choice, text))

    def aborted(self, job: Job) -> None:
        """End the stream as if the answer were complete, with `finish_reason` "abort"."""
        opening = b"" if self._sent[job.choice] else self._opening(job.choice)
        self._finish(job, opening, "abort", None)

    def refused(self, job: Job) -> None:
        """The status is sent already, so that the error travels in the stream."""
        del job
        if self._one_closed():
            self._exchange.end(in_stream(BUSY))
        else:
            self._exchange.write(_event(BUSY.body()))

    def _unsent(self, job: Job) -> str:
        text = "".join(job.answer.pieces[self._sent[job.choice] : job.produced])
        self._sent[job.choice] = job.produced
        return text

    def _middle(self, choice: int, text: str) -> bytes:
        if self._options.continuous_usage:
            return self._chunk([self._shape.chunk_choice(choice, text, None, None)])
        before, after = self._middles[choice]
        return before + orjson.dumps(text) + after

    def _template(self, choice: int) -> tuple[bytes, bytes]:
        """The bytes around the text of a chunk, which are the same for all chunks of a choice."""
        marker = "\u0000"
        event = _event(
            {**self._head(self._shape.chunk_object), "choices": [self._shape.chunk_choice(choice, marker, None, None)]}
        )
        before, _, after = event.partition(orjson.dumps(marker))
        return before, after

    def _opening(self, choice: int) -> bytes:
        opening = self._shape.opening_choice(choice)
        if opening is None:
            return b""
        return self._chunk([opening], {"prompt_token_ids": None, "prompt_text": None}, completion_tokens=0)

    def _finish(self, job: Job, opening: bytes, finish_reason: str, stop_reason: str | None) -> None:
        choice = self._shape.chunk_choice(job.choice, self._unsent(job), finish_reason, stop_reason)
        last = self._one_closed()
        closing = {"system_fingerprint": FINGERPRINT} if last and not self._options.include_usage else {}
        data = opening + self._chunk([choice], closing)
        if not last:
            self._exchange.write(data)
            return
        if self._options.include_usage:
            data += self._usage_chunk()
        self._exchange.end(data + _DONE)

    def _chunk(
        self, choices: list[dict[str, Any]], closing: dict[str, Any] | None = None, completion_tokens: int | None = None
    ) -> bytes:
        body = {**self._head(self._shape.chunk_object), "choices": choices}
        if self._options.continuous_usage:
            usage = self._usage()
            if completion_tokens is not None:
                usage["completion_tokens"] = completion_tokens
                usage["total_tokens"] = usage["prompt_tokens"] + completion_tokens
            body["usage"] = self._shape.running_usage(usage)
        return _event({**body, **(closing or {})})

    def _usage_chunk(self) -> bytes:
        usage = self._usage()
        if self._options.prompt_details:
            usage["prompt_tokens_details"] = self._details(streamed=True)
        head = self._head(self._shape.chunk_object)
        return _event({**head, "choices": [], "usage": usage, "system_fingerprint": FINGERPRINT})


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(body) + b"\n\n"


def in_stream(error: ApiError) -> bytes:
    """An error as the end of a stream whose status was sent before it was noticed."""
    return _event(error.body()) + _DONE
