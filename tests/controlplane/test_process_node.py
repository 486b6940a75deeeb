"""Pods that are local processes, on a real control plane."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.kubectl import kubectl
from tests.support.process_node_run import ProcessNode, is_ready, main_status
from tests.support.until import until
from trimtab.api import keys
from trimtab.kube import Kube, NotFound
from trimtab.kube.resources import CONFIG_MAPS, EVENTS, NODES, PODS, SECRETS, SERVICE_ACCOUNTS, SERVICES, Resource

ROLES = Resource("rbac.authorization.k8s.io", "v1", "roles", "Role")
ROLE_BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")

SERVE = "exec python -m http.server 8000 --bind $POD_IP --directory"


@pytest.fixture(scope="module")
def node(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessNode]:
    """A process node that the tests of this file share."""
    found = ProcessNode("process-shared", cluster.kubeconfig, tmp_path_factory.mktemp("node") / "state")
    found.start()
    yield found
    try:
        assert found.end() == 0
        assert found.children() == []
    finally:
        asyncio.run(_forget(cluster, found.name))


async def _forget(cluster: Any, name: str) -> None:
    async with Kube.connect(cluster.kubeconfig) as kube:
        await kube.delete(NODES, name)


@pytest.fixture
async def own_node(cluster: Any, kube: Kube, tmp_path: Path) -> AsyncIterator[ProcessNode]:
    """A process node of one test alone, to be killed and filled."""
    found = ProcessNode("process-own", cluster.kubeconfig, tmp_path / "state")
    found.start()
    yield found
    found.end()
    assert found.children() == []
    await kube.delete(NODES, found.name)


@pytest.fixture
async def shop(kube: Kube, namespace: str) -> str:
    """A namespace in which pods can be created at once."""

    async def has_account() -> bool:
        try:
            await kube.get(SERVICE_ACCOUNTS, "default", namespace)
            await kube.get(CONFIG_MAPS, "kube-root-ca.crt", namespace)
        except NotFound:
            return False
        return True

    await until(has_account)
    return namespace


async def get_text(url: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        response.raise_for_status()
        return await response.text()


async def events(kube: Kube, namespace: str, reason: str, *, at_least: int = 1) -> list[dict[str, Any]] | None:
    listing = await kube.list(EVENTS, namespace, field_selector=f"reason={reason}")
    return listing.items if len(listing.items) >= at_least else None


async def test_a_pod_serves_at_its_own_address_and_kubectl_shows_its_log(
    node: ProcessNode, cluster: Any, kube: Kube, shop: str
) -> None:
    await kube.create(CONFIG_MAPS, {"metadata": {"namespace": shop, "name": "page"}, "data": {"index.html": "hello"}})
    serving = {
        "ports": [{"name": "http", "containerPort": 8000}],
        "readinessProbe": {"httpGet": {"port": "http", "path": "/index.html"}, "periodSeconds": 1},
        "volumeMounts": [{"name": "page", "mountPath": "/srv/page"}],
    }
    volumes = [{"name": "page", "configMap": {"name": "page"}}]
    pods = [
        node.pod(shop, name, script=f"echo serving; {SERVE} /srv/page", container=serving, volumes=volumes)
        for name in ("one", "two")
    ]
    for pod in pods:
        await kube.create(PODS, pod)

    found = [await node.wait_for(kube, shop, name, is_ready) for name in ("one", "two")]

    addresses = [pod["status"]["podIP"] for pod in found]
    assert len(set(addresses)) == 2
    assert [await get_text(f"http://{address}:8000/index.html") for address in addresses] == ["hello", "hello"]
    assert found[0]["status"]["observedGeneration"] == found[0]["metadata"]["generation"]
    log = await kubectl(cluster, "logs", "-n", shop, "one", "--tail=100")
    assert log.startswith("serving\n")
    assert '"GET /index.html' in log
    assert (await kubectl(cluster, "logs", "-n", shop, "one", "--limit-bytes=3")) == "ser"


async def test_a_followed_log_ends_with_its_container(node: ProcessNode, cluster: Any, kube: Kube, shop: str) -> None:
    script = "echo one; while [ ! -e $TRIMTAB_MOUNT_WORK/go ]; do sleep 0.05; done; echo two"
    work: dict[str, Any] = {
        "container": {"volumeMounts": [{"name": "work", "mountPath": "/work"}]},
        "volumes": [{"name": "work", "emptyDir": {}}],
    }
    await kube.create(PODS, node.pod(shop, script=script, restartPolicy="Never", **work))
    pod = await node.wait_for(kube, shop, "web", is_ready)
    following = asyncio.create_task(kubectl(cluster, "logs", "-f", "-n", shop, "web"))
    (node.state_dir / "pods" / pod["metadata"]["uid"] / "volumes/work/go").touch()

    assert await asyncio.wait_for(following, 20) == "one\ntwo\n"
    ended = await node.wait_for(kube, shop, "web", lambda pod: pod["status"]["phase"] == "Succeeded")
    assert main_status(ended)["state"]["terminated"]["exitCode"] == 0


async def test_a_process_acts_as_its_own_service_account(node: ProcessNode, kube: Kube, shop: str) -> None:
    await kube.create(SERVICE_ACCOUNTS, {"metadata": {"namespace": shop, "name": "robot"}})
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]
    await kube.create(ROLES, {"metadata": {"namespace": shop, "name": "reader"}, "rules": rules})
    binding = {
        "metadata": {"namespace": shop, "name": "reader"},
        "subjects": [{"kind": "ServiceAccount", "namespace": shop, "name": "robot"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
    }
    await kube.create(ROLE_BINDINGS, binding)
    program = f"""
import asyncio
from trimtab.kube import Kube, Forbidden
from trimtab.kube.resources import CONFIG_MAPS, SECRETS
async def main():
    async with Kube.connect() as kube:
        found = await kube.get(CONFIG_MAPS, "kube-root-ca.crt", "{shop}")
        print("may read", found["metadata"]["name"])
        try:
            await kube.list(SECRETS, "{shop}")
        except Forbidden as error:
            print("may not:", error)
asyncio.run(main())
"""
    command = {"command": ["python", "-c", program]}
    await kube.create(PODS, node.pod(shop, container=command, serviceAccountName="robot", restartPolicy="Never"))
    await node.wait_for(kube, shop, "web", lambda pod: pod["status"]["phase"] in {"Succeeded", "Failed"})

    log = await kube.text(f"/api/v1/namespaces/{shop}/pods/web/log")

    assert "may read kube-root-ca.crt" in log
    assert f'may not: secrets is forbidden: User "system:serviceaccount:{shop}:robot" cannot list' in log


async def test_a_deleted_pod_has_its_grace_period_and_then_is_gone(node: ProcessNode, kube: Kube, shop: str) -> None:
    polite = "trap 'echo bye >&2; exit 0' TERM; echo up; while true; do sleep 0.05; done"
    stubborn = "trap '' TERM; echo up; while true; do sleep 0.05; done"
    uids = []
    for name, script in (("polite", polite), ("stubborn", stubborn)):
        await kube.create(PODS, node.pod(shop, name, script=script))
        uids.append((await node.wait_for(kube, shop, name, is_ready))["metadata"]["uid"])
    loop = asyncio.get_running_loop()
    took = {}
    for name in ("polite", "stubborn"):
        started = loop.time()
        await kube.delete(PODS, name, shop)
        await until(lambda name=name: _gone(kube, shop, name))  # type: ignore[misc]
        took[name] = loop.time() - started

    assert took["polite"] < 1.0 <= took["stubborn"]
    assert [node.children(uid) for uid in uids] == [[], []]
    assert not any((node.state_dir / "pods" / uid).exists() for uid in uids)


async def _gone(kube: Kube, namespace: str, name: str) -> bool:
    try:
        await kube.get(PODS, name, namespace)
    except NotFound:
        return True
    return False


async def test_a_forced_deletion_leaves_no_process(node: ProcessNode, kube: Kube, shop: str) -> None:
    await kube.create(PODS, node.pod(shop, script="trap '' TERM; while true; do sleep 0.05; done"))
    uid = (await node.wait_for(kube, shop, "web", is_ready))["metadata"]["uid"]
    assert node.children(uid)

    await kube.delete(PODS, "web", shop, grace_seconds=0)

    await until(lambda: _true(not node.children(uid)))


async def _true(value: bool) -> bool:
    return value


async def test_a_crashing_container_backs_off_and_its_previous_log_is_kept(
    node: ProcessNode, cluster: Any, kube: Kube, shop: str
) -> None:
    crash = {"terminationMessagePolicy": "FallbackToLogsOnError"}
    await kube.create(PODS, node.pod(shop, script="echo failing; exit 3", container=crash))

    def backs_off(pod: dict[str, Any]) -> bool:
        waiting = main_status(pod).get("state", {}).get("waiting", {})
        return waiting.get("reason") == "CrashLoopBackOff" and main_status(pod)["restartCount"] >= 2

    pod = await node.wait_for(kube, shop, "web", backs_off)

    ended = main_status(pod)["lastState"]["terminated"]
    assert (ended["exitCode"], ended["reason"], ended["message"]) == (3, "Error", "failing\n")
    assert not is_ready(pod)
    assert await kubectl(cluster, "logs", "-p", "-n", shop, "web") == "failing\n"
    await until(lambda: events(kube, shop, "BackOff"))


async def test_a_failed_liveness_probe_restarts_the_container(node: ProcessNode, kube: Kube, shop: str) -> None:
    probe = {"exec": {"command": ["sh", "-c", "exit 1"]}, "periodSeconds": 1, "failureThreshold": 1}
    await kube.create(PODS, node.pod(shop, container={"livenessProbe": probe}))

    pod = await node.wait_for(kube, shop, "web", lambda pod: main_status(pod).get("restartCount", 0) >= 1)

    ended = main_status(pod)["lastState"]["terminated"]
    assert (ended["exitCode"], ended["signal"]) == (143, 15)
    (event,) = await until(lambda: events(kube, shop, "Unhealthy"))
    assert event["message"].startswith("Liveness probe failed: exit code 1")


async def test_a_startup_probe_holds_the_others_back(node: ProcessNode, kube: Kube, shop: str) -> None:
    started = {
        "exec": {"command": ["sh", "-c", "test -e $TRIMTAB_MOUNT_WORK/started"]},
        "periodSeconds": 1,
        "failureThreshold": 60,
    }
    live = {
        "exec": {"command": ["sh", "-c", "test -e $TRIMTAB_MOUNT_WORK/started"]},
        "periodSeconds": 1,
        "failureThreshold": 1,
    }
    container = {
        "startupProbe": started,
        "livenessProbe": live,
        "volumeMounts": [{"name": "work", "mountPath": "/work"}],
    }
    volumes = [{"name": "work", "emptyDir": {}}]
    await kube.create(PODS, node.pod(shop, container=container, volumes=volumes))
    pod = await node.wait_for(kube, shop, "web", lambda pod: "running" in main_status(pod).get("state", {}))
    assert main_status(pod)["started"] is False

    (node.state_dir / "pods" / pod["metadata"]["uid"] / "volumes/work/started").touch()

    pod = await node.wait_for(kube, shop, "web", is_ready)
    assert (main_status(pod)["started"], main_status(pod)["restartCount"]) == (True, 0)


async def test_services_lead_to_ready_pods_only(node: ProcessNode, kube: Kube, shop: str) -> None:
    ready = {"exec": {"command": ["sh", "-c", "test -e $TRIMTAB_MOUNT_PAGE/ready"]}, "periodSeconds": 1}
    container = {
        "ports": [{"name": "http", "containerPort": 8000}],
        "readinessProbe": ready,
        "volumeMounts": [{"name": "page", "mountPath": "/page"}],
    }
    volumes = [{"name": "page", "emptyDir": {}}]
    port = {"name": "http", "port": 80, "targetPort": "http"}
    await kube.create(
        SERVICES,
        {"metadata": {"namespace": shop, "name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [port]}},
    )
    await kube.create(PODS, node.pod(shop, script=f"{SERVE} /page", container=container, volumes=volumes))
    pod = await node.wait_for(kube, shop, "web", lambda pod: "running" in main_status(pod).get("state", {}))
    url = "http://'$WEB_SERVICE_HOST:$WEB_SERVICE_PORT_HTTP'/ready"
    ask = f"python -c 'import urllib.request as r; r.urlopen(\"{url}\")' 2>/dev/null"
    client = f"until {ask}; do echo refused; sleep 0.05; done; echo reached"
    await kube.create(PODS, node.pod(shop, "client", script=client, restartPolicy="Never"))
    await until(lambda: _log_has(kube, shop, "client", "refused"))

    (node.state_dir / "pods" / pod["metadata"]["uid"] / "volumes/page/ready").touch()

    await node.wait_for(kube, shop, "client", lambda pod: pod["status"]["phase"] == "Succeeded")
    assert await _log_has(kube, shop, "client", "reached")


async def _log_has(kube: Kube, namespace: str, name: str, text: str) -> bool:
    pod = await kube.get(PODS, name, namespace)
    if not main_status(pod).get("containerID"):
        return False
    return text in await kube.text(f"/api/v1/namespaces/{namespace}/pods/{name}/log")


async def test_config_maps_and_secrets_reach_the_process(node: ProcessNode, kube: Kube, shop: str) -> None:
    await kube.create(CONFIG_MAPS, {"metadata": {"namespace": shop, "name": "c"}, "data": {"k": "from a map"}})
    await kube.create(SECRETS, {"metadata": {"namespace": shop, "name": "s"}, "stringData": {"k": "hidden"}})
    container = {
        "command": ["sh", "-c", 'echo $A $B; cat /etc/c/k; cat "$FILE"; echo; echo $(POD_NAME) $0', "$(B)"],
        "env": [
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
            {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "FILE", "value": "/etc/s/k"},
        ],
        "volumeMounts": [{"name": "c", "mountPath": "/etc/c"}, {"name": "s", "mountPath": "/etc/s"}],
    }
    volumes = [{"name": "c", "configMap": {"name": "c"}}, {"name": "s", "secret": {"secretName": "s"}}]
    await kube.create(PODS, node.pod(shop, container=container, volumes=volumes, restartPolicy="Never"))
    await node.wait_for(kube, shop, "web", lambda pod: pod["status"]["phase"] == "Succeeded")

    log = await kube.text(f"/api/v1/namespaces/{shop}/pods/web/log")

    assert log == "from a map hidden\nfrom a maphidden\nweb hidden\n"


async def test_a_pod_waits_for_a_volume_that_is_not_there_yet(node: ProcessNode, kube: Kube, shop: str) -> None:
    volumes = [{"name": "c", "configMap": {"name": "late"}}]
    await kube.create(PODS, node.pod(shop, volumes=volumes))
    (event,) = await until(lambda: events(kube, shop, "FailedMount"))
    assert event["message"] == "volume 'c': ConfigMap 'late' not found"

    await kube.create(CONFIG_MAPS, {"metadata": {"namespace": shop, "name": "late"}})

    await node.wait_for(kube, shop, "web", is_ready)


async def test_a_foreign_command_is_refused_with_an_event(node: ProcessNode, kube: Kube, shop: str) -> None:
    await kube.create(PODS, node.pod(shop, container={"command": ["nginx"]}))
    unlabelled = node.pod(shop, "unlabelled")
    del unlabelled["metadata"]["labels"][keys.RUN_AS]
    await kube.create(PODS, unlabelled)

    def refused(pod: dict[str, Any]) -> bool:
        return bool(main_status(pod).get("state", {}).get("waiting", {}).get("reason") == "CommandNotAllowed")

    foreign = await node.wait_for(kube, shop, "web", refused)
    await node.wait_for(kube, shop, "unlabelled", refused)

    assert foreign["status"]["phase"] == "Pending"
    assert "does not run 'nginx'" in main_status(foreign)["state"]["waiting"]["message"]
    found = await until(lambda: events(kube, shop, "CommandNotAllowed", at_least=2))
    assert any(f"{keys.RUN_AS}=process" in event["message"] for event in found)
    assert node.children(foreign["metadata"]["uid"]) == []


async def test_fields_that_cannot_be_honored_are_named_once(node: ProcessNode, kube: Kube, shop: str) -> None:
    secured = {"securityContext": {"runAsNonRoot": True}, "imagePullPolicy": "IfNotPresent"}
    await kube.create(PODS, node.pod(shop, container=secured, hostNetwork=True))
    await node.wait_for(kube, shop, "web", is_ready)

    (event,) = await until(lambda: events(kube, shop, "FieldsNotHonored"))

    fields = "spec.containers[main].securityContext, spec.hostNetwork"
    assert event["message"] == f"A process node cannot honor: {fields}"


async def test_init_containers_run_before_and_sidecars_beside(node: ProcessNode, kube: Kube, shop: str) -> None:
    mount = {"volumeMounts": [{"name": "work", "mountPath": "/work"}], "image": "none"}
    inits = [
        {"name": "first", "command": ["sh", "-c", "echo one > /work/one"]} | mount,
        {"name": "side", "command": ["sh", "-c", "echo two > /work/two; exec sleep 1000"], "restartPolicy": "Always"}
        | mount
        | {"startupProbe": {"exec": {"command": ["sh", "-c", "test -e /work/two"]}, "periodSeconds": 1}},
    ]
    pod = node.pod(
        shop,
        script="cat /work/one /work/two",
        container=mount,
        initContainers=inits,
        volumes=[{"name": "work", "emptyDir": {}}],
        restartPolicy="Never",
    )
    await kube.create(PODS, pod)

    ended = await node.wait_for(kube, shop, "web", lambda pod: pod["status"]["phase"] == "Succeeded")

    assert await kube.text(f"/api/v1/namespaces/{shop}/pods/web/log", query={"container": "main"}) == "one\ntwo\n"
    assert node.children(ended["metadata"]["uid"]) == []


async def test_a_resize_is_taken_over_in_place(node: ProcessNode, kube: Kube, shop: str) -> None:
    resources = {"requests": {"cpu": "100m", "memory": "64Mi"}}
    await kube.create(PODS, node.pod(shop, container={"resources": resources}))
    before = await node.wait_for(kube, shop, "web", is_ready)

    resize = {"spec": {"containers": [{"name": "main", "resources": {"requests": {"cpu": "200m", "memory": "64Mi"}}}]}}
    await kube.request(
        "PATCH",
        f"/api/v1/namespaces/{shop}/pods/web/resize",
        resize,
        content_type="application/strategic-merge-patch+json",
    )

    def resized(pod: dict[str, Any]) -> bool:
        return bool(main_status(pod)["resources"]["requests"]["cpu"] == "200m")

    after = await node.wait_for(kube, shop, "web", resized)
    assert main_status(after)["containerID"] == main_status(before)["containerID"]
    assert main_status(after)["restartCount"] == 0
    assert after["status"]["observedGeneration"] == after["metadata"]["generation"] == 2


async def test_a_resize_waits_until_another_pod_has_left(own_node: ProcessNode, kube: Kube, shop: str) -> None:
    for name, cpu in (("web", "20"), ("other", "40")):
        await kube.create(PODS, own_node.pod(shop, name, container={"resources": {"requests": {"cpu": cpu}}}))
        await own_node.wait_for(kube, shop, name, is_ready)

    resize = {"spec": {"containers": [{"name": "main", "resources": {"requests": {"cpu": "30"}}}]}}
    await kube.request(
        "PATCH",
        f"/api/v1/namespaces/{shop}/pods/web/resize",
        resize,
        content_type="application/strategic-merge-patch+json",
    )

    def pending(pod: dict[str, Any]) -> dict[str, Any] | None:
        return next((c for c in pod["status"]["conditions"] if c["type"] == "PodResizePending"), None)

    deferred = await own_node.wait_for(kube, shop, "web", pending)
    assert (pending(deferred) or {})["reason"] == "Deferred"
    await kube.delete(PODS, "other", shop)
    done = await own_node.wait_for(kube, shop, "web", lambda pod: pending(pod) is None)
    assert main_status(done)["resources"]["requests"]["cpu"] == "30"


async def test_a_killed_node_leaves_no_process_and_the_next_one_runs_its_pods_again(
    own_node: ProcessNode, kube: Kube, shop: str
) -> None:
    background = "(exec setsid sleep 1000) & sleep 1000"
    await kube.create(PODS, own_node.pod(shop, script=background))
    before = await own_node.wait_for(kube, shop, "web", is_ready)
    await until(lambda: _true(len(own_node.children()) >= 3))

    own_node.end(signal.SIGKILL)
    own_node.start()
    after = await own_node.wait_for(
        kube, shop, "web", lambda pod: main_status(pod)["restartCount"] == 1 and is_ready(pod)
    )

    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["status"]["podIP"] == before["status"]["podIP"]
    assert main_status(after)["lastState"]["terminated"]["reason"] == "ContainerStatusUnknown"
    assert "killed what a dead process node left" in own_node.log.read_text()
    await until(lambda: _true(len(own_node.children()) == 3))


async def test_a_stopped_node_takes_its_processes_with_it_and_says_so(
    own_node: ProcessNode, kube: Kube, shop: str
) -> None:
    await kube.create(PODS, own_node.pod(shop, script="trap '' TERM; while true; do sleep 0.05; done"))
    await own_node.wait_for(kube, shop, "web", is_ready)

    assert own_node.end() == 0

    assert own_node.children() == []
    assert not (own_node.state_dir / "pods").exists()
    conditions = (await kube.get(NODES, own_node.name))["status"]["conditions"]
    assert next(c for c in conditions if c["type"] == "Ready")["reason"] == "ProcessNodeStopped"


async def test_an_unknown_program_on_the_allow_list_is_named(cluster: Any, tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "trimtab.cli", "process-node"),
        *("--kubeconfig", str(cluster.kubeconfig), "--state-dir", str(tmp_path), "--allow", "no-such-program"),
        stderr=asyncio.subprocess.PIPE,
    )
    _, complaint = await process.communicate()

    assert process.returncode == 1
    assert b"--allow no-such-program: no such program" in complaint


async def test_a_second_node_on_the_same_state_is_refused_and_the_first_keeps_its_processes(
    node: ProcessNode, cluster: Any, kube: Kube, shop: str
) -> None:
    await kube.create(PODS, node.pod(shop))
    uid = (await node.wait_for(kube, shop, "web", is_ready))["metadata"]["uid"]
    before = node.children(uid)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "trimtab.cli", "process-node"),
        *("--kubeconfig", str(cluster.kubeconfig), "--state-dir", str(node.state_dir)),
        stderr=asyncio.subprocess.PIPE,
    )
    _, complaint = await process.communicate()

    assert process.returncode == 1
    assert b"already serves a node from this state directory" in complaint
    assert node.children(uid) == before
