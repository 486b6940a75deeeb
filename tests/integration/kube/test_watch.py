"""A store kept by `list_then_watch` stays exact through lost connections and expired versions."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from tests.support.api_server import Handler, api_server
from trimtab.kube import EventType, Forbidden, Kube, list_then_watch
from trimtab.kube.resources import PODS

Script = list[Callable[[web.Request], Any]]


def pod(name: str, version: int, uid: str = "") -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "ai", "uid": uid or name, "resourceVersion": str(version)}}


def listing(version: int, *pods: dict[str, Any]) -> Callable[[web.Request], Any]:
    def answer(request: web.Request) -> web.Response:
        assert "watch" not in request.query, "expected a list, got a watch"
        return web.json_response({"items": list(pods), "metadata": {"resourceVersion": str(version)}})

    return answer


def page(version: int, *pods: dict[str, Any], after: str = "", more: str = "") -> Callable[[web.Request], Any]:
    def answer(request: web.Request) -> web.Response:
        assert request.query.get("continue", "") == after
        return web.json_response({"items": list(pods), "metadata": {"resourceVersion": str(version), "continue": more}})

    return answer


def watching(since: int, *changes: tuple[str, dict[str, Any]], cut: bool = False) -> Callable[[web.Request], Any]:
    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.query.get("watch") == "true", "expected a watch, got a list"
        assert request.query["resourceVersion"] == str(since)
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for kind, obj in changes:
            await response.write(orjson.dumps({"type": kind, "object": obj}) + b"\n")
        if cut and request.transport is not None:
            request.transport.abort()
        return response

    return answer


def scripted(script: Script) -> Handler:
    """Answer each request by the next step, and none when all are done."""
    steps = iter(script)

    async def answer(request: web.Request) -> web.StreamResponse:
        step = next(steps, None)
        if step is None:
            await asyncio.Event().wait()
        result = step(request)  # type: ignore[misc]  # None never gets here
        return await result if asyncio.iscoroutine(result) else result  # type: ignore[no-any-return]

    return answer


async def collect(script: Script, folder: Path, count: int) -> list[tuple[str, str]]:
    """Run the watch against a script of answers and return the first `count` events as (type, name)."""
    events: list[tuple[str, str]] = []
    async with api_server(scripted(script), folder) as config, Kube.connect(config) as kube:
        async for event in list_then_watch(kube, PODS):
            events.append((event.type.value, event.object.get("metadata", {}).get("name", "")))
            if len(events) == count:
                break
    return events


async def test_all_objects_then_synced_then_changes(tmp_path: Path) -> None:
    script: Script = [
        listing(5, pod("a", 1), pod("b", 2)),
        watching(5, ("MODIFIED", pod("a", 6)), ("ADDED", pod("c", 7)), ("DELETED", pod("b", 8))),
    ]
    assert await collect(script, tmp_path, 6) == [
        ("ADDED", "a"),
        ("ADDED", "b"),
        ("SYNCED", ""),
        ("MODIFIED", "a"),
        ("ADDED", "c"),
        ("DELETED", "b"),
    ]


async def test_a_cut_connection_goes_on_from_the_last_bookmark(tmp_path: Path) -> None:
    script: Script = [
        listing(5),
        watching(5, ("ADDED", pod("a", 6)), ("BOOKMARK", pod("", 9))),
        watching(9, ("ADDED", pod("b", 10))),
    ]
    assert await collect(script, tmp_path, 3) == [("SYNCED", ""), ("ADDED", "a"), ("ADDED", "b")]


@pytest.mark.parametrize("as_event", [True, False], ids=["an ERROR event", "a 410 answer"])
async def test_an_expired_version_lists_again_and_reports_what_vanished(tmp_path: Path, *, as_event: bool) -> None:
    def gone(_: web.Request) -> web.Response:
        return web.json_response({"reason": "Expired", "code": 410}, status=410)

    expired = watching(5, ("ERROR", {"code": 410, "reason": "Expired"})) if as_event else gone
    script: Script = [
        listing(5, pod("same", 1), pod("gone", 2), pod("changed", 3), pod("reborn", 4)),
        expired,
        listing(20, pod("same", 1), pod("changed", 9), pod("reborn", 10, "other"), pod("new", 11)),
    ]
    events = await collect(script, tmp_path, 11)
    assert events[4] == ("SYNCED", "")
    assert events[5:] == [
        ("MODIFIED", "changed"),
        ("DELETED", "reborn"),
        ("ADDED", "reborn"),
        ("ADDED", "new"),
        ("DELETED", "gone"),
        ("SYNCED", ""),
    ]


async def test_an_unavailable_server_is_waited_out(tmp_path: Path) -> None:
    def unavailable(_: web.Request) -> web.Response:
        return web.json_response({}, status=503)

    script: Script = [unavailable, listing(5, pod("a", 1))]
    assert await collect(script, tmp_path, 2) == [("ADDED", "a"), ("SYNCED", "")]


async def test_a_missing_permission_is_not_waited_out(tmp_path: Path) -> None:
    def forbidden(_: web.Request) -> web.Response:
        return web.json_response({"reason": "Forbidden", "message": "cannot list pods"}, status=403)

    with pytest.raises(Forbidden, match="cannot list pods"):
        await collect([forbidden], tmp_path, 1)


async def test_a_page_is_reported_before_the_next_is_asked_for(tmp_path: Path) -> None:
    """Or else a list of a large cluster would be in memory as a whole."""
    script: Script = [page(5, pod("a", 1), more="next")]  # then silence
    assert await asyncio.wait_for(collect(script, tmp_path, 1), 5) == [("ADDED", "a")]


async def test_a_list_that_breaks_off_is_begun_anew_and_reports_each_object_once(tmp_path: Path) -> None:
    def expired(_: web.Request) -> web.Response:
        return web.json_response({"reason": "Expired", "code": 410}, status=410)

    script: Script = [
        page(5, pod("a", 1), pod("b", 2), more="next"),
        expired,
        page(9, pod("a", 1), more="next"),
        page(9, pod("c", 3), after="next"),
        watching(9, ("ADDED", pod("d", 10))),
    ]
    assert await collect(script, tmp_path, 6) == [
        ("ADDED", "a"),
        ("ADDED", "b"),
        ("ADDED", "c"),
        ("DELETED", "b"),
        ("SYNCED", ""),
        ("ADDED", "d"),
    ]


@pytest.mark.parametrize(("kept", "expected"), [(True, [["x"], ["x"]]), (False, [None, None])])
async def test_managed_fields_are_kept_unless_nobody_wants_them(
    tmp_path: Path, *, kept: bool, expected: list[Any]
) -> None:
    listed, watched = pod("a", 1), pod("a", 6)
    for obj in (listed, watched):
        obj["metadata"]["managedFields"] = ["x"]
    answer = scripted([listing(5, listed), watching(5, ("MODIFIED", watched))])
    found = []
    async with api_server(answer, tmp_path) as config, Kube.connect(config) as kube:
        async for event in list_then_watch(kube, PODS, managed_fields=kept):
            if event.type is not EventType.SYNCED:
                found.append(event.object["metadata"].get("managedFields"))
            if len(found) == 2:
                break
    assert found == expected


def test_event_types_are_the_wire_names() -> None:
    assert {kind.value for kind in EventType} == {"ADDED", "MODIFIED", "DELETED", "SYNCED"}
