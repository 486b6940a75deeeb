"""Open-loop replay: requests go out when the trace says, however slowly earlier ones are answered.

Two factors set the times. `speed` compresses the trace: what it has at t seconds is sent t / speed seconds after the
start. `time_scale` translates what is measured: every time that is reported, and every limit that is given, is wall
time x `time_scale`. Against a real engine `time_scale` is 1, and a `speed` above 1 is simply more load. Against a
simulated engine that itself runs `speed` times as fast, `time_scale = speed` reports everything in the trace's own
time; what the client, the gateway and the network take is then multiplied too.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import orjson

from trimtab.api.openai import CHAT_COMPLETIONS, COMPLETIONS
from trimtab.workload.answer import Answer, Outcome
from trimtab.workload.histogram import LogHistogram
from trimtab.workload.level import DEFAULT_LEVELS, ServiceLevel, assign
from trimtab.workload.prompt import Prompts
from trimtab.workload.record import RequestRecord
from trimtab.workload.request import Trace, TraceRequest
from trimtab.workload.wire import AnswerLost, Client, Clock

LEVEL_HEADER = "x-trimtab-service-level"
"""The request header that names the service level."""

_OK = 200


@dataclass(frozen=True, slots=True)
class ReplaySettings:
    """How a trace is replayed. Times are reported seconds (wall seconds x `time_scale`).

    Attributes:
        model: what requests name.
        speed: factor by which the trace is compressed.
        time_scale: reported seconds in one wall second.
        levels: the service levels, which share the requests by their shares.
        seed: for prompts and for who asks for which level.
        chat: chat completions; False: plain completions.
        exact_output: ask for exactly the trace's output tokens (`min_tokens`, `ignore_eos`), which vLLM and SGLang
            understand; False: `max_tokens` alone, for servers that refuse unknown fields.
        timeout_seconds: how long after its scheduled time a request is given up.
        drain_seconds: how long after the last arrival to wait for answers; the rest is `unfinished`.
    """

    model: str
    speed: float = 1.0
    time_scale: float = 1.0
    levels: tuple[ServiceLevel, ...] = DEFAULT_LEVELS
    seed: int = 0
    chat: bool = True
    exact_output: bool = True
    timeout_seconds: float = 600.0
    drain_seconds: float = 600.0


class Replay:
    """One replay, while it runs and after.

    Attributes:
        records: what became of each request that ended, in the order of their ends.
        gaps: the times between pieces of answers, in reported seconds.
        started: how many requests were started.
    """

    def __init__(
        self,
        trace: Trace,
        client: Client,
        settings: ReplaySettings,
        *,
        clock: Clock = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.trace = trace
        self.settings = settings
        self.records: list[RequestRecord] = []
        self.gaps = LogHistogram()
        self.started = 0
        self._client = client
        self._clock = clock
        self._sleep = sleep
        self._start = math.nan
        self._end = math.nan
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def under_way(self) -> int:
        """Return how many requests wait for their answer."""
        return len(self._tasks)

    @property
    def elapsed_seconds(self) -> float:
        """Return the reported seconds since the start, up to the end."""
        now = self._clock() if math.isnan(self._end) else self._end
        return 0.0 if math.isnan(self._start) else (now - self._start) * self.settings.time_scale

    @property
    def planned_seconds(self) -> float:
        """Return the reported seconds that the trace takes at this speed."""
        return self.trace.duration_seconds / self.settings.speed * self.settings.time_scale

    @property
    def offered_seconds(self) -> float:
        """Return the reported seconds during which requests were offered: the planned ones, fewer if stopped early."""
        return min(self.elapsed_seconds, self.planned_seconds)

    async def run(self) -> None:
        """Replay the trace. Cancelling stops it; what is under way is then recorded as unfinished."""
        self._start = self._clock()
        try:
            async with asyncio.TaskGroup() as group:
                await self._send_all(group)
                await self._drain()
        finally:
            self._end = self._clock()
            self._client.close()

    async def _send_all(self, group: asyncio.TaskGroup) -> None:
        requests = self.trace.requests
        prompts = Prompts(self.settings.seed)
        levels = assign(self.settings.levels, len(requests), self.settings.seed)
        for number, (request, level) in enumerate(zip(requests, levels, strict=True)):
            body = request_body(self.settings, prompts.text(number, request), request)
            due = self._start + request.at_seconds / self.settings.speed
            # A wait of zero still lets answers be read.
            await self._sleep(max(0.0, due - self._clock()))
            task = group.create_task(self._one(number, request, level, body, due))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            self.started += 1

    async def _drain(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self.settings.drain_seconds / self.settings.time_scale)
        for task in self._tasks:
            task.cancel()

    async def _one(self, number: int, request: TraceRequest, level: ServiceLevel, body: bytes, due: float) -> None:
        answer = Answer()
        began = self._clock()
        patience = self.settings.timeout_seconds / self.settings.time_scale - (began - due)
        path = CHAT_COMPLETIONS if self.settings.chat else COMPLETIONS
        try:
            async with asyncio.timeout(patience):
                await self._client.send("POST", path, body, answer, {LEVEL_HEADER: level.name})
            answer.on_end(self._clock())
            outcome = answer.outcome()
        except TimeoutError:
            outcome = Outcome.TIMEOUT
        except AnswerLost as lost:
            answer.error = answer.error or str(lost)
            outcome = Outcome.TRUNCATED if answer.status == _OK else Outcome.ERROR
        except asyncio.CancelledError:
            outcome = Outcome.UNFINISHED
        self._keep(number, request, level, answer, outcome, due, began)

    def _keep(
        self,
        number: int,
        request: TraceRequest,
        level: ServiceLevel,
        answer: Answer,
        outcome: Outcome,
        due: float,
        began: float,
    ) -> None:
        scale = self.settings.time_scale
        for gap in answer.gaps:
            self.gaps.add(gap * scale)
        ttft = (answer.first_content - due) * scale if answer.pieces else None
        completion = (self._clock() - due) * scale
        output_tokens = answer.output_tokens or answer.pieces
        tpot = None
        if outcome is Outcome.OK and ttft is not None and output_tokens > 1:
            tpot = (completion - ttft) / (output_tokens - 1)
        met = outcome is Outcome.OK and ttft is not None and level.met(ttft, tpot or 0.0, completion)
        self.records.append(
            RequestRecord(
                number=number,
                level=level,
                outcome=outcome,
                status=answer.status,
                scheduled_seconds=(due - self._start) * scale,
                lag_seconds=(began - due) * scale,
                ttft_seconds=ttft,
                completion_seconds=completion,
                tpot_seconds=tpot,
                largest_gap_seconds=answer.largest_gap * scale,
                input_tokens=request.input_tokens,
                prompt_tokens=answer.prompt_tokens,
                cached_tokens=answer.cached_tokens,
                wanted_tokens=request.output_tokens,
                output_tokens=output_tokens,
                error=answer.error,
                met=met,
            )
        )


def request_body(settings: ReplaySettings, prompt: str, request: TraceRequest) -> bytes:
    """Return the JSON that asks for one streamed answer of the trace's length."""
    fields: dict[str, object] = {
        "model": settings.model,
        "max_tokens": request.output_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
    }
    if settings.exact_output:
        fields |= {"min_tokens": request.output_tokens, "ignore_eos": True}
    if settings.chat:
        fields["messages"] = [{"role": "user", "content": prompt}]
    else:
        fields["prompt"] = prompt
    return orjson.dumps(fields)
