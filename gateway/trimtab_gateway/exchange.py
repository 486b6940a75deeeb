"""One request on its way: from the queue to an engine and back, and every way in which it can end."""

from enum import Enum, auto
from math import inf
from typing import TYPE_CHECKING, Protocol

import structlog

from trimtab.api.openai import STATUS, Asked, ErrorCode, error_body, stream_error
from trimtab.decide.queueing import Request
from trimtab.obs.wording import say
from trimtab_gateway import wire
from trimtab_gateway.client import ClientConnection
from trimtab_gateway.engine import AnswerHead, EngineConnection
from trimtab_gateway.events import EventStream
from trimtab_gateway.limits import Limits
from trimtab_gateway.outcome import Outcome, of_status
from trimtab_gateway.pools import Level
from trimtab_gateway.request import Incoming

if TYPE_CHECKING:
    import asyncio

    from trimtab.decide.queueing import Refusal
    from trimtab.model.reason import Reason
    from trimtab_gateway.dispatcher import Dispatcher, Engine

_log = structlog.get_logger(__name__)

_SERVICE_UNAVAILABLE = 503


class Phase(Enum):
    """Where a request is."""

    QUEUED = auto()
    CONNECTING = auto()
    AWAITING = auto()
    ANSWERING = auto()
    ENDED = auto()


class Surroundings(Protocol):
    """What an exchange needs of the gateway."""

    limits: Limits
    draining: bool
    buffered_bytes: int
    exchanges: "set[Exchange]"

    def now(self) -> float:
        """Return a time that never goes back, in seconds."""


class Exchange:
    """The life of one request. It is driven by events alone: there is no task per request.

    It ends exactly once, in `_end`, which frees its engine's place and counts the outcome.
    """

    __slots__ = (
        "_answer",
        "_client",
        "_connection",
        "_events",
        "_incoming",
        "_last_token_at",
        "_opening",
        "_reason",
        "_resent",
        "_surroundings",
        "_ttft_seconds",
        "_unsent_head",
        "asked",
        "attempts",
        "dispatched_at",
        "dispatcher",
        "engine",
        "level",
        "phase",
        "request",
        "request_id",
    )

    def __init__(
        self,
        surroundings: Surroundings,
        dispatcher: "Dispatcher",
        client: ClientConnection,
        incoming: Incoming,
        asked: Asked,
        level: Level,
        request_id: bytes,
        key: int,
    ) -> None:
        self._surroundings = surroundings
        self._client = client
        self._incoming = incoming
        self.dispatcher = dispatcher
        self.asked = asked
        self.level = level
        self.attempts = 0
        self.request_id = request_id
        self.request = Request(key, incoming.received_at, asked.model or "", level.name)
        self.phase = Phase.QUEUED
        self.engine: Engine | None = None
        self._connection: EngineConnection | None = None
        self._opening: asyncio.Task[None] | None = None
        self._answer: AnswerHead | None = None
        self._unsent_head = b""
        self._events: EventStream | None = None
        self._resent = False
        self._reason: Reason | None = None
        self._ttft_seconds: float | None = None
        self._last_token_at = 0.0
        self.dispatched_at: float | None = None

    # Events of the queue

    def dispatched(self, engine: "Engine", at: float) -> None:
        """An engine has a place for the request."""
        self.engine = engine
        self.phase = Phase.CONNECTING
        self.dispatched_at = at
        self.attempts += 1
        self._opening = engine.link.open(self)

    def refused(self, refusal: "Refusal", code: ErrorCode) -> None:
        """The queue sends the request away."""
        self._reason = refusal.reason
        self._fail(code, say(refusal.reason), retry_after_seconds=refusal.retry_after_seconds)

    # Events of the engine's connection

    def connected(self, connection: EngineConnection) -> None:
        assert self.engine is not None
        self._opening = None
        self._connection = connection
        self.phase = Phase.AWAITING
        self._client.deadline = self._surroundings.now() + self._surroundings.limits.answer_seconds
        incoming = self._incoming
        head = wire.request_head(
            incoming.path, self.engine.link.host_header, incoming.headers, self.request_id, len(incoming.body)
        )
        connection.send(self, head, incoming.body)

    def unreachable(self, error: str) -> None:
        assert self.engine is not None
        self._opening = None
        engine = self.engine
        _log.warning("engine unreachable", pool=self.dispatcher.config.name, engine=engine.name, error=error)
        self.dispatcher.report(engine, failed=True, unreachable=True)
        if self._resent or self.attempts > self._surroundings.limits.retries:
            # An engine that took the request and is gone since may have been killed by it: it is not tried on others.
            self._fail(ErrorCode.UPSTREAM_UNREACHABLE, "The engine cannot be reached.")
            return
        self.engine = None
        self.phase = Phase.QUEUED
        self._client.deadline = inf
        self.dispatcher.hand_back(self, engine)

    def answer_started(self, head: AnswerHead) -> None:
        self._answer = head
        self.phase = Phase.ANSWERING
        self._release_body()
        if head.event_stream:
            self._events = EventStream()
        dechunked = head.chunked and self._incoming.http_1_0
        keep_alive = self._keeps_alive(head)
        self._unsent_head = wire.response_head(
            head.status, head.phrase, head.headers, self.request_id, close=not keep_alive, dechunked=dechunked
        )

    def body(self, raw: bytes, content: list[bytes]) -> None:
        answer = self._answer
        assert answer is not None
        if answer.chunked and self._incoming.http_1_0:
            raw = b"".join(content)
        if self._unsent_head:
            raw = self._unsent_head + raw
            self._unsent_head = b""
        self._client.write(raw)
        at = self._surroundings.now()
        if not self._client.write_paused:
            self._client.deadline = at + self._surroundings.limits.silence_seconds
        if self._events is not None and content:
            self._events.see(content)
            self._see_token(at)

    def ended(self) -> None:
        answer, engine = self._answer, self.engine
        assert answer is not None
        assert engine is not None
        outcome = of_status(answer.status)
        failed = outcome is Outcome.ERROR and answer.status != _SERVICE_UNAVAILABLE
        if self._events is not None and self._events.failed:
            outcome = Outcome.ERROR
            failed = not self._events.overloaded
        self.dispatcher.report(engine, failed=failed)
        keep_alive = self._keeps_alive(answer)
        self._connection = None
        self._end(outcome)
        self._client.end(keep_alive=keep_alive)

    def broken(self, error: str, *, invalid: bool, unanswered: bool) -> None:
        engine, connection = self.engine, self._connection
        assert engine is not None
        assert connection is not None
        self._connection = None
        if unanswered and not self._resent:
            self._resent = True
            self.phase = Phase.CONNECTING
            self._opening = engine.link.open(self, fresh=True)
            return
        _log.warning("engine failed", pool=self.dispatcher.config.name, engine=engine.name, error=error)
        self.dispatcher.report(engine, failed=True)
        if invalid:
            self._cut(ErrorCode.UPSTREAM_INVALID, "The engine sent an invalid answer.", connection)
        else:
            self._cut(ErrorCode.UPSTREAM_FAILED, "The engine failed while it served the request.", connection)

    # Events of the client's connection

    def client_lost(self) -> None:
        """The client is gone: so is every reason to go on."""
        if self.phase is Phase.ENDED:
            return
        self._withdraw()
        self._end(Outcome.CANCELLED)

    def pause(self) -> None:
        """The client reads more slowly than the engine writes."""
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        """The client has caught up."""
        self._client.deadline = self._surroundings.now() + self._surroundings.limits.silence_seconds
        if self._connection is not None:
            self._connection.resume()

    def expire(self) -> None:
        """The engine has let a deadline pass."""
        engine, connection = self.engine, self._connection
        if engine is None or connection is None:
            return
        self._withdraw()
        self.dispatcher.report(engine, failed=True)
        self._cut(ErrorCode.UPSTREAM_TIMEOUT, "The engine did not answer in time.", connection)

    def shut_down(self) -> None:
        """End the request because the gateway stops."""
        connection = self._connection
        self._withdraw()
        text = "The gateway is shutting down."
        if connection is None:
            self._fail(ErrorCode.SHUTTING_DOWN, text, retry_after_seconds=1)
        else:
            self._cut(ErrorCode.SHUTTING_DOWN, text, connection)

    def pool_removed(self) -> None:
        """End a request that waits for a pool that is no longer configured."""
        self._withdraw()
        self._fail(ErrorCode.NO_CAPACITY, "The pool that serves this model was removed.")

    # Inside

    def _keeps_alive(self, head: AnswerHead) -> bool:
        return self._incoming.keep_alive and not head.until_close and not self._surroundings.draining

    def _see_token(self, at: float) -> None:
        if self._ttft_seconds is None:
            self._ttft_seconds = at - self.request.arrived_at
            self.dispatcher.saw_first_token(self.level, self._ttft_seconds)
        else:
            self.dispatcher.saw_gap(self.level, at - self._last_token_at)
        self._last_token_at = at

    def _withdraw(self) -> None:
        """Take the request away from wherever it is."""
        if self.phase is Phase.QUEUED:
            self.dispatcher.withdraw(self)
        if self._opening is not None:
            self._opening.cancel()
            self._opening = None
        if self._connection is not None:
            self._connection.cancel()
            self._connection = None

    def _cut(self, code: ErrorCode, text: str, connection: EngineConnection) -> None:
        """End an exchange whose answer may have begun."""
        answer = self._answer
        if answer is None or self._unsent_head:
            self._fail(code, text)
            return
        self._end(code)
        whole = self._events is not None and not connection.mid_chunk
        if not whole:
            self._client.abort()  # the only way left to say that this answer is not complete
            return
        event = stream_error(code, text)
        if self._events is not None and not self._events.between_events:
            event = b"\n\n" + event
        if answer.chunked and not self._incoming.http_1_0:
            event = wire.chunk(event) + wire.LAST_CHUNK
        self._client.write(event)
        self._client.end(keep_alive=False)

    def _fail(self, code: ErrorCode, text: str, *, retry_after_seconds: int | None = None) -> None:
        """End an exchange that has no answer yet with an error."""
        self._end(code)
        keep_alive = self._incoming.keep_alive and not self._surroundings.draining
        headers = [(wire.REQUEST_ID, self.request_id), (wire.REASON, code.value.encode())]
        if retry_after_seconds is not None:
            headers.append((b"retry-after", b"%d" % retry_after_seconds))
        answer = wire.whole_response(STATUS[code], error_body(code, text), headers=headers, close=not keep_alive)
        self._client.write(answer)
        self._client.end(keep_alive=keep_alive)

    def _release_body(self) -> None:
        self._surroundings.buffered_bytes -= self._incoming.body_bytes
        self._incoming.body_bytes = 0
        self._incoming.body = bytearray()

    def _end(self, outcome: Outcome | ErrorCode) -> None:
        assert self.phase is not Phase.ENDED, "an exchange ends once"
        self.phase = Phase.ENDED
        self._surroundings.exchanges.discard(self)
        self._release_body()
        self.dispatcher.ended(self, outcome, self._surroundings.now(), self._ttft_seconds, reason=self._reason)
