"""The HTTP side: two hot routes that read and write bytes, and the ordinary ones."""

import time
from collections.abc import Callable

import structlog
from fastapi import FastAPI, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from trimtab.api.extender import MAX_BODY_BYTES
from trimtab.obs.metrics import ExtenderMetrics
from trimtab_extender.placer import Reply
from trimtab_extender.runtime import Runtime

_log = structlog.get_logger(__name__)


class HotRoute:
    """An ASGI application for one verb: no model, no dependency, no thread."""

    def __init__(self, verb: str, answer: Callable[[bytes], Reply], metrics: ExtenderMetrics) -> None:
        self._verb = verb
        self._answer = answer
        self._metrics = metrics

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call."""
        body = await _read(receive)
        begun = time.perf_counter()
        reply = (
            Reply(413, b'{"Error": "trimtab-extender: the body is too long"}') if body is None else self._reply(body)
        )
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(reply.body))]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})
        self._metrics.answered(self._verb, time.perf_counter() - begun)

    def _reply(self, body: bytes) -> Reply:
        try:
            return self._answer(body)
        except Exception:  # noqa: BLE001 - the process's edge: the scheduler skips a failed call
            self._metrics.defect(self._verb)
            _log.exception("answer failed", verb=self._verb)
            return Reply(500, b'{"Error": "trimtab-extender: internal error, see its log"}')


async def _read(receive: Receive) -> bytes | None:
    """Return the whole body, or None if it is too long."""
    parts: list[bytes] = []
    length = 0
    while True:
        message = await receive()
        part = message.get("body", b"")
        length += len(part)
        if length > MAX_BODY_BYTES:
            return None
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


class DomainState(BaseModel):
    """How one power domain stands, in declared watts."""

    name: str
    enforced: bool
    usable_watts: int | None
    charged_watts: int
    held_watts: int


class PlacementState(BaseModel):
    """What the extender has in memory."""

    fresh: bool
    doubt: str
    leading: bool
    placement_epoch: int
    nodes: int
    charged_pods: int
    held_pods: int
    waiting_pods: int
    domains: list[DomainState]


def create_app(runtime: Runtime) -> FastAPI:
    """Return the application around a runtime."""
    app = FastAPI(title="Trimtab scheduler extender", docs_url=None, redoc_url=None, openapi_url=None)
    placer = runtime.placer
    app.router.routes.extend(
        Route(f"/v1/{verb}", HotRoute(verb, answer, runtime.metrics), methods=["POST"])
        for verb, answer in (("filter", placer.filter), ("prioritize", placer.prioritize))
    )

    @app.get("/livez", response_class=PlainTextResponse)
    async def livez() -> str:
        return "ok"

    @app.get("/readyz", response_class=PlainTextResponse)
    async def readyz(response: Response) -> str:
        reason = runtime.not_ready()
        response.status_code = 503 if reason else 200
        return reason or "ok"

    @app.get("/v1/state")
    async def state() -> PlacementState:
        return _state(runtime)

    return app


def _state(runtime: Runtime) -> PlacementState:
    world, ledger = runtime.world, runtime.world.ledger
    ledger.settle(runtime.clock.now())
    return PlacementState(
        fresh=not world.doubt,
        doubt=world.doubt,
        leading=runtime.duty.leading,
        placement_epoch=runtime.duty.epoch,
        nodes=len(ledger.places),
        charged_pods=ledger.charged_pods,
        held_pods=ledger.on_their_way,
        waiting_pods=len(world.waiting),
        domains=[
            DomainState(
                name=book.domain.name,
                enforced=book.domain.enforced,
                usable_watts=book.usable,
                charged_watts=book.charged,
                held_watts=book.held,
            )
            for book in ledger.books()
        ],
    )
