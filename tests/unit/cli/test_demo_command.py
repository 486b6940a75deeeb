"""The demo's own decisions: when it acts, when it waits, what it removes."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from rich.console import Console

from tests.support.openai_server import OpenAIServer, Script
from trimtab.cli import demo as command
from trimtab.kube.errors import Forbidden
from trimtab.local import demo as act
from trimtab.local.cluster import LocalCluster
from trimtab.local.demo import Seen
from trimtab.model.problem import Problem
from trimtab.workload.replay import Replay, ReplaySettings
from trimtab.workload.request import Trace, TraceRequest
from trimtab.workload.wire import Client, parse_target


@pytest.fixture
async def server() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer() as running:
        yield running


class Api:
    """What the demo asks of the API server, written down; refuses what it is told to refuse."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.calls: list[tuple[str, str, Any]] = []
        self.refuses = refuses

    def _take(self, call: tuple[str, str, Any]) -> None:
        if self.refuses:
            raise Forbidden(403, "Forbidden", "not yours")
        self.calls.append(call)

    async def merge_patch(self, resource: Any, name: str, patch: Any, **where: str) -> None:
        self._take((f"{resource.plural}/{where['subresource']}", name, patch))

    async def delete(self, resource: Any, name: str, **where: str) -> None:
        self._take((f"delete {resource.plural}", name, where["namespace"]))


def a_replay(url: str, seconds: float) -> Replay:
    trace = Trace("t", "f", (TraceRequest(0.0, 4, 1), TraceRequest(seconds, 4, 1)), seconds)
    return Replay(trace, Client(parse_target(url)), ReplaySettings("m", speed=10, time_scale=10))


def a_pod(pool: str) -> dict[str, Any]:
    return {"metadata": {"labels": {"trimtab.dev/pool": pool}}, "spec": {}}


async def acted(server: OpenAIServer, api: Api) -> list[str]:
    seen = Seen(pods={"summarize-a": a_pod("summarize"), "chat-b": a_pod("chat"), "chat-a": a_pod("chat")})
    running, narration = a_replay(server.url, 10.0), list[str]()
    async with asyncio.TaskGroup() as group:
        group.create_task(running.run())
        group.create_task(command._act(running, api, seen, narration))  # type: ignore[arg-type]
    return narration


async def test_pool_is_scaled_then_an_engine_of_it_is_deleted(server: OpenAIServer) -> None:
    api = Api()
    narration = await acted(server, api)
    assert api.calls == [
        ("servingpools/scale", "chat", {"spec": {"replicas": 3}}),
        ("delete pods", "chat-a", "ai"),
    ]
    assert narration[0] == "at 4 s: kubectl -n ai scale spool chat --replicas=3"
    assert narration[1].startswith("at 7 s: kubectl -n ai delete pod chat-a")


async def test_what_the_api_server_refuses_is_told_and_the_replay_goes_on(server: OpenAIServer) -> None:
    narration = await acted(server, Api(refuses=True))
    assert len(narration) == 2
    assert all("the API server refused" in line for line in narration)
    assert len(server.received) == 2


async def test_gateway_that_does_not_know_the_pool_yet_is_asked_again() -> None:
    class Slow(OpenAIServer):
        async def _answer(self, script: Script, request: Any, writer: Any) -> bool:
            names = b'"m"' if len(self.received) > 2 else b'"other"'
            listing = Script(body=b'{"data": [{"id": ' + names + b"}]}")
            return await super()._answer(listing, request, writer)

    async with Slow() as slow:
        client = Client(parse_target(slow.url))
        assert await command._served(client, "m") == "m"
        client.close()
    assert len(slow.received) == 3


async def test_gateway_that_never_knows_the_pool_is_given_up(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_GATEWAY_SECONDS", 0.1)
    client = Client(parse_target(server.url))
    with pytest.raises(Problem, match="does not offer llama"):
        await command._served(client, "llama")
    client.close()


class TestInterruption:
    @pytest.fixture
    def removed(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        names: list[str] = []
        monkeypatch.setattr(act, "remove", lambda cluster, _folder: names.append(cluster.name))
        return names

    @pytest.mark.parametrize("stop", [KeyboardInterrupt, asyncio.CancelledError])
    def test_everything_is_removed(self, stop: type[BaseException], removed: list[str], tmp_path: Path) -> None:
        cluster = LocalCluster("some", home=tmp_path)
        with (
            pytest.raises(click.Abort),
            command._removed_when_interrupted(cluster, tmp_path, Console(quiet=True)),
        ):
            raise stop
        assert removed == ["some"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def test_sigterm_interrupts_too_and_only_inside(self, removed: list[str], tmp_path: Path) -> None:
        before = signal.getsignal(signal.SIGTERM)
        cluster = LocalCluster("some", home=tmp_path)
        with (
            pytest.raises(click.Abort),
            command._removed_when_interrupted(cluster, tmp_path, Console(quiet=True)),
        ):
            signal.raise_signal(signal.SIGTERM)
        assert removed == ["some"]
        assert signal.getsignal(signal.SIGTERM) is before

    def test_after_an_error_the_cluster_stays_to_be_looked_at(self, removed: list[str], tmp_path: Path) -> None:
        cluster = LocalCluster("some", home=tmp_path)
        with (
            pytest.raises(Problem),
            command._removed_when_interrupted(cluster, tmp_path, Console(quiet=True)),
        ):
            raise Problem("no disk")
        assert removed == []


def test_without_a_checkout_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> act.Checkout:
        raise Problem("the demo needs a checkout")

    monkeypatch.setattr(act, "find_checkout", missing)
    result = CliRunner().invoke(command.demo, ["--name", "never"])
    assert isinstance(result.exception, Problem)
    assert not LocalCluster("never").exists


@pytest.mark.parametrize("arguments", [["--trace-seconds", "5"], ["--speed", "0"], ["--trace-seconds", "99999"]])
def test_what_cannot_be_shown_is_refused(arguments: list[str]) -> None:
    assert CliRunner().invoke(command.demo, arguments).exit_code == 2
