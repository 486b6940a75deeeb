"""Which model is asked for, and what is said when that is not clear."""

import json
from collections.abc import AsyncIterator

import pytest

from tests.support.openai_server import OpenAIServer, Script
from trimtab.model.problem import Problem
from trimtab.workload.models import choose_model
from trimtab.workload.wire import Client, parse_target


class Models(OpenAIServer):
    """A server whose list of models is what the test says."""

    async def _answer(self, script: Script, request: object, writer: object) -> bool:
        return await super()._answer(self.behave(0, request), request, writer)  # type: ignore[arg-type]


@pytest.fixture
async def server() -> AsyncIterator[Models]:
    async with Models() as running:
        yield running


def listing(*names: str) -> Script:
    return Script(body=json.dumps({"data": [{"id": name} for name in names]}).encode())


async def choose(server: Models, script: Script, wanted: str | None) -> str:
    server.behave = lambda _n, _r: script
    client = Client(parse_target(server.url))
    try:
        return await choose_model(client, wanted, patience_seconds=0.5)
    finally:
        client.close()


@pytest.mark.parametrize(
    ("script", "wanted", "chosen"),
    [
        (listing("a"), None, "a"),
        (listing("a", "b"), "b", "b"),
        (listing(), "b", "b"),
        (Script(404, b"{}"), "b", "b"),
        (Script(200, b"<html>"), "b", "b"),
        (Script(200, b'{"data": 7}'), "b", "b"),
    ],
)
async def test_clear_cases(script: Script, wanted: str | None, chosen: str, server: Models) -> None:
    assert await choose(server, script, wanted) == chosen


@pytest.mark.parametrize(
    ("script", "wanted", "what", "fix"),
    [
        (listing("a", "b"), None, "which model to ask for is not clear", "pass --model with one of: a, b"),
        (listing("a"), "z", "the server does not offer z", "pass --model with one of: a"),
        (listing(), None, "which model to ask for is not clear", "one of: none that it tells of"),
        (Script(401, b'{"error": "Unauthorized"}'), "a", "GET /v1/models answered 401", "OPENAI_API_KEY"),
        (Script(body=b"", first_seconds=30), "a", r"GET /v1/models had no answer in 0\.5 s", "at --url is ready"),
    ],
)
async def test_unclear_cases(script: Script, wanted: str | None, what: str, fix: str, server: Models) -> None:
    with pytest.raises(Problem, match=what) as caught:
        await choose(server, script, wanted)
    assert fix in caught.value.fix


async def test_no_server() -> None:
    async with Models() as gone:
        url = gone.url
    with pytest.raises(Problem, match="cannot connect") as caught:
        await choose_model(Client(parse_target(url)), "a")
    assert "--url" in caught.value.fix
