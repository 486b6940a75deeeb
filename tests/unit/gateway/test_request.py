"""Faults of a head that the parser lets pass, one by one."""

import pytest

from trimtab.api.openai import ErrorCode
from trimtab_gateway.limits import Limits
from trimtab_gateway.request import Incoming, Rejection, read_head

LIMITS = Limits(head_bytes=200, body_bytes=100)
HOST = (b"host", b"g")


def a_request(*headers: tuple[bytes, bytes], http_1_0: bool = False) -> Incoming:
    request = Incoming()
    request.target = b"/v1/models?x=y"
    request.http_1_0 = http_1_0
    request.headers = list(headers)
    request.head_bytes = sum(len(name) + len(value) for name, value in headers)
    return request


def fault(request: Incoming, version: str = "1.1", *, upgrade: bool = False) -> Rejection | None:
    return read_head(request, version, LIMITS, upgrade=upgrade)


@pytest.mark.parametrize(
    "headers",
    [(HOST,), (HOST, (b"content-length", b"100")), (HOST, (b"transfer-encoding", b"Chunked")), (HOST, (b"x", b""))],
)
def test_ordinary_heads_have_none(headers: tuple[tuple[bytes, bytes], ...]) -> None:
    assert fault(a_request(*headers)) is None


def test_http_1_0_needs_no_host() -> None:
    assert fault(a_request(http_1_0=True), "1.0") is None


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ((), ErrorCode.INVALID_HTTP),
        ((HOST, HOST), ErrorCode.INVALID_HTTP),
        ((HOST, (b"transfer-encoding", b"gzip, chunked")), ErrorCode.INVALID_HTTP),
        ((HOST, (b"content-length", b"101")), ErrorCode.BODY_TOO_LARGE),
        ((HOST, (b"expect", b"200-ok")), ErrorCode.EXPECTATION_FAILED),
        ((HOST, (b"x", b"y" * 200)), ErrorCode.HEADERS_TOO_LARGE),
    ],
)
def test_faults_have_their_own_code(headers: tuple[tuple[bytes, bytes], ...], code: ErrorCode) -> None:
    found = fault(a_request(*headers))
    assert found is not None
    assert found.code is code


@pytest.mark.parametrize("version", ["0.9", "2.0", "1.2"])
def test_other_versions_are_refused(version: str) -> None:
    found = fault(a_request(HOST), version)
    assert found is not None
    assert found.code is ErrorCode.INVALID_HTTP


def test_upgrades_are_refused_with_the_way_out() -> None:
    found = fault(a_request(HOST), upgrade=True)
    assert found is not None
    assert "use plain HTTP/1.1" in found.message


def test_chunks_are_unknown_to_http_1_0() -> None:
    assert fault(a_request((b"transfer-encoding", b"chunked"), http_1_0=True), "1.0") is not None


def test_continue_is_wanted_only_by_who_can_understand_it() -> None:
    modern, old = a_request(HOST, (b"expect", b"100-Continue")), a_request((b"expect", b"100-continue"), http_1_0=True)
    assert (fault(modern), fault(old, "1.0")) == (None, None)
    assert (modern.wants_continue, old.wants_continue) == (True, False)


def test_the_path_is_without_its_query() -> None:
    assert a_request(HOST).path == "/v1/models"


def test_fields_that_matter_are_noted() -> None:
    headers = ((b"x-request-id", b"r"), (b"x-trimtab-service-level", b"batch"), (b"content-encoding", b"gzip"))
    request = a_request(HOST, *headers)
    assert fault(request) is None
    assert (request.request_id, request.service_level, request.content_encoding) == (b"r", b"batch", b"gzip")
