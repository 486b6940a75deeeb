"""Heads as they are written, and which headers pass."""

import pytest

from trimtab_gateway import wire


def test_a_request_head_is_written_from_scratch() -> None:
    headers = [
        (b"host", b"client.example"),
        (b"content-type", b"application/json"),
        (b"content-length", b"999"),
        (b"transfer-encoding", b"chunked"),
        (b"x-request-id", b"theirs"),
        (b"x-trimtab-service-level", b"batch"),
        (b"x-llm-d-inference-objective", b"x"),
        (b"http2-settings", b"x"),
        (b"accept", b"*/*"),
    ]
    assert wire.request_head("/v1/completions", b"10.0.0.1:8000", headers, b"ours", 17) == (
        b"POST /v1/completions HTTP/1.1\r\nhost: 10.0.0.1:8000\r\ncontent-type: application/json\r\naccept: */*\r\n"
        b"x-request-id: ours\r\ncontent-length: 17\r\n\r\n"
    )


def test_headers_named_by_connection_stay_on_their_hop() -> None:
    headers = [(b"connection", b"close, X-One"), (b"connection", b"x-two"), (b"x-one", b"1"), (b"x-two", b"2")]
    assert b"x-one" not in wire.request_head("/", b"h", headers, b"id", 0)
    response = wire.response_head(200, b"OK", [*headers, (b"x-three", b"3")], b"id", close=False)
    assert response == b"HTTP/1.1 200 OK\r\nx-three: 3\r\nx-request-id: id\r\n\r\n"


def test_a_response_keeps_its_framing_unless_it_is_taken_off() -> None:
    headers = [(b"transfer-encoding", b"chunked")]
    assert b"transfer-encoding: chunked" in wire.response_head(200, b"OK", headers, b"id", close=False)
    plain = wire.response_head(200, b"OK", headers, b"id", close=True, dechunked=True)
    assert plain == b"HTTP/1.1 200 OK\r\nx-request-id: id\r\nconnection: close\r\n\r\n"


def test_an_engine_cannot_speak_in_the_gateways_name() -> None:
    assert b"evil" not in wire.response_head(200, b"OK", [(b"x-trimtab-reason", b"evil")], b"id", close=False)


def test_the_request_id_of_the_engine_is_not_repeated() -> None:
    head = wire.response_head(200, b"OK", [(b"x-request-id", b"engine")], b"ours", close=False)
    assert head.count(b"x-request-id") == 1
    assert b"engine" in head


def test_an_own_answer_states_its_length_and_may_leave_out_its_body() -> None:
    whole = wire.whole_response(404, b"{}", headers=[(b"x", b"y")], close=True)
    assert whole == (
        b"HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: 2\r\nx: y\r\n"
        b"connection: close\r\n\r\n{}"
    )
    assert wire.whole_response(200, b"{}", close=False, head_only=True).endswith(b"content-length: 2\r\n\r\n")


@pytest.mark.parametrize("status", [400, 404, 405, 408, 413, 415, 417, 429, 431, 502, 503, 504])
def test_every_status_has_a_phrase(status: int) -> None:
    assert wire.whole_response(status, b"", close=False).startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize(
    ("value", "safe"),
    [
        (b"abc-DEF_1.2:3", True),
        (b"x" * 128, True),
        (b"x" * 129, False),
        (b"", False),
        (b"a b", False),
        (b"a\r\nx: y", False),
        (b"\xff", False),
    ],
)
def test_request_ids_are_short_and_plain(value: bytes, safe: bool) -> None:
    assert wire.is_request_id(value) is safe


def test_a_chunk_carries_its_length_in_hexadecimal() -> None:
    assert wire.chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"
