"""Error bodies, word for word."""

from typing import Any

import httpx2
import pytest

from tests.contract.engine.client import Engine

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
BAD = "BadRequestError"
INVALID = "Bad Request"

# what is changed in a good request, type, param, message
REFUSED: list[tuple[dict[str, Any], str, str | None, str]] = [
    ({"max_tokens": 0}, BAD, "max_tokens", "max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)"),
    ({"max_tokens": -1}, BAD, "max_tokens", "max_tokens must be at least 1, got -1. (parameter=max_tokens, value=-1)"),
    (
        {"max_tokens": 500_000},
        BAD,
        "max_tokens",
        (
            "max_tokens=500000 cannot be greater than max_model_len={longest}. Please request fewer output tokens."
            " (parameter=max_tokens, value=500000)"
        ),
    ),
    (
        {"temperature": -1},
        BAD,
        "temperature",
        "temperature must be non-negative, got -1.0. (parameter=temperature, value=-1.0)",
    ),
    ({"top_p": 0}, BAD, "top_p", "top_p must be in (0, 1], got 0.0. (parameter=top_p, value=0.0)"),
    (
        {"temperature": "hot"},
        INVALID,
        "body.temperature",
        (
            "1 validation error:\n  {{'type': 'float_parsing', 'loc': 'body.temperature', 'msg': 'Input should be a"
            " valid number, unable to parse string as a number', 'input': 'hot'}}"
        ),
    ),
    (
        {"priority": "high"},
        INVALID,
        "body.priority",
        (
            "1 validation error:\n  {{'type': 'int_parsing', 'loc': 'body.priority', 'msg': 'Input should be a valid"
            " integer, unable to parse string as an integer', 'input': 'high'}}"
        ),
    ),
    (
        {"kv_transfer_params": "x"},
        INVALID,
        "body.kv_transfer_params",
        (
            "1 validation error:\n  {{'type': 'dict_type', 'loc': 'body.kv_transfer_params', 'msg': 'Input should be a"
            " valid dictionary', 'input': 'x'}}"
        ),
    ),
    (
        {"messages": ...},
        INVALID,
        "body.messages",
        (
            "1 validation error:\n  {{'type': 'missing', 'loc': 'body.messages', 'msg': 'Field required', 'input':"
            " '<dict of 4 items>'}}"
        ),
    ),
    (
        {"messages": []},
        BAD,
        None,
        "Cannot apply chat template to an empty conversation. Provide at least one message.",
    ),
    (
        {"stream_options": {"include_usage": True}},
        BAD,
        "stream_options",
        "Stream options can only be defined when `stream=True`. (parameter=stream_options)",
    ),
    (
        {"cache_salt": ""},
        BAD,
        "cache_salt",
        "Parameter 'cache_salt' must be a non-empty string if provided. (parameter=cache_salt)",
    ),
    ({"n": 2}, BAD, None, "n must be 1 when using greedy sampling, got 2."),
    ({"n": 0}, BAD, None, "n must be at least 1, got 0."),
    (
        {"max_completion_tokens": 500_000},
        BAD,
        "max_completion_tokens",
        (
            "max_completion_tokens=500000 cannot be greater than max_model_len={longest}. Please request fewer output"
            " tokens. (parameter=max_completion_tokens, value=500000)"
        ),
    ),
    (
        {"temperature": 3},
        BAD,
        "temperature",
        "temperature must be in [0, 2], got 3.0. (parameter=temperature, value=3.0)",
    ),
    ({"presence_penalty": 3}, BAD, None, "presence_penalty must be in [-2, 2], got 3.0."),
    ({"frequency_penalty": -2.5}, BAD, None, "frequency_penalty must be in [-2, 2], got -2.5."),
    ({"min_tokens": -1}, BAD, None, "min_tokens must be greater than or equal to 0, got -1."),
    ({"min_tokens": 9}, BAD, None, "min_tokens must be less than or equal to max_tokens=4, got 9."),
    ({"stop": ""}, BAD, None, "stop cannot contain an empty string."),
    (
        {"stop": 5},
        INVALID,
        "body.stop",
        (
            "2 validation errors:\n  {{'type': 'string_type', 'loc': 'body.stop', 'msg': 'Input should be a valid"
            " string', 'input': '5'}}\n  {{'type': 'list_type', 'loc': 'body.stop', 'msg': 'Input should be a valid"
            " list', 'input': '5'}}"
        ),
    ),
    (
        {"min_tokens": None},
        INVALID,
        "body.min_tokens",
        (
            "1 validation error:\n  {{'type': 'int_type', 'loc': 'body.min_tokens', 'msg': 'Input should be a valid"
            " integer', 'input': 'None'}}"
        ),
    ),
    (
        {"priority": 10**22},
        INVALID,
        "body.priority",
        (
            "1 validation error:\n  {{'type': 'less_than_equal', 'loc': 'body.priority', 'msg': 'Input should be less"
            " than or equal to 9223372036854775807', 'input': '10000000000000000000000', 'ctx': {{'le':"
            " 9223372036854775807}}}}"
        ),
    ),
    (
        {"messages": "hi"},
        INVALID,
        "body.messages",
        (
            "1 validation error:\n  {{'type': 'list_type', 'loc': 'body.messages', 'msg': 'Input should be a valid"
            " list', 'input': 'hi'}}"
        ),
    ),
    (
        {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "auto"},
        BAD,
        None,
        '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
    ),
    (
        {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "required"},
        BAD,
        None,
        'tool_choice="required" requires --tool-call-parser to be set',
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]},
        BAD,
        None,
        "{model} is not a multimodal model",
    ),
]
ACCEPTED: list[dict[str, Any]] = [
    {"model": ...},
    {"no_such_field": 1},
    {"messages": [{"role": "x", "content": "y"}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]},
    {"priority": 5},
    {"priority": -5},
    {"kv_transfer_params": {"do_remote_prefill": True}},
    {"kv_transfer_params": None},
    {"ec_transfer_params": {"mm_hash": {}}},
    {"cache_salt": "abc"},
    {"temperature": "0.5"},
    {"stream_options": None},
    {"stop": []},
    {"seed": 7},
    {"logprobs": False},
]


def error_of(response: httpx2.Response) -> tuple[int, Any, Any, Any]:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == response.status_code
    return response.status_code, error["type"], error["param"], error["message"]


ALSO_IN_STREAMS = [row for row in REFUSED if "stream_options" not in row[0] and row[0].get("messages") is not ...]
CASES = [(*row, False) for row in REFUSED] + [(*row, True) for row in ALSO_IN_STREAMS]


@pytest.mark.parametrize(
    ("change", "kind", "param", "message", "stream"), CASES, ids=[f"{row[0]}"[:50] + f" {row[4]}" for row in CASES]
)
async def test_what_is_refused(
    api: Engine, change: dict[str, Any], kind: str, param: str | None, message: str, *, stream: bool
) -> None:
    body = api.chat_body(**change, **({"stream": True} if stream else {}))
    expected = message.format(model=api.facts.model, longest=api.facts.max_model_len)
    assert error_of(await api.http.post(CHAT, json=body)) == (400, kind, param, expected)


@pytest.mark.parametrize("change", ACCEPTED, ids=[str(change)[:50] for change in ACCEPTED])
async def test_what_is_accepted(api: Engine, change: dict[str, Any]) -> None:
    answer = await api.chat(**change)
    assert answer["model"] == api.facts.model


@pytest.mark.parametrize("path", [CHAT, TEXT, "/tokenize"])
async def test_an_unknown_model(api: Engine, path: str) -> None:
    body = {**api.chat_body(model="nope"), "prompt": "x"}
    status, kind, param, message = error_of(await api.http.post(path, json=body))
    assert (status, kind, param) == (404, "NotFoundError", "model")
    assert message == f"The model `nope` does not exist. Valid aliases: {api.facts.model}."


@pytest.mark.parametrize("stream", [False, True])
async def test_a_prompt_that_is_too_long(api: Engine, *, stream: bool) -> None:
    longest = api.facts.max_model_len
    body = api.chat_body(text="hello gateway " * longest, stream=stream)
    status, kind, param, message = error_of(await api.http.post(CHAT, json=body))
    assert (status, kind, param) == (400, BAD, "input_tokens")
    assert message.startswith(f"This model's maximum context length is {longest} tokens. However, ")


EMPTY = "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)"


@pytest.mark.parametrize(
    ("prompt", "param", "message"),
    [("", "prompt", EMPTY), (None, "prompt", EMPTY), ([], None, "You must pass at least one prompt")],
)
async def test_an_empty_prompt(api: Engine, prompt: object, param: str | None, message: str) -> None:
    body = {"prompt": prompt, "max_tokens": 2}
    assert error_of(await api.http.post(TEXT, json=body)) == (400, BAD, param, message)


async def test_too_many_logprobs_are_noticed_late(api: Engine) -> None:
    body = api.chat_body(logprobs=True, top_logprobs=99)
    message = "Requested sample logprobs of 99, which is greater than max allowed: 20 (parameter=logprobs, value=99)"
    assert error_of(await api.http.post(CHAT, json=body)) == (400, BAD, "logprobs", message)
    assert await api.stream(CHAT, body) == [
        {"error": {"message": message, "type": BAD, "param": "logprobs", "code": 400}},
        "[DONE]",
    ]


async def test_neither_prompt_nor_messages_to_tokenize(api: Engine) -> None:
    message = (
        "2 validation errors:\n  {'type': 'missing', 'loc': 'body.prompt', 'msg': 'Field required', 'input': '<dict of"
        " 0 items>'}\n  {'type': 'missing', 'loc': 'body.messages', 'msg': 'Field required', 'input': '<dict of 0"
        " items>'}"
    )
    assert error_of(await api.http.post("/tokenize", json={})) == (400, INVALID, "body.prompt", message)


@pytest.mark.parametrize(("body", "shown"), [([], "<list of 0 items>"), ("x", "x")])
async def test_a_body_that_is_no_object(api: Engine, body: object, shown: str) -> None:
    message = (
        "1 validation error:\n  {'type': 'model_attributes_type', 'loc': 'body', 'msg': 'Input should be a valid"
        f" dictionary or object to extract fields from', 'input': '{shown}'}}"
    )
    assert error_of(await api.http.post(CHAT, json=body)) == (400, INVALID, "body", message)


@pytest.mark.parametrize("path", [CHAT, TEXT])
async def test_json_that_is_none(api: Engine, path: str) -> None:
    headers = {"content-type": "application/json"}
    status, kind, param, message = error_of(await api.http.post(path, content='{"model": "tiny", ', headers=headers))
    assert (status, kind, param) == (400, INVALID, "body.18")
    assert message == (
        "1 validation error:\n  {'type': 'json_invalid', 'loc': 'body.18', 'msg': 'JSON decode error', 'input': '<dict"
        " of 0 items>', 'ctx': {'error': 'Expecting property name enclosed in double quotes'}}"
    )


@pytest.mark.parametrize("headers", [{"content-type": "text/plain"}, {}])
async def test_a_body_of_another_type(api: Engine, headers: dict[str, str]) -> None:
    content = b'{"messages": []}' if headers else b""
    message = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
    assert error_of(await api.http.post(CHAT, content=content, headers=headers)) == (400, INVALID, None, message)


@pytest.mark.parametrize(
    ("method", "path", "status", "detail"),
    [
        ("GET", "/nope", 404, "Not Found"),
        ("GET", "/v1/models/tiny", 404, "Not Found"),
        ("POST", "/v1/embeddings", 404, "Not Found"),
        ("GET", CHAT, 405, "Method Not Allowed"),
        ("GET", "/tokenize", 405, "Method Not Allowed"),
        ("DELETE", "/health", 405, "Method Not Allowed"),
        ("GET", "//health", 404, "Not Found"),
    ],
)
async def test_routes_that_are_not_there(api: Engine, method: str, path: str, status: int, detail: str) -> None:
    response = await api.http.request(method, path, json={} if method == "POST" else None)
    assert (response.status_code, response.json()) == (status, {"detail": detail})


@pytest.mark.parametrize("path", ["/health", "/v1/models"])
async def test_a_slash_too_many_is_redirected(api: Engine, path: str) -> None:
    response = await api.http.get(f"{path}/")
    assert response.status_code == 307
    assert response.headers["location"].endswith(path)
    assert (await api.http.get("/metrics/")).status_code == 200


@pytest.mark.parametrize(
    ("path", "param", "message"),
    [
        (
            "/sleep?level=7",
            "query.level",
            (
                "1 validation error:\n  {'type': 'less_than_equal', 'loc': 'query.level', 'msg': 'Input should be less"
                " than or equal to 2', 'input': '7', 'ctx': {'le': 2}}"
            ),
        ),
        (
            "/sleep?level=x",
            "query.level",
            (
                "1 validation error:\n  {'type': 'int_parsing', 'loc': 'query.level', 'msg': 'Input should be a valid"
                " integer, unable to parse string as an integer', 'input': 'x'}"
            ),
        ),
        (
            "/pause?mode=q",
            "query.mode",
            (
                "1 validation error:\n  {'type': 'literal_error', 'loc': 'query.mode', 'msg': \"Input should be"
                " 'abort', 'wait' or 'keep'\", 'input': 'q', 'ctx': {'expected': \"'abort', 'wait' or 'keep'\"}}"
            ),
        ),
    ],
)
async def test_parameters_of_development_endpoints(api: Engine, path: str, param: str, message: str) -> None:
    api.needs_dev_mode()
    assert error_of(await api.http.post(path)) == (400, INVALID, param, message)


@pytest.mark.parametrize(
    ("content", "message"), [("{", "Invalid JSON format"), ("[]", "Request body must be a JSON object")]
)
async def test_bodies_of_abort_requests(api: Engine, content: str, message: str) -> None:
    api.needs_dev_mode()
    assert error_of(await api.http.post("/abort_requests", content=content)) == (400, INVALID, None, message)
