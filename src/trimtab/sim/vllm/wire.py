"""What a request body may say, and vLLM's words when it says something else."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

MAX_TOP_LOGPROBS: Final = 20
_GREEDY_BELOW: Final = 1e-5  # temperatures that vLLM takes for zero
_BAD_REQUEST: Final = "Bad Request"


@dataclass(frozen=True, slots=True)
class ApiError(Exception):
    """An answer that is an error: `{"error": {"message", "type", "param", "code"}}`."""

    message: str
    kind: str = "BadRequestError"
    param: str | None = None
    status: int = HTTPStatus.BAD_REQUEST

    def body(self) -> dict[str, object]:
        """The parsed JSON of the answer."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": int(self.status)}
        return {"error": error}

    def __str__(self) -> str:
        return self.message


def invalid(message: str, param: str, value: object = None) -> ApiError:
    """A parameter out of range, worded as vLLM words it."""
    shown = f", value={value}" if value is not None else ""
    return ApiError(f"{message} (parameter={param}{shown})", param=param)


def unknown_model(model: str, known: Sequence[str]) -> ApiError:
    """A model that this engine does not serve."""
    message = f"The model `{model}` does not exist. Valid aliases: {', '.join(known)}."
    return ApiError(message, "NotFoundError", "model", HTTPStatus.NOT_FOUND)


BUSY: Final = ApiError(
    "The engine is currently busy and cannot accept new requests. Please try again later or on a different instance.",
    "Service Unavailable",
    status=HTTPStatus.SERVICE_UNAVAILABLE,
)
DRAINING: Final = ApiError(
    "cannot schedule new futures after shutdown", "InternalServerError", status=HTTPStatus.INTERNAL_SERVER_ERROR
)


class StreamOptions(BaseModel):
    """`stream_options` of a request."""

    model_config = ConfigDict(extra="ignore")

    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False


class GenerationRequest(BaseModel):
    """The fields that chat and text completions share; unknown fields are ignored, as vLLM does."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    model: str | None = None
    max_tokens: int | None = None
    n: int = 1
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: str | list[str] | None = None
    min_tokens: int = 0
    ignore_eos: bool = False
    seed: int | None = None
    priority: int = 0
    request_id: str | None = None
    cache_salt: str | None = None
    kv_transfer_params: dict[str, Any] | None = None
    ec_transfer_params: dict[str, Any] | None = None
    vllm_xargs: dict[str, str | int | float | list[str | int | float]] | None = None

    @property
    def limit(self) -> int | None:
        """Most tokens of the answer, if the request says so."""
        return self.max_tokens

    @property
    def stops(self) -> tuple[str, ...]:
        """Stop strings; empty ones are dropped."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(stop for stop in given if stop)

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a usage chunk."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def continuous_usage(self) -> bool:
        """Whether every chunk carries usage; the option does nothing without `include_usage`."""
        return self.include_usage and bool(self.stream_options and self.stream_options.continuous_usage_stats)

    @property
    def exact_tokens(self) -> int | None:
        """`vllm_xargs.output_tokens`: how many tokens the answer has, the end token included.

        Raises:
            ApiError: It is not a whole number above zero.
        """
        value = (self.vllm_xargs or {}).get("output_tokens")
        if value is None:
            return None
        if not isinstance(value, int) or value < 1:
            raise invalid(
                f"output_tokens must be a whole number of at least 1, got {value!r}.", "vllm_xargs.output_tokens", value
            )
        return value

    def check(self, max_model_len: int) -> None:
        """Refuse what vLLM refuses before it looks at the prompt.

        Raises:
            ApiError: A parameter is out of range.
        """
        if self.limit is not None and self.limit > max_model_len:
            message = (
                f"max_tokens={self.limit} cannot be greater than max_model_len={max_model_len}."
                " Please request fewer output tokens."
            )
            raise invalid(message, "max_tokens", self.limit)
        if self.n < 1:
            raise ApiError(f"n must be at least 1, got {self.n}.")
        if self.limit is not None and self.limit < 1:
            raise invalid(f"max_tokens must be at least 1, got {self.limit}.", "max_tokens", self.limit)
        if self.temperature is not None and self.temperature < 0:
            raise invalid(f"temperature must be non-negative, got {self.temperature}.", "temperature", self.temperature)
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise invalid(f"top_p must be in (0, 1], got {self.top_p}.", "top_p", self.top_p)
        if self.n > 1 and self.temperature is not None and self.temperature < _GREEDY_BELOW:
            raise ApiError(f"n must be 1 when using greedy sampling, got {self.n}.")

    def check_options(self) -> None:
        """Refuse contradictions between fields.

        Raises:
            ApiError: Two fields contradict each other.
        """
        if self.stream_options is not None and not self.stream:
            raise invalid("Stream options can only be defined when `stream=True`.", "stream_options")
        if self.cache_salt == "":
            raise invalid("Parameter 'cache_salt' must be a non-empty string if provided.", "cache_salt")


class ChatRequest(GenerationRequest):
    """Body of `/v1/chat/completions`."""

    messages: list[dict[str, Any]]
    max_completion_tokens: int | None = None
    logprobs: bool | None = False
    top_logprobs: int | None = 0
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    add_generation_prompt: bool = True

    @property
    def limit(self) -> int | None:
        """`max_completion_tokens`, else the older `max_tokens`."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    def check_options(self) -> None:
        """Refuse contradictions, too many log probabilities, tools and pictures."""
        super().check_options()
        if self.logprobs and (self.top_logprobs or 0) > MAX_TOP_LOGPROBS:
            message = (
                f"Requested sample logprobs of {self.top_logprobs}, which is greater than"
                f" max allowed: {MAX_TOP_LOGPROBS}"
            )
            raise invalid(message, "logprobs", self.top_logprobs)

    def check_content(self, model: str) -> None:
        """Refuse what this text model cannot read.

        Raises:
            ApiError: There is no message, a part is not text, or a tool is to be called.
        """
        if not self.messages:
            raise ApiError("Cannot apply chat template to an empty conversation. Provide at least one message.")
        if any(_has_media(message.get("content")) for message in self.messages):
            raise ApiError(f"{model} is not a multimodal model")
        if self.tools and self.tool_choice in {None, "auto"}:
            raise ApiError('"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set')
        if self.tools and self.tool_choice == "required":
            raise ApiError('tool_choice="required" requires --tool-call-parser to be set')


class CompletionRequest(GenerationRequest):
    """Body of `/v1/completions`. A prompt is a text or token ids; several prompts are answered as several choices."""

    prompt: str | list[str] | list[int] | list[list[int]] | None = None
    max_tokens: int | None = Field(default=16)
    echo: bool | None = False

    def prompts(self) -> list[str | list[int]]:
        """The prompts, each a text or token ids.

        Raises:
            ApiError: There is none, or one is empty.
        """
        prompts: list[str | list[int]]
        if isinstance(self.prompt, list) and not all(isinstance(entry, int) for entry in self.prompt):
            prompts = [entry for entry in self.prompt if not isinstance(entry, int)]
        else:
            prompts = [self.prompt or ""]  # type: ignore[list-item]  # a list here holds only ints
        if not prompts or not all(prompts):
            raise invalid("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
        return prompts


class TokenizeRequest(BaseModel):
    """Body of `/tokenize`: a prompt or messages."""

    model_config = ConfigDict(extra="ignore")

    model: str | None = None
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    add_generation_prompt: bool = True
    return_token_strs: bool | None = False


class LoraRequest(BaseModel):
    """Body of `/v1/load_lora_adapter` and `/v1/unload_lora_adapter`."""

    model_config = ConfigDict(extra="ignore")

    lora_name: str
    lora_path: str = ""
    load_inplace: bool = False


class AbortRequest(BaseModel):
    """Body of `/abort_requests`."""

    model_config = ConfigDict(extra="ignore")

    request_ids: list[str] = Field(default_factory=list)


Body = TypeVar("Body", bound=BaseModel)


def parse(kind: type[Body], content_type: str, body: bytes) -> Body:
    """Read a JSON body.

    Raises:
        ApiError: It is not JSON, or not what the endpoint takes; worded as vLLM words it.
    """
    if content_type.partition(";")[0].strip().lower() != "application/json":
        message = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
        raise ApiError(message, _BAD_REQUEST)
    try:
        return kind.model_validate(orjson.loads(body))
    except orjson.JSONDecodeError as error:
        raise _not_json(body) from error
    except ValidationError as error:
        raise _not_valid(error) from error


def _not_json(body: bytes) -> ApiError:
    """The standard library's message, because that is what vLLM's web framework shows."""
    reason, position = "Invalid JSON", 0
    try:
        json.loads(body)
    except json.JSONDecodeError as error:
        reason, position = error.msg, error.pos
    except UnicodeDecodeError:
        return ApiError("There was an error parsing the body", "Bad Request")
    location = f"body.{position}"
    entry = {
        "type": "json_invalid",
        "loc": location,
        "msg": "JSON decode error",
        "input": "<dict of 0 items>",
        "ctx": {"error": reason},
    }
    return ApiError(f"1 validation error:\n  {entry}", _BAD_REQUEST, location)


def _not_valid(error: ValidationError) -> ApiError:
    entries = []
    for found in error.errors(include_url=False):
        entry: dict[str, Any] = {
            "type": found["type"],
            "loc": ".".join(map(str, ("body", *found["loc"]))),
            "msg": found["msg"],
            "input": _shown(found["input"]),
        }
        if "ctx" in found:
            entry["ctx"] = {key: str(value) for key, value in found["ctx"].items()}
        entries.append(entry)
    noun = "error" if len(entries) == 1 else "errors"
    lines = "".join(f"\n  {entry}" for entry in entries)
    return ApiError(f"{len(entries)} validation {noun}:{lines}", _BAD_REQUEST, entries[0]["loc"])


def _shown(value: object) -> object:
    if isinstance(value, Mapping):
        return f"<dict of {len(value)} items>"
    if isinstance(value, list):
        return f"<list of {len(value)} items>"
    return value


def _has_media(content: object) -> bool:
    parts = content if isinstance(content, list) else []
    return any(
        isinstance(part, Mapping) and str(part.get("type", "text")) not in {"text", "input_text"} for part in parts
    )
