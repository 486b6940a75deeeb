"""The HTTP side, asked with what a real kube-scheduler sent."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

from tests.support.world import TurnedClock, added, domain_object, node_object, pod_object, see_pod
from trimtab.api import keys
from trimtab.api.extender import MAX_BODY_BYTES
from trimtab.kube import Event, EventType
from trimtab.kube.resources import NODES, POWER_DOMAINS
from trimtab_extender.app import create_app
from trimtab_extender.runtime import Runtime, build
from trimtab_extender.settings import Settings
from trimtab_extender.world import WATCHED

DATA = Path(__file__).parents[2] / "data" / "extender"
RECORDED = sorted(DATA.glob("*.json"))


def recorded(name: str, watts: str | None = None) -> dict[str, Any]:
    """A recorded question, of a pod that declares so many watts."""
    body: dict[str, Any] = json.loads((DATA / f"{name}.json").read_bytes())
    if watts is not None:
        body["Pod"]["metadata"]["annotations"] = {keys.WATTS: watts}
    return body


@pytest.fixture
def runtime() -> Runtime:
    """Twelve nodes, of which node-0 to node-3 are in row-0, limited to 1000 W, the next four in row-1, 2000 W."""
    runtime = build(Settings(election=False), TurnedClock())
    take = runtime.world.take
    for row, watts in (("row-0", 1000), ("row-1", 2000)):
        take(POWER_DOMAINS, added(domain_object(row, watts)))
    for index in range(12):
        take(NODES, added(node_object(f"node-{index}", f"row-{index // 4}")))
    for resource in WATCHED:
        take(resource, Event(EventType.SYNCED, {}))
    runtime.duty.leading = True
    return runtime


@pytest.fixture
def client(runtime: Runtime) -> TestClient:
    return TestClient(create_app(runtime))


def count(runtime: Runtime, name: str, **labels: str) -> float:
    return runtime.metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_every_recorded_question_gets_an_answer_about_its_nodes(path: Path, client: TestClient) -> None:
    verb = path.stem.split("-")[0]
    names = json.loads(path.read_bytes())["NodeNames"]
    answer = client.post(f"/v1/{verb}", content=path.read_bytes())
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    if verb == "filter":
        assert answer.json()["NodeNames"] == names
        assert answer.json()["Error"] == ""
    else:
        assert [one["Host"] for one in answer.json()] == names
        assert all(type(one["Score"]) is int and 0 <= one["Score"] <= 10 for one in answer.json())


def test_full_domains_are_refused_with_words_and_the_rest_is_echoed_in_order(client: TestClient) -> None:
    question = recorded("filter-12", "1500")
    answer = client.post("/v1/filter", json=question).json()
    small = {f"node-{index}" for index in range(4)}
    assert answer["NodeNames"] == [name for name in question["NodeNames"] if name not in small]
    assert answer["FailedNodes"] == {}
    text = "node(s) in power domain row-0 whose 1000 W cannot power a pod of 1500 W"
    assert answer["FailedAndUnresolvableNodes"] == dict.fromkeys(small, text)


def test_nodes_of_one_domain_share_one_text_so_that_the_scheduler_can_count_them(
    client: TestClient, runtime: Runtime
) -> None:
    see_pod(runtime.world, pod_object("other", watts="700", node="node-0"))
    see_pod(runtime.world, pod_object("another", watts="1900", node="node-4"))
    texts = client.post("/v1/filter", json=recorded("filter-12", "400")).json()["FailedAndUnresolvableNodes"]
    assert sorted(set(texts.values())) == [
        "node(s) in power domain row-0 with 300 W of 1000 W left for a pod of 400 W",
        "node(s) in power domain row-1 with 100 W of 2000 W left for a pod of 400 W",
    ]
    assert not any("," in text or re.search(r"\d\.\d", text) for text in texts.values())


def test_watts_that_are_held_are_named(client: TestClient) -> None:
    first, second = recorded("filter-12", "800"), recorded("filter-opted-in", "800")
    first["NodeNames"] = ["node-0"]
    client.post("/v1/filter", json=first)
    second["NodeNames"] = ["node-0"]
    texts = client.post("/v1/filter", json=second).json()["FailedAndUnresolvableNodes"]
    assert texts["node-0"].endswith("(800 W held for pods that are being bound)")


def test_a_nominated_node_alone_is_checked_like_any_other(client: TestClient) -> None:
    question = recorded("filter-12", "1500")
    question["NodeNames"] = ["node-0"]
    answer = client.post("/v1/filter", json=question).json()
    assert answer["NodeNames"] == []
    assert list(answer["FailedAndUnresolvableNodes"]) == ["node-0"]


def test_the_emptier_domain_scores_higher_and_no_domain_is_neutral(client: TestClient, runtime: Runtime) -> None:
    see_pod(runtime.world, pod_object("other", watts="700", node="node-0"))
    scores = {
        one["Host"]: one["Score"] for one in client.post("/v1/prioritize", json=recorded("prioritize-12", "100")).json()
    }
    assert (scores["node-0"], scores["node-4"], scores["node-8"]) == (2, 10, 5)


def test_before_the_first_snapshot_all_nodes_pass_and_that_is_counted() -> None:
    runtime = build(Settings(election=False), TurnedClock())
    client = TestClient(create_app(runtime))
    question = recorded("filter-12", "999999")
    assert client.post("/v1/filter", json=question).json()["NodeNames"] == question["NodeNames"]
    assert count(runtime, "trimtab_extender_unchecked_total", reason="syncing") == 1
    assert {one["Score"] for one in client.post("/v1/prioritize", json=question).json()} == {5}


def test_a_stale_snapshot_turns_nobody_away(client: TestClient, runtime: Runtime) -> None:
    for _ in range(2):
        runtime.world.confirm(missed=True)
    question = recorded("filter-12", "999999")
    assert client.post("/v1/filter", json=question).json()["NodeNames"] == question["NodeNames"]
    assert count(runtime, "trimtab_extender_unchecked_total", reason="stale") == 1
    assert client.get("/readyz").text == "stale"


def test_nodes_that_were_never_seen_pass_and_that_is_counted(client: TestClient, runtime: Runtime) -> None:
    question = recorded("filter-12", "999999")
    question["NodeNames"] = ["node-0", "brand-new"]
    assert client.post("/v1/filter", json=question).json()["NodeNames"] == ["brand-new"]
    assert count(runtime, "trimtab_extender_unchecked_total", reason="unknown_node") == 1


def test_undeclared_pods_are_named_once_for_each_pool(client: TestClient, runtime: Runtime) -> None:
    with capture_logs() as logs:
        for _ in range(3):
            client.post("/v1/filter", json=recorded("filter-12"))
    assert [line["pool"] for line in logs] == ["default/chat"]
    assert "watts" in logs[0]["fix"]
    assert count(runtime, "trimtab_extender_unchecked_total", reason="undeclared") == 3


def test_full_nodes_instead_of_names_get_an_error_that_the_scheduler_logs(client: TestClient, runtime: Runtime) -> None:
    question = recorded("filter-12") | {"Nodes": {"items": []}, "NodeNames": None}
    answer = client.post("/v1/filter", json=question)
    assert answer.status_code == 200
    assert "nodeCacheCapable: true" in answer.json()["Error"]
    assert client.post("/v1/prioritize", json=question).status_code == 400
    for verb in ("filter", "prioritize"):
        assert count(runtime, "trimtab_extender_bad_requests_total", verb=verb) == 1


@pytest.mark.parametrize("body", [b"", b"not json", b"[]", b"\x00" * 100])
def test_a_body_that_is_no_question_is_said_once_and_counted(body: bytes, client: TestClient, runtime: Runtime) -> None:
    with capture_logs() as logs:
        for _ in range(2):
            assert client.post("/v1/filter", content=body).json()["Error"]
    assert len(logs) == 1
    assert count(runtime, "trimtab_extender_bad_requests_total", verb="filter") == 2


def test_a_body_beyond_all_measure_is_refused(client: TestClient) -> None:
    assert client.post("/v1/filter", content=b" " * (MAX_BODY_BYTES + 1)).status_code == 413


def test_a_defect_is_counted_and_fails_the_call_only(client: TestClient, runtime: Runtime) -> None:
    question = recorded("filter-12")
    question["Pod"]["spec"] = "no spec"
    with capture_logs() as logs:
        assert client.post("/v1/filter", json=question).status_code == 500
    assert logs[0]["event"] == "answer failed"
    assert count(runtime, "trimtab_extender_defects_total", place="filter") == 1
    assert client.post("/v1/filter", json=recorded("filter-12")).status_code == 200


def test_only_posts_are_answered(client: TestClient) -> None:
    assert client.get("/v1/filter").status_code == 405
    assert client.post("/v1/bind").status_code == 404


def test_health(client: TestClient, runtime: Runtime) -> None:
    assert (client.get("/livez").status_code, client.get("/livez").text) == (200, "ok")
    assert (client.get("/readyz").status_code, client.get("/readyz").text) == (200, "ok")
    runtime.duty.draining = True
    assert (client.get("/readyz").status_code, client.get("/readyz").text) == (503, "draining")
    assert client.get("/livez").status_code == 200


def test_people_can_ask_how_the_domains_stand(client: TestClient, runtime: Runtime) -> None:
    see_pod(runtime.world, pod_object("other", watts="700", node="node-0"))
    client.post("/v1/filter", json=recorded("filter-12", "1500"))
    state = client.get("/v1/state").json()
    assert (state["fresh"], state["leading"], state["nodes"], state["held_pods"]) == (True, True, 12, 1)
    assert state["domains"] == [
        {"name": "row-0", "enforced": True, "usable_watts": 1000, "charged_watts": 700, "held_watts": 0},
        {"name": "row-1", "enforced": True, "usable_watts": 2000, "charged_watts": 0, "held_watts": 1500},
    ]


def test_answers_are_timed(client: TestClient, runtime: Runtime) -> None:
    client.post("/v1/filter", json=recorded("filter-12"))
    assert count(runtime, "trimtab_extender_answer_seconds_count", verb="filter") == 1
