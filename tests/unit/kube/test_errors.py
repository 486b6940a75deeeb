"""Error answers become exceptions that name what happened."""

import orjson
import pytest

from trimtab.kube import errors

CONFLICT = {
    "reason": "Conflict",
    "message": 'Apply failed with 2 conflicts: conflicts with "hpa": .spec.replicas',
    "details": {
        "causes": [
            {"reason": "FieldManagerConflict", "message": 'conflict with "hpa" using v1', "field": ".spec.replicas"},
            {"reason": "FieldManagerConflict", "message": 'conflict with "argocd-controller"', "field": ".spec.x"},
        ]
    },
}


@pytest.mark.parametrize(
    ("status", "reason", "expected"),
    [
        (400, "BadRequest", errors.BadRequest),
        (401, "Unauthorized", errors.Unauthorized),
        (403, "Forbidden", errors.Forbidden),
        (404, "NotFound", errors.NotFound),
        (409, "AlreadyExists", errors.AlreadyExists),
        (409, "Conflict", errors.Conflict),
        (410, "Expired", errors.Gone),
        (422, "Invalid", errors.Invalid),
        (429, "TooManyRequests", errors.TooManyRequests),
        (500, "InternalError", errors.Unavailable),
        (503, "ServiceUnavailable", errors.Unavailable),
        (405, "MethodNotAllowed", errors.KubeError),
    ],
)
def test_each_status_has_its_exception(status: int, reason: str, expected: type[errors.KubeError]) -> None:
    error = errors.from_response(status, orjson.dumps({"reason": reason, "message": "why"}))
    assert type(error) is expected
    assert (error.status, error.reason, str(error)) == (status, reason, "why")


def test_an_apply_conflict_names_the_other_managers() -> None:
    error = errors.from_response(409, orjson.dumps(CONFLICT))
    assert isinstance(error, errors.Conflict)
    assert error.managers == ("argocd-controller", "hpa")
    assert error.causes[0].field == ".spec.replicas"


def test_a_version_conflict_names_nobody() -> None:
    error = errors.from_response(409, b'{"reason": "Conflict", "message": "the object has been modified"}')
    assert isinstance(error, errors.Conflict)
    assert error.managers == ()


@pytest.mark.parametrize("body", [b"", b"<html>bad gateway</html>", b"[1, 2]", b"\xff\xfe"])
def test_a_body_that_is_no_status_still_gives_an_error(body: bytes) -> None:
    error = errors.from_response(502, body)
    assert isinstance(error, errors.Unavailable)
    assert error.status == 502
    assert str(error)


@pytest.mark.parametrize(
    ("header", "body", "seconds"),
    [
        ("7", {}, 7.0),
        (None, {"details": {"retryAfterSeconds": 3}}, 3.0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", {}, 0.0),
        (None, {}, 0.0),
    ],
)
def test_the_servers_wish_to_wait_is_kept(header: str | None, body: dict[str, object], seconds: float) -> None:
    assert errors.from_response(429, orjson.dumps(body), header).retry_after_seconds == seconds
