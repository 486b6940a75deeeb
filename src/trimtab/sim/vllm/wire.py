"""What a request may say."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trimtab.sim.vllm.errors import BAD_REQUEST, ApiError, invalid, not_json, not_valid

MAX_TOP_LOGPROBS: Final = 20
_GREEDY_BELOW: Final = 1e-5  # temperatures that vLLM takes for zero
_HOTTEST: Final = 2.0
Int64 = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]


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
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: str | list[str] | None = None
    min_tokens: int = 0
    ignore_eos: bool = False
    seed: Int64 | None = None
    priority: Int64 = 0
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
    def limit_name(self) -> str:
        """The field that `limit` comes from."""
        return "max_tokens"

    @property
    def stops(self) -> tuple[str, ...]:
        """Stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

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

    def check_limit(self, max_model_len: int) -> None:
        """Refuse an answer that could never fit.

        Raises:
            ApiError: More tokens are asked for than prompt and answer may have together.
        """
        if self.limit is not None and self.limit > max_model_len:
            message = (
                f"{self.limit_name}={self.limit} cannot be greater than max_model_len={max_model_len}."
                " Please request fewer output tokens."
            )
            raise invalid(message, self.limit_name, self.limit)

    def check_sampling(self, max_tokens: int) -> None:
        """Refuse sampling parameters out of range, in vLLM's order.

        Args:
            max_tokens: What the request asks for, or the room that is left after the prompt if that is less.

        Raises:
            ApiError: A parameter is out of range.
        """
        if self.n < 1:
            raise ApiError(f"n must be at least 1, got {self.n}.")
        self._check_distribution()
        if max_tokens < 1:
            raise invalid(f"max_tokens must be at least 1, got {max_tokens}.", "max_tokens", max_tokens)
        if self.min_tokens < 0:
            raise ApiError(f"min_tokens must be greater than or equal to 0, got {self.min_tokens}.")
        if self.min_tokens > max_tokens:
            raise ApiError(f"min_tokens must be less than or equal to max_tokens={max_tokens}, got {self.min_tokens}.")
        if not all(self.stops):
            raise ApiError("stop cannot contain an empty string.")
        if self.n > 1 and self.temperature is not None and self.temperature < _GREEDY_BELOW:
            raise ApiError(f"n must be 1 when using greedy sampling, got {self.n}.")

    def _check_distribution(self) -> None:
        for name, value in (("presence", self.presence_penalty), ("frequency", self.frequency_penalty)):
            if value is not None and not -2 <= value <= 2:  # noqa: PLR2004 - OpenAI's range
                raise ApiError(f"{name}_penalty must be in [-2, 2], got {value}.")
        temperature = self.temperature or 0.0
        if temperature < 0:
            raise invalid(f"temperature must be non-negative, got {temperature}.", "temperature", temperature)
        if temperature > _HOTTEST:
            raise invalid(f"temperature must be in [0, 2], got {temperature}.", "temperature", temperature)
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise invalid(f"top_p must be in (0, 1], got {self.top_p}.", "top_p", self.top_p)

    def check_logprobs(self) -> None:
        """See `ChatRequest`."""

    def check_options(self) -> None:
        """Refuse contradictions between fields.

        Raises:
            ApiError: Two fields contradict each other.
        """
        if self.stream_options is not None and not self.stream:
            raise invalid("Stream options can only be defined when `stream=True`.", "stream_options")
        if self.cache_salt == "":
            raise invalid("Parameter 'cache_salt' must be a non-empty string if provided.", "cache_salt")


def check_messages(messages: Sequence[Mapping[str, Any]]) -> None:
    """Refuse an empty conversation.

    Raises:
        ApiError: There is no message.
    """
    if not messages:
        raise ApiError("Cannot apply chat template to an empty conversation. Provide at least one message.")


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

    @property
    def limit_name(self) -> str:
        """The newer field if it is there."""
        return "max_tokens" if self.max_completion_tokens is None else "max_completion_tokens"

    def check_logprobs(self) -> None:
        """Refuse more log probabilities than a vLLM gives. The engine notices, so that a stream has begun by then."""
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
        check_messages(self.messages)
        if any(_has_media(message.get("content")) for message in self.messages):
            raise ApiError(f"{model} is not a multimodal model")
        if self.tools and self.tool_choice in {None, "auto"}:
            raise ApiError('"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set')
        if self.tools and self.tool_choice == "required":
            raise ApiError('tool_choice="required" requires --tool-call-parser to be set')


class CompletionRequest(GenerationRequest):
    """Body of `/v1/completions`. A prompt is a text or token ids; several prompts are answered as several choices."""

    prompt: list[int] | list[list[int]] | str | list[str] | None = None
    max_tokens: int | None = Field(default=16)
    echo: bool | None = False

    def prompts(self) -> Sequence[str | list[int]]:
        """The prompts, each a text or token ids.

        Raises:
            ApiError: There is none, or one is empty.
        """
        prompts: Sequence[str | list[int]] = [entry for entry in self._listed() if not isinstance(entry, int)]
        if not prompts:
            raise ApiError("You must pass at least one prompt")
        if not all(prompts):
            raise invalid("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
        return prompts

    def _listed(self) -> Sequence[str | list[int] | int]:
        if isinstance(self.prompt, list) and self.prompt and isinstance(self.prompt[0], int):
            return [[token for token in self.prompt if isinstance(token, int)]]
        return self.prompt if isinstance(self.prompt, list) else [self.prompt or ""]


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


class PauseQuery(BaseModel):
    """Query of `/pause`."""

    mode: Literal["abort", "wait", "keep"] = "abort"


class SleepQuery(PauseQuery):
    """Query of `/sleep`."""

    level: int = Field(default=1, ge=0, le=2)


Body = TypeVar("Body", bound=BaseModel)


def parse(kind: type[Body], content_type: str, body: bytes) -> Body:
    """Read a JSON body.

    Raises:
        ApiError: It is not JSON, or not what the endpoint takes; worded as vLLM words it.
    """
    if content_type.partition(";")[0].strip().lower() != "application/json":
        message = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
        raise ApiError(message, BAD_REQUEST)
    try:
        return kind.model_validate(orjson.loads(body), from_attributes=True)
    except (orjson.JSONDecodeError, ValidationError):
        return _parse_slowly(kind, body)


def _parse_slowly(kind: type[Body], body: bytes) -> Body:
    """With the standard library, whose messages and treatment of large numbers vLLM's answers show."""
    try:
        found = json.loads(body)
        json.dumps(found, ensure_ascii=False).encode()  # half a surrogate pair can be read, but is no text
        return kind.model_validate(found, from_attributes=True)
    except json.JSONDecodeError as error:
        raise not_json(error.msg, error.pos) from error
    except (UnicodeError, RecursionError) as error:
        raise ApiError("There was an error parsing the body", BAD_REQUEST) from error
    except ValidationError as error:
        raise not_valid(error) from error


def parse_object(body: bytes) -> dict[str, Any]:
    """Read a JSON object from an endpoint that does not look at the content type.

    Raises:
        ApiError: It is not one.
    """
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ApiError("Invalid JSON format", BAD_REQUEST) from error
    if not isinstance(found, dict):
        raise ApiError("Request body must be a JSON object", BAD_REQUEST)
    return found


def parse_query(kind: type[Body], query: Mapping[str, Sequence[str]]) -> Body:
    """Read the parameters of a URL; of several values for one name the last counts.

    Raises:
        ApiError: One of them is out of range.
    """
    try:
        return kind.model_validate({name: values[-1] for name, values in query.items()})
    except ValidationError as error:
        raise not_valid(error, "query") from error


def _has_media(content: object) -> bool:
    parts = content if isinstance(content, list) else []
    return any(
        isinstance(part, Mapping) and str(part.get("type", "text")) not in {"text", "input_text"} for part in parts
    )
