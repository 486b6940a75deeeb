"""The gateway: which pool a request goes to, what is answered at once, and how everything stops."""

from collections.abc import Callable, Iterable
from secrets import token_hex

import structlog

from trimtab.api.openai import (
    INFERENCE_PATHS,
    MODELS,
    STATUS,
    Asked,
    ErrorCode,
    InvalidBody,
    error_body,
    read_request,
)
from trimtab.obs.metrics import GatewayMetrics
from trimtab_gateway import wire
from trimtab_gateway.client import ClientConnection
from trimtab_gateway.dispatcher import Dispatcher
from trimtab_gateway.exchange import Exchange, Phase
from trimtab_gateway.journal import Journal
from trimtab_gateway.limits import Limits
from trimtab_gateway.models import Contest, ModelIndex
from trimtab_gateway.pools import Level, PoolConfig
from trimtab_gateway.request import Incoming, Rejection

_log = structlog.get_logger(__name__)

_NAMED_MODELS = 20  # that a message about an unknown model lists at most


class Refused(Exception):
    """A request is answered with an error before it reaches a queue."""

    def __init__(self, code: ErrorCode, message: str, param: str | None = None, allow: bytes = b"") -> None:
        super().__init__(message)
        self.code = code
        self.param = param
        self.allow = allow


class Gateway:
    """All pools and all connections of one process, on one event loop.

    Args:
        limits: what one connection may cost.
        metrics: what is counted.
        now: a clock that never goes back, in seconds. The event loop's own clock is too coarse: whole milliseconds.
        journal: the last requests.
    """

    def __init__(
        self, limits: Limits, metrics: GatewayMetrics, now: Callable[[], float], journal: Journal | None = None
    ) -> None:
        self.limits = limits
        self.metrics = metrics
        self.journal = journal or Journal(1000)
        self.now = now
        self.leaving = False
        """Whether the process has been asked to stop."""
        self.draining = False
        """Whether only open requests are still served."""
        self.synced = False
        """Whether pools and engines have been read once."""
        self.buffered_bytes = 0
        self.clients: set[ClientConnection] = set()
        self.exchanges: set[Exchange] = set()
        self.pools: dict[str, Dispatcher] = {}
        self._models = ModelIndex()
        self._restless: set[Dispatcher] = set()
        """Pools to which time matters: requests wait or run, connections are idle, or an engine has failed."""
        self._next_key = 0
        self._id_prefix = token_hex(8)
        metrics.connections.set_function(lambda: len(self.clients))
        metrics.buffered_bytes.set_function(lambda: self.buffered_bytes)
        metrics.contested_models.set_function(lambda: self._models.contested)
        metrics.pools.read = lambda: [pool.state() for pool in list(self.pools.values())]

    @property
    def not_ready(self) -> str:
        """Why new requests should go elsewhere; empty when they should not."""
        if self.leaving:
            return "draining"
        return "" if self.synced else "syncing"

    @property
    def open_streams(self) -> int:
        """How many of the open requests asked for a stream, whether it has begun or not."""
        return sum(exchange.asked.stream for exchange in self.exchanges)

    # Configuration

    def configure(self, pools: Iterable[PoolConfig]) -> None:
        """Serve exactly these pools. Where several claim a model, the oldest one has it."""
        wanted = {pool.name: pool for pool in sorted(pools, key=lambda pool: pool.precedence)}
        for name in self.pools.keys() - wanted.keys():
            self.remove_pool(name)
        for pool in wanted.values():
            if not self._models.has(pool):  # so that a model can move between pools that are both known
                self._note(self._models.release(pool.name))
        for pool in wanted.values():
            self.set_pool(pool)

    def set_pool(self, pool: PoolConfig) -> None:
        """Serve one more pool, or change one; no other pool is touched."""
        known = self.pools.get(pool.name)
        if known is None:
            self.pools[pool.name] = Dispatcher(
                pool, self.limits, self.metrics, self.journal, self.now, self._restless.add
            )
        elif known.config != pool:
            known.configure(pool)
        self._note(self._models.claim(pool))

    def remove_pool(self, name: str) -> None:
        """Serve a pool no longer: its waiting requests are sent away, its running ones end."""
        pool = self.pools.pop(name)
        self._note(self._models.release(name))
        for exchange in [each for each in self.exchanges if each.dispatcher is pool and each.phase is Phase.QUEUED]:
            exchange.pool_removed()
        pool.close()
        self._restless.discard(pool)

    def serving(self, model: str) -> Dispatcher | None:
        """Return the pool that serves a model."""
        owner = self._models.owner(model)
        return self.pools[owner] if owner is not None else None

    def _note(self, contests: Iterable[Contest]) -> None:
        for contest in contests:
            _log.warning(
                "model claimed twice", model=contest.model, served_by=contest.owner, ignored=list(contest.ignored)
            )

    # Requests

    def connect(self) -> ClientConnection:
        """Make the protocol of a new client."""
        return ClientConnection(self)

    def handle(self, client: ClientConnection, request: Incoming) -> None:
        """Serve a complete request: an answer at once, or an exchange that answers later."""
        try:
            self._admit(client, request)
        except Refused as refused:
            self.metrics.requests.labels("", "", refused.code.value).inc()
            headers = [(b"allow", refused.allow)] if refused.allow else []
            body = error_body(refused.code, str(refused), refused.param)
            self._answer(client, request, STATUS[refused.code], body, refused.code, headers)

    def reject(self, client: ClientConnection, rejection: Rejection) -> None:
        """Answer input that is no request, and close the connection."""
        code = rejection.code
        self.metrics.requests.labels("", "", code.value).inc()
        headers = [(wire.REASON, code.value.encode())]
        client.write(
            wire.whole_response(STATUS[code], error_body(code, rejection.message), headers=headers, close=True)
        )
        client.linger()

    def _admit(self, client: ClientConnection, request: Incoming) -> None:
        path = request.path
        if path == MODELS:
            self._need_method(request, b"GET", b"HEAD")
            self._answer(client, request, 200, self._models.listing())
            return
        if path not in INFERENCE_PATHS:
            paths = ", ".join(sorted({*INFERENCE_PATHS, MODELS}))
            raise Refused(ErrorCode.UNKNOWN_PATH, f"This path does not exist. The gateway serves {paths}.")
        self._need_method(request, b"POST")
        if request.content_encoding not in {b"", b"identity"}:
            raise Refused(ErrorCode.UNSUPPORTED_ENCODING, "Request bodies must not be compressed.")
        try:
            asked = read_request(request.body)
        except InvalidBody as invalid:
            raise Refused(invalid.code, str(invalid), invalid.param) from invalid
        pool = self._pool_for(asked)
        self._submit(client, request, asked, pool, self._level_for(request, pool.config))

    def _submit(
        self, client: ClientConnection, request: Incoming, asked: Asked, pool: Dispatcher, level: Level
    ) -> None:
        self._next_key += 1
        given = request.request_id
        request_id = given if wire.is_request_id(given) else f"{self._id_prefix}-{self._next_key}".encode()
        exchange = Exchange(self, pool, client, request, asked, level, request_id, self._next_key)
        self.exchanges.add(exchange)
        client.begin(exchange)
        pool.submit(exchange, self.now())

    def _need_method(self, request: Incoming, *methods: bytes) -> None:
        if request.method not in methods:
            allow = b", ".join(methods)
            raise Refused(ErrorCode.METHOD_NOT_ALLOWED, f"Use {allow.decode()} on this path.", allow=allow)

    def _pool_for(self, asked: Asked) -> Dispatcher:
        if asked.model is None:
            # Engines serve their only model when none is named; with one pool that is as clear here.
            if len(self.pools) == 1:
                return next(iter(self.pools.values()))
            raise Refused(ErrorCode.MODEL_REQUIRED, "Name a `model`: several are served here.", "model")
        pool = self.serving(asked.model)
        if pool is None:
            known = ", ".join(self._models.names()[:_NAMED_MODELS]) or "none"
            raise Refused(
                ErrorCode.MODEL_NOT_FOUND, f"The model does not exist. Models that are served: {known}.", "model"
            )
        return pool

    def _level_for(self, request: Incoming, pool: PoolConfig) -> Level:
        level = pool.level(request.service_level.decode("latin-1"))
        if level is None:
            names = ", ".join(each.name for each in pool.levels) or "none"
            raise Refused(
                ErrorCode.UNKNOWN_SERVICE_LEVEL,
                f"The header {wire.SERVICE_LEVEL.decode()} names a service level that this pool does not declare."
                f" Declared: {names}.",
            )
        return level

    def _answer(
        self,
        client: ClientConnection,
        request: Incoming,
        status: int,
        body: bytes,
        code: ErrorCode | None = None,
        headers: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        self.buffered_bytes -= request.body_bytes
        request.body_bytes = 0
        keep_alive = request.keep_alive and not self.draining
        extra = [*headers, (wire.REASON, code.value.encode())] if code else list(headers)
        given = request.request_id
        if wire.is_request_id(given):
            extra.append((wire.REQUEST_ID, given))
        head_only = request.method == b"HEAD"
        client.write(wire.whole_response(status, body, headers=extra, close=not keep_alive, head_only=head_only))
        client.end(keep_alive=keep_alive)

    # Time

    def tick(self) -> None:
        """Do everything that time alone makes due: deadlines of clients and engines, the end of waiting."""
        at = self.now()
        for client in [each for each in self.clients if each.deadline <= at]:
            client.expire()
        for pool in list(self._restless):
            if not pool.tick(at):
                self._restless.discard(pool)

    def start_draining(self) -> None:
        """Take no more than the open requests: idle clients are closed, the others after their answer."""
        self.draining = True
        for client in [each for each in self.clients if each.idle]:
            client.close()

    def cut_off(self) -> None:
        """End every request that is still open, each with an error."""
        for exchange in list(self.exchanges):
            exchange.shut_down()
