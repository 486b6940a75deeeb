import io
from typing import Any

import pytest
from rich.console import Console

from tests.support.operators import a_pool
from trimtab.cli import explain, top
from trimtab.cli.objects import find_kind, split
from trimtab.kube.resources import POWER_DOMAINS, SERVING_POOLS
from trimtab.model.problem import Problem


@pytest.mark.parametrize("text", ["spool", "servingpools", "ServingPool", "SPOOL"])
def test_a_kind_is_found_by_any_of_its_names(text: str) -> None:
    assert find_kind(text) == SERVING_POOLS


def test_an_object_is_named_like_for_kubectl() -> None:
    assert split("pdom/row-1") == (POWER_DOMAINS, "row-1")


@pytest.mark.parametrize("text", ["spool", "spool/", "/chat", "pod/chat"])
def test_what_names_nothing_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(Problem) as caught:
        split(text)
    assert "spool" in caught.value.fix


def printed(renderable: Any) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def a_full_pool() -> Any:
    pool = a_pool("chat", "ai", mode="Propose")
    pool["metadata"]["generation"] = 2
    change = {
        "id": "abc",
        "knob": "replicas",
        "from": "1",
        "to": "3",
        "policy": "Fixed",
        "reason": "ReplicasFromSpec",
        "message": "spec.replicas asks for 3",
        "time": "2026-01-01T00:00:00Z",
        "predictedEffect": "3 ready replicas",
    }
    pool["status"] = {
        "observedGeneration": 2,
        "readyReplicas": 1,
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "AllReplicasReady",
                "message": "1 of 1 replicas are ready",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
        ],
        "proposals": [change | {"expires": "2026-01-01T01:00:00Z"}],
        "recentDecisions": [change | {"outcome": "Proposed"}],
        "heldKnobs": [
            {"target": "Deployment/ai/web", "knob": "replicas", "before": "1", "since": "2026-01-01T00:00:00Z"}
        ],
    }
    return pool


def test_an_explanation_has_what_was_decided_why_and_what_to_do() -> None:
    event = {"type": "Normal", "reason": "ReplicasProposed", "message": "see there", "lastTimestamp": None}
    text = printed(explain.render(a_full_pool(), [event]))
    for part in (
        "ServingPool chat in ai, mode Propose",
        "AllReplicasReady",
        "trimtab approve servingpool/chat -n ai ID",
        "ReplicasFromSpec: spec.replicas asks for 3",
        "1 -> 3",
        "Proposed",
        "3 ready replicas",
        "nothing yet",
        "Deployment/ai/web",
        "see there",
    ):
        assert part in text


def test_an_object_that_nobody_looked_at_says_so() -> None:
    pool = a_pool("chat", "ai")
    pool["metadata"]["generation"] = 1
    text = printed(explain.render(pool, []))
    assert "the operator has not looked at the newest spec yet" in text
    assert "is the operator running?" in text


def test_top_shows_no_number_where_nothing_measures() -> None:
    pool = a_full_pool()
    silent = top.render([pool], {}).splitlines()[1].split()
    assert silent == ["ai", "chat", "True", "1", "1", "-", "-", "-", "-"]
    numbers = {"waiting": {"ai/chat": 4.0}, "ttft_p99": {"ai/chat": 0.25}, "requests": {"ai/other": 9.0}}
    measured = top.render([pool], numbers).splitlines()[1].split()
    assert measured == ["ai", "chat", "True", "1", "1", "4", "-", "-", "0.25", "s"]
