"""The routes of a vLLM server."""

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

import orjson
import structlog

from trimtab.sim.serving import Work
from trimtab.sim.vllm import errors, text, wire
from trimtab.sim.vllm.driver import Driver, Job
from trimtab.sim.vllm.errors import ApiError
from trimtab.sim.vllm.http import Exchange
from trimtab.sim.vllm.metrics import CONTENT_TYPE, EngineMetrics
from trimtab.sim.vllm.replies import (
    ChatShape,
    Reply,
    ReplyOptions,
    Shape,
    StreamReply,
    TextShape,
    WholeReply,
    in_stream,
)
from trimtab.sim.vllm.settings import VLLM_VERSION, EngineSettings
from trimtab.sim.vllm.sleep import Sleeper

log = structlog.get_logger("trimtab.engine")

Handler = Callable[[Exchange], None]

_CHAT: Final = ChatShape()
_TEXT: Final = TextShape()


class EngineApi:
    """Answers exchanges for one engine.

    Attributes:
        draining: SIGTERM has come and open requests may finish: new ones get an error, `/health` stays well.
        adapters: LoRA adapters by name, with their paths.
    """

    def __init__(
        self, settings: EngineSettings, driver: Driver, sleeper: Sleeper, unix_time: Callable[[], float]
    ) -> None:
        self.draining = False
        self.adapters = dict(settings.adapters)
        self._settings = settings
        self._driver = driver
        self._sleeper = sleeper
        self._unix_time = unix_time
        self._metrics = EngineMetrics(settings, driver, sleeper, unix_time)
        self._open: dict[Reply, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._routes = self._make_routes()

    def __call__(self, exchange: Exchange) -> None:
        """Answer one exchange, at once or later; errors become answers."""
        try:
            self._route(exchange)
        except Exception as error:  # noqa: BLE001 - the edge of the process: one request fails, the others go on
            self._fail(exchange, error)

    def _route(self, exchange: Exchange) -> None:
        request = exchange.request
        if self._settings.request_id_headers:
            request_id = request.headers.get("x-request-id") or secrets.token_hex(16)
            exchange.extra_headers.append(("x-request-id", request_id))
        if not self._allowed(exchange):
            _json(exchange, 401, {"error": "Unauthorized"})
            return
        methods = self._routes.get(request.path)
        handler = methods.get(request.method) if methods else None
        if methods is None:
            self._not_found(exchange)
        elif handler is None:
            allow = [("allow", ", ".join(sorted(methods)))]
            exchange.respond(405, orjson.dumps({"detail": "Method Not Allowed"}), headers=allow)
        else:
            handler(exchange)

    def _fail(self, exchange: Exchange, error: Exception) -> None:
        if not isinstance(error, ApiError):
            self._driver.stats.failures += 1
            request = exchange.request
            log.error("a request failed", method=request.method, path=request.path, exc_info=error)
            error = ApiError(str(error), "InternalServerError", status=500)
        if exchange.started:
            exchange.give_up()
        else:
            _json(exchange, error.status, error.body())

    def _not_found(self, exchange: Exchange) -> None:
        """A known path with a slash too many is redirected, as vLLM's web framework does."""
        path = exchange.request.path
        if path.endswith("/") and path.rstrip("/") in self._routes:
            url = f"http://{exchange.request.headers.get('host', '')}{path.rstrip('/')}"
            exchange.respond(307, b"", headers=[("location", url)])
        else:
            _json(exchange, 404, {"detail": "Not Found"})

    def _make_routes(self) -> dict[str, dict[str, Handler]]:
        routes: dict[str, dict[str, Handler]] = {
            "/v1/chat/completions": {"POST": self._chat},
            "/v1/completions": {"POST": self._completions},
            "/v1/models": {"GET": self._models},
            "/health": {"GET": _nothing},
            "/ping": {"GET": _nothing, "POST": _nothing},
            "/version": {"GET": lambda exchange: _json(exchange, 200, {"version": VLLM_VERSION})},
            "/load": {"GET": self._load},
            "/metrics": {"GET": self._scrape},
            "/metrics/": {"GET": self._scrape},
            "/tokenize": {"POST": self._tokenize},
        }
        if self._settings.dev_mode:
            routes |= {
                "/sleep": {"POST": self._sleep},
                "/wake_up": {"POST": self._wake_up},
                "/is_sleeping": {"GET": self._is_sleeping},
                "/pause": {"POST": self._pause},
                "/resume": {"POST": self._resume},
                "/is_paused": {"GET": self._is_paused},
                "/reset_prefix_cache": {"POST": self._reset_prefix_cache},
                "/abort_requests": {"POST": self._abort_requests},
            }
        if self._settings.runtime_lora and self._settings.config.max_loras:
            routes["/v1/load_lora_adapter"] = {"POST": self._load_lora}
            routes["/v1/unload_lora_adapter"] = {"POST": self._unload_lora}
        return routes

    def _allowed(self, exchange: Exchange) -> bool:
        """An API key gates `/v1` and nothing else, as in vLLM."""
        if not self._settings.api_keys or not exchange.request.path.startswith("/v1"):
            return True
        scheme, _, given = exchange.request.headers.get("authorization", "").partition(" ")
        known = [secrets.compare_digest(given.encode(), key.encode()) for key in self._settings.api_keys]
        return scheme.lower() == "bearer" and any(known)

    def _later(self, exchange: Exchange, work: Coroutine[Any, Any, None], answer: Callable[[], object]) -> None:
        """Answer once `work` is done."""

        async def run() -> None:
            try:
                await work
                _json(exchange, 200, answer())
            except Exception as error:  # noqa: BLE001 - as in `__call__`
                self._fail(exchange, error)

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Generation.

    def _chat(self, exchange: Exchange) -> None:
        body = _parse(exchange, wire.ChatRequest)
        adapter = self._admit(body)
        body.check_content(self._settings.model)
        prompt = text.render_chat(body.messages, add_generation_prompt=body.add_generation_prompt)
        self._generate(exchange, _CHAT, body, adapter, [text.tokenize(prompt)])

    def _completions(self, exchange: Exchange) -> None:
        body = _parse(exchange, wire.CompletionRequest)
        adapter = self._admit(body)
        given = body.prompts()
        prompts = [text.tokenize(p) if isinstance(p, str) else [f"<{number}>" for number in p] for p in given]
        echoes = [p if isinstance(p, str) else "" for p in given] if body.echo else []
        self._generate(exchange, _TEXT, body, adapter, prompts, echoes)

    def _admit(self, body: wire.GenerationRequest) -> str:
        """Checks before the prompt is looked at; returns the adapter that the request names, or ""."""
        body.check_options()
        adapter = self._adapter(body.model)
        if self.draining:
            raise errors.DRAINING
        return adapter

    def _adapter(self, model: str | None) -> str:
        """The adapter that a request's `model` names, or ""."""
        if not model or model in self._settings.names:
            return ""
        if model in self.adapters:
            return model
        raise errors.unknown_model(model, (*self._settings.names, *self.adapters))

    def _generate(
        self,
        exchange: Exchange,
        shape: Shape,
        body: wire.GenerationRequest,
        adapter: str,
        prompts: Sequence[list[str]],
        echoes: Sequence[str] = (),
    ) -> None:
        for prompt in prompts:
            body.check_limit(self._settings.max_model_len)
            self._check_prompt(len(prompt))
            body.check_sampling(self._max_tokens(body, prompt))
        if self._driver.queue_looks_full:
            self._driver.stats.refused += 1
            raise errors.BUSY
        options = ReplyOptions(
            request_id=exchange.request.headers.get("x-request-id") or body.request_id or secrets.token_hex(8),
            model=adapter or body.model or self._settings.model,
            created=int(self._unix_time()),
            prompt_tokens=sum(map(len, prompts)),
            block_size=self._settings.config.block_size,
            include_usage=body.include_usage,
            continuous_usage=body.continuous_usage,
            prompt_details=self._settings.prompt_tokens_details,
            interval=self._settings.stream_interval,
        )
        try:
            body.check_logprobs()
        except ApiError as error:
            _refuse_late(exchange, error, stream=bool(body.stream))
            return
        kind = StreamReply if body.stream else WholeReply
        reply = kind(exchange, shape, options, self._close)
        jobs = [
            self._job(reply, body, adapter, prompt, index * body.n + choice)
            for index, prompt in enumerate(prompts)
            for choice in range(body.n)
        ]
        for job, echo in zip(jobs, (echo for echo in echoes for _ in range(body.n)), strict=bool(echoes)):
            job.answer.pieces[0] = echo + job.answer.pieces[0]
        self._start(exchange, reply, jobs)

    def _check_prompt(self, tokens: int) -> None:
        longest = self._settings.max_model_len
        if tokens > longest:
            message = (
                f"This model's maximum context length is {longest} tokens. However, your prompt contains at least"
                f" {longest + 1} input tokens, which exceeds this limit even without any output tokens."
                " Please reduce the length of the input prompt."
            )
            raise errors.invalid(message, "input_tokens", longest + 1)

    def _max_tokens(self, body: wire.GenerationRequest, prompt: Sequence[str]) -> int:
        """What the request asks for, or the room that is left after the prompt if that is less."""
        room = self._settings.max_model_len - len(prompt)
        return room if body.limit is None else min(body.limit, room)

    def _job(self, reply: Reply, body: wire.GenerationRequest, adapter: str, prompt: list[str], choice: int) -> Job:
        max_tokens = self._max_tokens(body, prompt)
        limits = text.AnswerLimits(max_tokens, body.min_tokens, body.ignore_eos, body.stops, body.exact_tokens)
        generator = text.generator_for(self._settings.seed, body.seed, adapter, choice, prompt)
        answer = text.write_answer(generator, limits, self._settings.profile.output_length)
        tokens = [*prompt, *(piece.strip() for piece in answer.pieces)]
        hashes = text.block_hashes(tokens, self._settings.config.block_size, f"{adapter}\n{body.cache_salt or ''}")
        work = Work(
            prompt_tokens=len(prompt),
            output_tokens=len(answer.pieces),
            priority=body.priority,
            block_hashes=hashes,
            adapter=adapter,
        )
        return Job(work, answer, reply, choice=choice, max_tokens=max_tokens, n=body.n)

    def _start(self, exchange: Exchange, reply: Reply, jobs: list[Job]) -> None:
        self._open[reply] = None

        def client_is_gone() -> None:
            for job in jobs:
                self._driver.cancel(job)
            self._close(reply)

        exchange.on_disconnect = client_is_gone
        reply.begin(jobs)
        for job in jobs:
            self._driver.submit(job)

    def _close(self, reply: Reply) -> None:
        self._open.pop(reply, None)

    # Everything else.

    def _models(self, exchange: Exchange) -> None:
        base = self._settings.model
        cards = [self._model_card(name, base, None) for name in self._settings.names]
        cards += [self._model_card(name, path, base) for name, path in self.adapters.items()]
        _json(exchange, 200, {"object": "list", "data": cards})

    def _model_card(self, name: str, root: str, parent: str | None) -> dict[str, Any]:
        created = int(self._unix_time())
        permission = {
            "id": f"modelperm-{secrets.token_hex(8)}",
            "object": "model_permission",
            "created": created,
            "allow_create_engine": False,
            "allow_sampling": True,
            "allow_logprobs": True,
            "allow_search_indices": False,
            "allow_view": True,
            "allow_fine_tuning": False,
            "organization": "*",
            "group": None,
            "is_blocking": False,
        }
        return {
            "id": name,
            "object": "model",
            "created": created,
            "owned_by": "vllm",
            "root": root,
            "parent": parent,
            "max_model_len": None if parent else self._settings.max_model_len,
            "permission": [permission],
        }

    def _load(self, exchange: Exchange) -> None:
        _json(exchange, 200, {"server_load": len(self._open) if self._settings.load_tracking else 0})

    def _scrape(self, exchange: Exchange) -> None:
        exchange.respond(200, self._metrics.text(), CONTENT_TYPE)

    def _tokenize(self, exchange: Exchange) -> None:
        body = _parse(exchange, wire.TokenizeRequest)
        self._adapter(body.model)
        if body.messages is None and body.prompt is None:
            raise errors.missing(("prompt", "messages"), body.model_dump(exclude_unset=True))
        if body.messages is not None:
            wire.check_messages(body.messages)
            prompt = text.render_chat(body.messages, add_generation_prompt=body.add_generation_prompt)
        else:
            prompt = body.prompt or ""
        tokens = text.tokenize(prompt)
        answer = {
            "count": len(tokens),
            "max_model_len": self._settings.max_model_len,
            "tokens": [text.token_id(token) for token in tokens],
            "token_strs": tokens if body.return_token_strs else None,
        }
        _json(exchange, 200, answer)

    def _sleep(self, exchange: Exchange) -> None:
        query = wire.parse_query(wire.SleepQuery, exchange.request.query)
        answer = {"status": "sleeping", "level": query.level}
        self._later(exchange, self._sleeper.sleep(query.level, query.mode), lambda: answer)

    def _wake_up(self, exchange: Exchange) -> None:
        tags = exchange.request.query.get("tags")

        def answer() -> dict[str, object]:
            return {"status": "sleeping" if self._sleeper.level else "awake", "tags": tags}

        self._later(exchange, self._sleeper.wake(tags), answer)

    def _is_sleeping(self, exchange: Exchange) -> None:
        _json(exchange, 200, {"is_sleeping": self._sleeper.sleeping})

    def _pause(self, exchange: Exchange) -> None:
        query = wire.parse_query(wire.PauseQuery, exchange.request.query)
        self._later(exchange, self._sleeper.pause(query.mode), lambda: {"status": "paused"})

    def _resume(self, exchange: Exchange) -> None:
        self._sleeper.resume()
        _json(exchange, 200, {"status": "resumed"})

    def _is_paused(self, exchange: Exchange) -> None:
        _json(exchange, 200, {"is_paused": self._sleeper.sleeping})

    def _reset_prefix_cache(self, exchange: Exchange) -> None:
        self._driver.engine.cache.forget()
        _json(exchange, 200, {"success": True})

    def _abort_requests(self, exchange: Exchange) -> None:
        """Only ids of answers (`chatcmpl-...`) find anything, but all ids are counted, as in vLLM; none means all."""
        wanted = wire.parse_object(exchange.request.body).get("request_ids") or []
        chosen = [reply for reply in self._open if not wanted or reply.response_id in wanted]
        for reply in chosen:
            for job in reply.jobs:
                if not job.finished:
                    self._driver.abort(job)
        _json(exchange, 200, {"status": "aborted", "aborted": len(wanted or chosen)})

    def _load_lora(self, exchange: Exchange) -> None:
        body = _parse(exchange, wire.LoraRequest)
        if not body.lora_name or not body.lora_path:
            raise ApiError("Both 'lora_name' and 'lora_path' must be provided.", "InvalidUserInput")
        if body.lora_name in self._settings.names:
            message = f"The lora adapter '{body.lora_name}' conflicts with a served base model."
            raise ApiError(message, "InvalidUserInput")
        if body.lora_name in self.adapters and not body.load_inplace:
            message = (
                f"The lora adapter '{body.lora_name}' has already been loaded."
                " If you want to load the adapter in place, set 'load_inplace' to True."
            )
            raise ApiError(message, "InvalidUserInput")
        self.adapters[body.lora_name] = body.lora_path
        message = f"Success: LoRA adapter '{body.lora_name}' added successfully."
        exchange.respond(200, message.encode(), "text/plain; charset=utf-8")

    def _unload_lora(self, exchange: Exchange) -> None:
        body = _parse(exchange, wire.LoraRequest)
        if not body.lora_name:
            raise ApiError("'lora_name' needs to be provided to unload a LoRA adapter.", "InvalidUserInput")
        if body.lora_name not in self.adapters:
            raise ApiError(f"The lora adapter '{body.lora_name}' cannot be found.", "NotFoundError", status=404)
        del self.adapters[body.lora_name]
        message = f"Success: LoRA adapter '{body.lora_name}' removed successfully."
        exchange.respond(200, message.encode(), "text/plain; charset=utf-8")


def _refuse_late(exchange: Exchange, error: ApiError, *, stream: bool) -> None:
    """What only the engine notices reaches a streaming client inside its stream."""
    if stream:
        exchange.start_stream()
        exchange.end(in_stream(error))
    else:
        _json(exchange, error.status, error.body())


def _parse(exchange: Exchange, kind: type[wire.Body]) -> wire.Body:
    request = exchange.request
    return wire.parse(kind, request.headers.get("content-type", ""), request.body)


def _json(exchange: Exchange, status: int, body: object) -> None:
    exchange.respond(status, orjson.dumps(body))


def _nothing(exchange: Exchange) -> None:
    exchange.respond(200, b"")
