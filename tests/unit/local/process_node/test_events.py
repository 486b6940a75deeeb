import asyncio
from typing import Any

from tests.support.process_node import a_pod
from trimtab.kube import Forbidden, Kube
from trimtab.kube.resources import Resource
from trimtab.local.process_node.events import SAME_SECONDS, Occurrence, Recorder


class _Server(Kube):
    """Takes Events; refuses those whose message says so."""

    def __init__(self) -> None:
        self.taken: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def create(self, resource: Resource, obj: dict[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        if obj["message"] == "refused":
            raise Forbidden(403, "Forbidden", "namespace is terminating")
        self.taken.put_nowait(obj)
        return obj


class _Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


async def written(*messages: str, pause_seconds: float = 0.0) -> list[dict[str, Any]]:
    server, clock = _Server(), _Clock()
    recorder = Recorder(server, "process-0", clock)
    running = asyncio.create_task(recorder.run())
    for message in (*messages, "last"):
        recorder.record(Occurrence(a_pod(), "Warning", "BackOff", message, "spec.containers{main}"))
        clock.now += pause_seconds
    events = []
    while not events or events[-1]["message"] != "last":
        events.append(await server.taken.get())
    running.cancel()
    return events[:-1]


async def test_an_event_names_the_pod_the_container_and_the_node() -> None:
    (event,) = await written("again")

    assert event["involvedObject"]["uid"] == "uid-web"
    assert event["involvedObject"]["fieldPath"] == "spec.containers{main}"
    assert (event["type"], event["reason"], event["message"]) == ("Warning", "BackOff", "again")
    assert event["source"] == {"component": "trimtab-process-node", "host": "process-0"}


async def test_the_same_event_is_not_written_twice_within_two_minutes() -> None:
    assert len(await written("again", "again")) == 1
    assert len(await written("again", "again", pause_seconds=SAME_SECONDS)) == 2


async def test_events_have_names_of_their_own() -> None:
    events = await written("a", "b")

    assert len({event["metadata"]["name"] for event in events}) == 2


async def test_a_refused_event_is_lost_and_the_next_one_is_not() -> None:
    assert [event["message"] for event in await written("refused", "kept")] == ["kept"]


async def test_a_long_message_is_cut_to_what_the_api_takes() -> None:
    (event,) = await written("x" * 5000)

    assert len(event["message"]) == 1024
