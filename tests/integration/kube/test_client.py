"""The adapter against a scripted server: what is sent, and what becomes of each kind of trouble."""

import asyncio
from pathlib import Path

import pytest
import yaml
from aiohttp import web

from tests.support.api_server import api_server, write_kubeconfig
from trimtab.kube import Invalid, Kube, NotFound, Unavailable
from trimtab.kube.resources import DEPLOYMENTS, PODS


async def test_apply_is_strict_forced_only_when_asked_and_names_its_manager(tmp_path: Path) -> None:
    seen: list[web.Request] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request)
        return web.json_response(await request.json())

    async with api_server(answer, tmp_path) as config, Kube.connect(config, field_manager="trimtab-test") as kube:
        applied = await kube.apply(DEPLOYMENTS, {"metadata": {"name": "chat", "namespace": "ai"}}, dry_run=True)
    (request,) = seen
    assert applied["kind"] == "Deployment"
    assert request.method == "PATCH"
    assert request.path == "/apis/apps/v1/namespaces/ai/deployments/chat"
    assert dict(request.query) == {
        "fieldManager": "trimtab-test",
        "force": "false",
        "fieldValidation": "Strict",
        "dryRun": "All",
    }
    assert request.headers["Content-Type"] == "application/apply-patch+yaml"
    assert request.headers["Authorization"] == "Bearer first"


async def test_pages_of_a_list_are_joined_and_items_say_what_they_are(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.Response:
        last = request.query.get("continue") == "more"
        item = {"metadata": {"name": "b" if last else "a"}}
        metadata = {"resourceVersion": "9"} | ({} if last else {"continue": "more"})
        return web.json_response({"items": [item], "metadata": metadata})

    async with api_server(answer, tmp_path) as config, Kube.connect(config) as kube:
        listing = await kube.list(PODS, label_selector="a=b")
    assert [item["metadata"]["name"] for item in listing.items] == ["a", "b"]
    assert {item["kind"] for item in listing.items} == {"Pod"}
    assert listing.resource_version == "9"


@pytest.mark.parametrize("body", ["<html>gateway</html>", "[]", ""])
async def test_an_answer_that_is_no_object_is_as_good_as_none(tmp_path: Path, body: str) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=body)

    async with api_server(answer, tmp_path) as config, Kube.connect(config) as kube:
        with pytest.raises(Unavailable, match="GET /version: the answer is no JSON object"):
            await kube.request("GET", "/version")


async def test_a_token_that_was_renewed_on_disk_is_read_again(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.Response:
        if request.headers["Authorization"] != "Bearer second":
            write_kubeconfig(tmp_path / "kubeconfig", f"http://{request.host}", "second")
            return web.json_response({"reason": "Unauthorized"}, status=401)
        return web.json_response({"metadata": {"name": "x"}})

    async with api_server(answer, tmp_path) as config, Kube.connect(config) as kube:
        assert (await kube.get(PODS, "x", "ai"))["metadata"]["name"] == "x"


async def test_deleting_what_is_gone_is_no_error_but_reading_it_is(tmp_path: Path) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"reason": "NotFound", "message": 'pods "x" not found'}, status=404)

    async with api_server(answer, tmp_path) as config, Kube.connect(config) as kube:
        await kube.delete(PODS, "x", "ai")
        with pytest.raises(NotFound, match='pods "x" not found'):
            await kube.get(PODS, "x", "ai")


async def test_a_failed_test_operation_is_invalid(tmp_path: Path) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"reason": "Invalid", "message": "the server rejected our request"}, status=422)

    async with api_server(answer, tmp_path) as config, Kube.connect(config) as kube:
        with pytest.raises(Invalid):
            await kube.json_patch(PODS, "x", [{"op": "test", "path": "/metadata/resourceVersion", "value": "1"}], "ai")


async def test_a_server_that_does_not_answer_in_time_is_unavailable(tmp_path: Path) -> None:
    async def answer(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async with api_server(answer, tmp_path) as config, Kube.connect(config, timeout_seconds=0.1) as kube:
        with pytest.raises(Unavailable) as caught:
            await kube.get(PODS, "x", "ai")
    assert caught.value.reason == "Timeout"


async def test_no_server_at_all_is_unavailable(tmp_path: Path) -> None:
    config = write_kubeconfig(tmp_path / "kubeconfig", "http://127.0.0.1:1", "t")
    async with Kube.connect(config) as kube:
        with pytest.raises(Unavailable, match="did not answer"):
            await kube.get(PODS, "x", "ai")


async def test_a_missing_kubeconfig_says_what_was_tried(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"tried .*nowhere"):
        async with Kube.connect(tmp_path / "nowhere"):
            pytest.fail("connected to nothing")


async def test_the_environments_proxy_is_used_unless_it_is_excepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(str(request.url))
        return web.json_response({"metadata": {"name": "x"}})

    async with api_server(answer, tmp_path) as config:
        proxy = yaml.safe_load(config.read_text())["clusters"][0]["cluster"]["server"]
        elsewhere = write_kubeconfig(tmp_path / "elsewhere", "http://cluster.invalid:80", "t")
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        for path in (elsewhere, config):
            async with Kube.connect(path) as kube:
                await kube.get(PODS, "x", "ai")
    assert asked[0].startswith("http://cluster.invalid/")
    assert asked[1].startswith(proxy)


async def test_a_netrc_file_does_not_get_in_the_way_of_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else")
    monkeypatch.setenv("NETRC", str(netrc))
    seen: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers["Authorization"])
        return web.json_response({"metadata": {"name": "x"}})

    async with api_server(answer, tmp_path) as config, Kube.connect(config) as kube:
        await kube.get(PODS, "x", "ai")
    assert seen == ["Bearer first"]
