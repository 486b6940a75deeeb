"""How one answer is read: its times, its counts, and how it ended."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.workload.answer import Answer, Outcome

STREAM = {"content-type": "text/event-stream; charset=utf-8"}
JSON = {"content-type": "application/json"}


def event(record: Any) -> bytes:
    return b"data: " + json.dumps(record).encode() + b"\n\n"


def piece(text: str = " word", finish: str | None = None) -> bytes:
    return event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]})


ROLE = event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]})
USAGE = event(
    {
        "choices": [],
        "usage": {"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}},
    }
)
DONE = b"data: [DONE]\n\n"
WHOLE = ROLE + piece() + piece(finish="length") + USAGE + DONE
# As a real vLLM 0.32 sends them.
REFUSED_IN_STREAM = event({"error": {"message": "queue full", "type": "overloaded", "code": 503}}) + DONE


def read(data: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    answer = Answer()
    answer.on_head(status, STREAM if headers is None else headers)
    answer.on_data(data, 1.0)
    answer.on_end(2.0)
    return answer


def test_counts_and_reason_come_from_the_server() -> None:
    answer = read(WHOLE)
    assert (answer.prompt_tokens, answer.output_tokens, answer.cached_tokens) == (9, 5, 4)
    assert (answer.pieces, answer.finish_reason, answer.complete) == (2, "length", True)
    assert answer.outcome() is Outcome.OK


def test_first_content_is_not_the_role_chunk() -> None:
    """A real engine sends headers at once and the role with the first token; an empty content is no token."""
    answer = Answer()
    answer.on_head(200, STREAM)
    for at_seconds, data in ((1.0, ROLE), (2.0, piece()), (2.5, piece()), (4.5, piece(finish="stop"))):
        answer.on_data(data, at_seconds)
    assert (answer.first_content, answer.last_content, answer.largest_gap) == (2.0, 4.5, 2.0)
    assert answer.gaps == [0.5, 2.0]


@given(st.data())
def test_pieces_may_be_cut_anywhere(data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(WHOLE)), max_size=12)))
    answer = Answer()
    answer.on_head(200, STREAM)
    for start, end in zip([0, *cuts], [*cuts, len(WHOLE)], strict=True):
        answer.on_data(WHOLE[start:end], 1.0)
    assert (answer.pieces, answer.output_tokens, answer.outcome()) == (2, 5, Outcome.OK)


@pytest.mark.parametrize(
    ("data", "outcome"),
    [
        (WHOLE, Outcome.OK),
        (WHOLE.replace(b"\n", b"\r\n"), Outcome.OK),
        (b": keep-alive\n\nevent: x\n" + WHOLE, Outcome.OK),
        (WHOLE.replace(b"data: ", b"data:"), Outcome.OK),
        (REFUSED_IN_STREAM, Outcome.STREAM_ERROR),
        (piece() + REFUSED_IN_STREAM, Outcome.STREAM_ERROR),
        (piece() + event({"error": "boom"}) + DONE, Outcome.STREAM_ERROR),
        (b"data: {broken\n\n" + WHOLE, Outcome.STREAM_ERROR),
        (event({"choices": ["odd"]}) + WHOLE, Outcome.STREAM_ERROR),
        (event([1]) + WHOLE, Outcome.STREAM_ERROR),
        (b"", Outcome.TRUNCATED),
        (piece() + piece(), Outcome.TRUNCATED),
        (piece() + DONE, Outcome.TRUNCATED),
        (piece(finish="length"), Outcome.TRUNCATED),
        (piece(finish="abort") + DONE, Outcome.TRUNCATED),
    ],
)
def test_outcomes_of_streams(data: bytes, outcome: Outcome) -> None:
    assert read(data).outcome() is outcome


@pytest.mark.parametrize(
    ("status", "body", "outcome", "error"),
    [
        (429, b'{"error": {"message": "slow down"}}', Outcome.REJECTED, "slow down"),
        (503, b"busy", Outcome.REJECTED, "busy"),
        (500, b"", Outcome.ERROR, "status 500"),
        (404, b'{"error": {"message": "no such model"}}', Outcome.ERROR, "no such model"),
        (404, b'{"detail": "Not Found"}', Outcome.ERROR, "Not Found"),
        (401, b'{"error": "Unauthorized"}', Outcome.ERROR, "Unauthorized"),
        (200, b"<html>hello</html>", Outcome.ERROR, "<html>hello</html>"),
        (200, b'{"choices": ["odd"]}', Outcome.ERROR, "unknown shape"),
    ],
)
def test_outcomes_of_plain_answers(status: int, body: bytes, outcome: Outcome, error: str) -> None:
    answer = read(body, status, JSON)
    assert answer.outcome() is outcome
    assert error in answer.error


def test_a_server_that_does_not_stream_is_understood() -> None:
    body = {
        "choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 3},
    }
    answer = read(json.dumps(body).encode(), 200, JSON)
    assert answer.outcome() is Outcome.OK
    assert (answer.first_content, answer.output_tokens) == (2.0, 3)


def test_plain_completions_and_reasoning_are_content() -> None:
    answer = read(event({"choices": [{"text": "a"}]}) + event({"choices": [{"delta": {"reasoning_content": "b"}}]}))
    assert answer.pieces == 2


def test_long_errors_are_cut() -> None:
    assert len(read(b"x" * 10_000, 500, JSON).error) == 300
