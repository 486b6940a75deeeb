"""Requests as the gateway reads them, and its own answers in OpenAI's shape."""

import json

import pytest

from trimtab.api import openai
from trimtab.api.openai import STATUS, Asked, ErrorCode, InvalidBody, error_body, model_list, read_request, stream_error


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        (b'{"model": "a", "stream": true, "messages": []}', Asked("a", stream=True)),
        (b'{"model": "a", "stream": false}', Asked("a", stream=False)),
        (b'{"model": "a", "stream": 1}', Asked("a", stream=False)),
        (b'{"model": null}', Asked(None, stream=False)),
        (b"{}", Asked(None, stream=False)),
        (b'{"model": "a", "model": "b"}', Asked("b", stream=False)),  # as engines read it: the last one counts
        (b'{"model": "mod\\u00e8le"}', Asked("modèle", stream=False)),
    ],
)
def test_only_what_routing_needs_is_read(body: bytes, asked: Asked) -> None:
    assert read_request(body) == asked


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"", ErrorCode.INVALID_JSON, None),
        (b'{"model": "a"', ErrorCode.INVALID_JSON, None),
        (b'"a"', ErrorCode.INVALID_REQUEST, None),
        (b"null", ErrorCode.INVALID_REQUEST, None),
        (b'{"model": ["a"]}', ErrorCode.INVALID_REQUEST, "model"),
    ],
)
def test_bodies_that_no_engine_could_serve(body: bytes, code: ErrorCode, param: str | None) -> None:
    with pytest.raises(InvalidBody) as caught:
        read_request(body)
    assert (caught.value.code, caught.value.param) == (code, param)


def test_a_message_about_a_body_never_quotes_it() -> None:
    with pytest.raises(InvalidBody) as caught:
        read_request(b'{"messages": "my secret", ')
    assert "secret" not in str(caught.value)
    assert "line 1, column" in str(caught.value)


def test_every_error_has_a_status_and_a_distinct_stable_name() -> None:
    assert STATUS.keys() == set(ErrorCode)
    assert all(400 <= status < 600 for status in STATUS.values())


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (ErrorCode.INVALID_JSON, "invalid_request_error"),
        (ErrorCode.MODEL_NOT_FOUND, "not_found_error"),
        (ErrorCode.RATE_LIMITED, "rate_limit_error"),
        (ErrorCode.QUEUE_TIMEOUT, "rate_limit_error"),
        (ErrorCode.NO_CAPACITY, "server_error"),
        (ErrorCode.UPSTREAM_FAILED, "server_error"),
    ],
)
def test_errors_have_the_four_fields_of_openai(code: ErrorCode, kind: str) -> None:
    content = json.loads(error_body(code, 'a "message"', "model"))
    assert content == {"error": {"message": 'a "message"', "type": kind, "param": "model", "code": code.value}}


def test_an_error_event_is_found_by_its_own_mark_and_ends_the_stream() -> None:
    event = stream_error(ErrorCode.UPSTREAM_FAILED, "gone")
    assert event.startswith(openai.STREAM_ERROR_MARK)
    error, done, rest = event.split(b"\n\n")
    assert json.loads(error.removeprefix(b"data: "))["error"]["code"] == "upstream_failed"
    assert (done, rest) == (b"data: [DONE]", b"")


def test_models_are_listed_as_openai_lists_them() -> None:
    listed = json.loads(model_list([("a", "ai/chat")]))
    assert listed == {"object": "list", "data": [{"id": "a", "object": "model", "created": 0, "owned_by": "ai/chat"}]}
