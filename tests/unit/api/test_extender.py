import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from trimtab.api import keys
from trimtab.api.extender import WireError, filter_error, filter_result, host_priorities, read_args

ROOT = Path(__file__).parents[3]
DATA = ROOT / "tests" / "data" / "extender"
POD = {"metadata": {"name": "p", "uid": "u"}}


@pytest.mark.parametrize("recorded", sorted(DATA.glob("*.json")), ids=lambda path: path.stem)
def test_everything_that_a_real_scheduler_sent_is_read(recorded: Path) -> None:
    args = read_args(recorded.read_bytes())
    sent = json.loads(recorded.read_bytes())
    assert (args.pod, args.node_names) == (sent["Pod"], sent["NodeNames"])
    assert sent["Nodes"] is None
    assert args.pod["metadata"]["uid"]


def test_a_real_scheduler_posts_json_to_the_verbs_under_the_prefix() -> None:
    head = (DATA / "request.headers").read_text()
    assert head.startswith("POST /v1/filter HTTP/1.1")
    assert "Content-Type: application/json" in head


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "no ExtenderArgs"),
        (b"null", "no ExtenderArgs"),
        (b"{}", "Pod: is missing"),
        ({"Pod": None, "NodeNames": []}, "Pod: is missing"),
        ({"Pod": {"metadata": []}, "NodeNames": []}, "Pod: is missing"),
        ({"Pod": POD}, "NodeNames: is missing or no list"),
        ({"Pod": POD, "Nodes": None, "NodeNames": None}, "NodeNames: is missing or no list"),
        ({"Pod": POD, "NodeNames": "n"}, "NodeNames: is missing or no list"),
        ({"Pod": POD, "NodeNames": ["n", 7]}, "NodeNames: holds something that is no name"),
        ({"Pod": POD, "Nodes": {"items": []}, "NodeNames": None}, "nodeCacheCapable: true"),
    ],
)
def test_a_bad_body_is_refused_with_the_field_and_the_fix(body: Any, problem: str) -> None:
    with pytest.raises(WireError, match=problem):
        read_args(body if isinstance(body, bytes) else json.dumps(body).encode())


def test_no_nodes_at_all_is_a_question_too() -> None:
    assert read_args(json.dumps({"Pod": POD, "NodeNames": []}).encode()).node_names == []


def test_the_keys_of_a_filter_answer_are_those_of_the_go_struct() -> None:
    assert json.loads(filter_result(["a"], {"b": "no"}, {"c": "never"})) == {
        "NodeNames": ["a"],
        "FailedNodes": {"b": "no"},
        "FailedAndUnresolvableNodes": {"c": "never"},
        "Error": "",
    }


def test_an_answer_without_nodes_says_so_with_a_list() -> None:
    """An absent or null `NodeNames` means the same to the scheduler, but not to whoever reads a recording."""
    assert json.loads(filter_result([], {}, {}))["NodeNames"] == []


def test_an_error_is_what_the_scheduler_logs() -> None:
    assert json.loads(filter_error("why")) == {"Error": "why"}


def test_priorities_are_a_bare_list() -> None:
    assert json.loads(host_priorities(["a", "b"], [0, 10])) == [{"Host": "a", "Score": 0}, {"Host": "b", "Score": 10}]


def test_the_shipped_scheduler_configuration_sends_what_the_extender_expects() -> None:
    configuration = yaml.safe_load((ROOT / "manifests" / "scheduler-config.yaml").read_text())
    (extender,) = configuration["extenders"]
    managed = {one["name"]: one["ignoredByScheduler"] for one in extender["managedResources"]}
    assert managed == dict.fromkeys(keys.ACCELERATOR_RESOURCES, False) | {keys.PLACEMENT_RESOURCE: True}
    assert extender["nodeCacheCapable"]
    assert extender["ignorable"]
    assert extender["httpTimeout"] == "200ms"
    assert extender["weight"] > 0


@given(st.lists(st.tuples(st.text(), st.integers(0, 10))))
def test_priorities_are_json_whatever_the_names_are(pairs: list[tuple[str, int]]) -> None:
    names, scores = [name for name, _ in pairs], [score for _, score in pairs]
    assert json.loads(host_priorities(names, scores)) == [{"Host": name, "Score": score} for name, score in pairs]
