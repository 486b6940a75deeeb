"""What the chart grants against what the processes did, by the audit log: run after everything else."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.support.accounts import SUFFIX
from tests.support.helm import CHART, LOCAL, NAMESPACE, helm
from trimtab.local.cluster import LocalCluster

PROCESSES = ("trimtab-operator", "trimtab-extender", "trimtab-gateway", "trimtab-release")
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:"

# Grants for what happens in no test, or not in each run, with the reason why they stay.
UNSEEN: dict[tuple[str, str, str, str], str] = {
    ("trimtab-extender", "get", "", "pods"): "asked only when a watch has been silent about a pod that should be bound",
}


class Call(NamedTuple):
    """One kind of call: who, which verb, on what; `name` is empty where any name may be meant."""

    process: str
    verb: str
    group: str
    resource: str
    name: str = ""

    def __str__(self) -> str:
        kind = f"{self.resource}.{self.group}" if self.group else self.resource
        return f"{self.process}: {self.verb} {kind} {self.name}".rstrip()


def _events(log: Path) -> Iterator[dict[str, Any]]:
    """Yield every request in order, the rotated half of the log included; cheap for those that cannot matter."""
    for path in (*sorted(log.parent.glob("audit-*.log")), log):
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                if ACCOUNT in line or '"resource":"rolebindings"' in line or '"resource":"clusterrolebindings"' in line:
                    yield json.loads(line)


def _is_ours(event: dict[str, Any]) -> bool:
    return str(event["user"]["username"]).startswith(ACCOUNT) and _process(event) in PROCESSES


def _process(event: dict[str, Any]) -> str:
    return str(event["user"]["username"]).removeprefix(ACCOUNT).removesuffix(SUFFIX)


def _calls(event: dict[str, Any]) -> Iterator[Call]:
    """Yield the grants that a request needed."""
    about = event.get("objectRef") or {}
    if "resource" not in about:
        return  # discovery, which everybody may do
    resource = "/".join(filter(None, (about["resource"], about.get("subresource"))))
    call = Call(_process(event), event["verb"], about.get("apiGroup", ""), resource, about.get("name", ""))
    yield call
    if event["verb"] == "patch" and event.get("responseStatus", {}).get("code") == 201:
        yield call._replace(verb="create")  # server-side apply of something new needs both


def _granted(documents: list[dict[str, Any]]) -> Iterator[Call]:
    for role in documents:
        if role["kind"] in {"Role", "ClusterRole"} and role["metadata"]["name"] in PROCESSES:
            for rule in role["rules"]:
                for group in rule["apiGroups"]:
                    for resource in rule["resources"]:
                        for verb in rule["verbs"]:
                            for name in rule.get("resourceNames", [""]):
                                yield Call(role["metadata"]["name"], verb, group, resource, name)


def _as_granted(call: Call, granted: set[Call]) -> Call:
    """Forget the name in a call that is granted for every name."""
    any_name = call._replace(name="")
    return any_name if any_name in granted else call


@pytest.mark.parametrize(
    ("verb", "name", "covered"),
    [("patch", "mine", True), ("patch", "of-others", False), ("create", "of-others", True), ("get", "mine", False)],
)
def test_a_grant_by_name_covers_that_name_only(verb: str, name: str, covered: bool) -> None:
    rules = [
        {"apiGroups": ["g"], "resources": ["leases"], "verbs": ["create"]},
        {"apiGroups": ["g"], "resources": ["leases"], "verbs": ["patch"], "resourceNames": ["mine"]},
    ]
    rights = set(_granted([{"kind": "Role", "metadata": {"name": PROCESSES[0]}, "rules": rules}]))
    about = {"resource": "leases", "apiGroup": "g", "name": name}
    event = {"user": {"username": ACCOUNT + PROCESSES[0]}, "verb": verb, "objectRef": about}
    assert ({_as_granted(call, rights) for call in _calls(event)} <= rights) == covered


@pytest.fixture
async def granted(cluster: LocalCluster) -> set[Call]:
    arguments = ("template", "trimtab", str(CHART), "--namespace", NAMESPACE, "--values", str(LOCAL))
    rendered = await helm(cluster.program("helm"), *arguments)
    return set(_granted([one for one in yaml.safe_load_all(rendered) if one]))


def _whole_suite(request: pytest.FixtureRequest) -> bool:
    """Whether every test of this folder was asked for, so that what is unused now is unused."""
    here = Path(__file__).parent
    wanted = {path.name for path in here.glob("test_*.py")}
    return wanted <= {item.path.name for item in request.session.items if item.path.parent == here}


def _refused(log: Path) -> Iterator[Call]:
    """Yield what was refused; not after the chart was uninstalled, which takes the rights before the last process."""
    bound: dict[str, bool] = {}
    for event in _events(log):
        about = event.get("objectRef") or {}
        if about.get("resource") in {"rolebindings", "clusterrolebindings"} and event["verb"] in {"create", "delete"}:
            bound[about.get("name", "")] = event["verb"] == "create"
        elif _is_forbidden(event) and bound.get(_process(event), True):
            yield from _calls(event)


def _is_forbidden(event: dict[str, Any]) -> bool:
    return _is_ours(event) and event.get("annotations", {}).get("authorization.k8s.io/decision") == "forbid"


def test_no_call_was_refused(cluster: LocalCluster) -> None:
    assert Counter(map(str, _refused(cluster.audit_log))) == {}


def test_every_grant_is_used_and_every_use_is_granted(
    cluster: LocalCluster, granted: set[Call], request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = {call for event in _events(cluster.audit_log) if _is_ours(event) for call in _calls(event)}
    used = {_as_granted(call, granted) for call in calls}
    unused = sorted(granted - used)
    with capsys.disabled():
        print(f"\n{len(granted)} grants, {len(used)} used; unused:", *map(str, unused), sep="\n  ")
    assert sorted(map(str, used - granted)) == []
    if _whole_suite(request):
        assert sorted(map(str, set(unused) - {Call(*one) for one in UNSEEN})) == []
