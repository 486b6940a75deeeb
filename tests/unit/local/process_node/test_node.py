from typing import Any

from trimtab.api import keys
from trimtab.kube import Kube, NotFound, Unavailable
from trimtab.kube.resources import NODES, Resource
from trimtab.local.process_node.node import NodeFacts, NodeKeeper, node_object, node_status

NOW = 1_800_000_000.0
FACTS = NodeFacts("process-0", "127.20.0.1", 10250, {"cpu": "8"}, {keys.ROW: "row-1"})


class _Server(Kube):
    """Keeps what is written; `node` is the Node that it has."""

    def __init__(self, node: dict[str, Any] | None = None, *, down: bool = False) -> None:
        self.node = node
        self.down = down
        self.created: list[dict[str, Any]] = []
        self.applied: list[tuple[str, str, dict[str, Any]]] = []
        self.patched: list[dict[str, Any]] = []

    async def get(self, resource: Resource, name: str, namespace: str | None = None, subresource: str = "") -> Any:
        if self.node is None:
            raise NotFound(404, "NotFound", "no such node")
        return self.node

    async def create(self, resource: Resource, obj: dict[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        self.created.append(obj)
        return obj | {"metadata": obj["metadata"] | {"uid": "n"}}

    async def apply(
        self,
        resource: Resource,
        obj: dict[str, Any],
        *,
        force: bool = False,
        dry_run: bool = False,
        subresource: str = "",
    ) -> dict[str, Any]:
        if self.down:
            raise Unavailable(0, "Timeout", "no answer")
        self.applied.append((resource.kind, subresource, obj))
        return self.node if resource == NODES and self.node else obj | {"metadata": obj["metadata"] | {"uid": "n"}}

    async def merge_patch(
        self,
        resource: Resource,
        name: str,
        patch: dict[str, Any],
        namespace: str | None = None,
        subresource: str = "",
    ) -> dict[str, Any]:
        self.patched.append(patch)
        assert self.node is not None
        return self.node


def keeper(server: _Server) -> NodeKeeper:
    return NodeKeeper(server, FACTS, lambda: NOW)


def test_the_node_keeps_out_pods_that_do_not_tolerate_it() -> None:
    node = node_object(FACTS)

    assert node["spec"]["taints"] == [{"key": keys.PROCESS_TAINT, "value": "process", "effect": "NoSchedule"}]
    assert node["metadata"]["labels"][keys.NODE_TYPE] == "process"
    assert node["metadata"]["labels"][keys.ROW] == "row-1"
    assert "annotations" not in node["metadata"]


def test_the_status_says_where_logs_are_and_has_no_hostname_that_would_be_preferred() -> None:
    status = node_status(FACTS, NOW, ready=True, since=NOW)

    assert status["addresses"] == [{"type": "InternalIP", "address": "127.20.0.1"}]
    assert status["daemonEndpoints"] == {"kubeletEndpoint": {"Port": 10250}}
    assert status["capacity"] == status["allocatable"] == {"cpu": "8"}


def test_ready_is_false_once_the_node_stops() -> None:
    def ready(status: dict[str, Any]) -> str:
        return next(c["status"] for c in status["conditions"] if c["type"] == "Ready")

    assert ready(node_status(FACTS, NOW, ready=True, since=NOW)) == "True"
    assert ready(node_status(FACTS, NOW, ready=False, since=NOW)) == "False"


async def test_a_new_node_is_created_and_gets_its_lease() -> None:
    server = _Server()
    await keeper(server).register()

    assert [node["metadata"]["name"] for node in server.created] == ["process-0"]
    (lease,) = [obj for kind, _, obj in server.applied if kind == "Lease"]
    assert lease["metadata"]["namespace"] == "kube-node-lease"
    assert lease["metadata"]["ownerReferences"][0]["uid"] == "n"
    assert lease["spec"]["renewTime"] == "2027-01-15T08:00:00.000000Z"


async def test_taints_of_others_stay_when_a_node_is_adopted() -> None:
    cordoned = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
    server = _Server({"metadata": {"name": "process-0", "uid": "n"}, "spec": {"taints": [cordoned]}})
    await keeper(server).register()

    (patch,) = server.patched
    assert [taint["key"] for taint in patch["spec"]["taints"]] == [cordoned["key"], keys.PROCESS_TAINT]
    assert server.created == []


async def test_a_node_with_our_taint_is_not_patched() -> None:
    node = {"metadata": {"name": "process-0", "uid": "n"}, "spec": {"taints": [{"key": keys.PROCESS_TAINT}]}}
    server = _Server(node)
    await keeper(server).register()

    assert server.patched == []


async def test_stopping_without_an_api_server_is_no_error() -> None:
    server = _Server(down=True)
    await keeper(server).stop()

    assert server.applied == []


async def test_stopping_says_that_the_node_is_not_ready() -> None:
    server = _Server()
    await keeper(server).stop()

    ((kind, subresource, obj),) = server.applied
    assert (kind, subresource) == ("Node", "status")
    assert obj["status"]["conditions"][-1]["status"] == "False"
