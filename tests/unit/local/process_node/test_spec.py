from typing import Any

import pytest

from tests.support.process_node import a_container, a_pod, a_pod_object
from trimtab.local.process_node import spec
from trimtab.local.process_node.spec import (
    Bundle,
    Exec,
    FieldFiles,
    FieldRef,
    GrpcCheck,
    HttpGet,
    KeyFiles,
    KeyRef,
    Mount,
    Probe,
    ResourceRef,
    Sleep,
    TcpConnect,
    TokenFile,
    Variable,
    Volume,
)


def test_absent_fields_have_the_defaults_of_the_api() -> None:
    pod = spec.parse_pod(
        {"metadata": {"namespace": "a", "name": "b", "uid": "c"}, "spec": {"containers": [{"name": "main"}]}}
    )

    assert (pod.restart_policy, pod.grace_seconds, pod.service_account) == ("Always", 30.0, "default")
    assert pod.service_links
    assert pod.deletion_grace_seconds is None
    assert pod.containers[0].command == ()


def test_a_pod_that_is_being_deleted_has_a_grace_period() -> None:
    obj = a_pod_object()
    obj["metadata"] |= {"deletionTimestamp": "2026-11-24T18:00:00Z", "deletionGracePeriodSeconds": 7}

    assert spec.parse_pod(obj).deletion_grace_seconds == 7


@pytest.mark.parametrize(
    ("written", "action"),
    [
        (
            {
                "httpGet": {
                    "port": "http",
                    "path": "/livez",
                    "scheme": "HTTPS",
                    "httpHeaders": [{"name": "a", "value": "b"}],
                }
            },
            HttpGet("http", "/livez", "https", "", (("a", "b"),)),
        ),
        ({"httpGet": {"port": 80}}, HttpGet(80)),
        ({"tcpSocket": {"port": 80}}, TcpConnect(80)),
        ({"grpc": {"port": 9000, "service": "x"}}, GrpcCheck(9000, "x")),
        ({"exec": {"command": ["trimtab", "--version"]}}, Exec(("trimtab", "--version"))),
    ],
)
def test_every_kind_of_probe_is_read(written: dict[str, Any], action: spec.ProbeAction) -> None:
    pod = a_pod(containers=[a_container(readinessProbe=written)])

    assert pod.containers[0].readiness == Probe(action)


def test_probe_numbers_are_read() -> None:
    written = {
        "tcpSocket": {"port": 1},
        "initialDelaySeconds": 1,
        "periodSeconds": 2,
        "timeoutSeconds": 3,
        "successThreshold": 4,
        "failureThreshold": 5,
        "terminationGracePeriodSeconds": 6,
    }

    probe = a_pod(containers=[a_container(livenessProbe=written)]).containers[0].liveness

    assert probe == Probe(TcpConnect(1), 1.0, 2.0, 3.0, 4, 5, 6.0)


def test_hooks_are_read() -> None:
    lifecycle = {"preStop": {"sleep": {"seconds": 3}}, "postStart": {"exec": {"command": ["trimtab"]}}}

    main = a_pod(containers=[a_container(lifecycle=lifecycle)]).containers[0]

    assert main.pre_stop == Sleep(3.0)
    assert main.post_start == Exec(("trimtab",))


def test_every_source_of_a_variable_is_read() -> None:
    env = [
        {"name": "A", "value": "1"},
        {"name": "B"},
        {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "D", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
        {"name": "E", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k", "optional": True}}},
        {"name": "F", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
    ]
    bundles = [{"prefix": "P_", "configMapRef": {"name": "c"}}, {"secretRef": {"name": "s", "optional": True}}]

    main = a_pod(containers=[a_container(env=env, envFrom=bundles)]).containers[0]

    assert main.env == (
        Variable("A", "1"),
        Variable("B", ""),
        Variable("C", FieldRef("status.podIP")),
        Variable("D", ResourceRef("limits.cpu", "1m")),
        Variable("E", KeyRef("ConfigMap", "c", "k", optional=True)),
        Variable("F", KeyRef("Secret", "s", "k")),
    )
    assert main.env_from == (Bundle("ConfigMap", "c", "P_"), Bundle("Secret", "s", optional=True))


def test_every_kind_of_volume_is_read() -> None:
    volumes = [
        {"name": "e", "emptyDir": {}},
        {"name": "c", "configMap": {"name": "page", "items": [{"key": "k", "path": "p/q"}]}},
        {"name": "s", "secret": {"secretName": "key", "optional": True}},
        {"name": "d", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {
            "name": "p",
            "projected": {
                "sources": [
                    {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
                    {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                    {"secret": {"name": "key"}},
                ]
            },
        },
        {"name": "h", "hostPath": {"path": "/"}},
    ]

    pod = a_pod(volumes=volumes)

    assert pod.volumes == (
        Volume("e"),
        Volume("c", (KeyFiles("ConfigMap", "page", (("k", "p/q"),)),)),
        Volume("s", (KeyFiles("Secret", "key", optional=True),)),
        Volume("d", (FieldFiles((("labels", FieldRef("metadata.labels")),)),)),
        Volume(
            "p",
            (
                TokenFile("token", "", 3607),
                KeyFiles("ConfigMap", "kube-root-ca.crt", (("ca.crt", "ca.crt"),)),
                KeyFiles("Secret", "key"),
            ),
        ),
        Volume("h"),
    )


def test_mounts_have_no_trailing_slash() -> None:
    mounts = [{"name": "v", "mountPath": "/etc/x/", "subPath": "y"}, {"name": "w", "mountPath": "/"}]

    assert a_pod(containers=[a_container(volumeMounts=mounts)]).containers[0].mounts == (
        Mount("v", "/etc/x", "y"),
        Mount("w", "/"),
    )


def test_a_port_is_found_by_name_number_or_number_as_text() -> None:
    main = spec.parse_container(a_container(ports=[{"name": "http", "containerPort": 8000}]))

    assert [main.port("http"), main.port(9), main.port("9"), main.port("grpc")] == [8000, 9, 9, None]


@pytest.mark.parametrize(
    ("pod_spec", "paths"),
    [
        ({"securityContext": {}}, ()),
        ({"securityContext": {"runAsUser": 1}}, ("spec.securityContext",)),
        ({"hostNetwork": True, "hostPID": False}, ("spec.hostNetwork",)),
        ({"volumes": [{"name": "h", "hostPath": {"path": "/"}}]}, ("spec.volumes[h].hostPath",)),
        ({"volumes": [{"name": "e", "emptyDir": {"medium": "Memory"}}]}, ("spec.volumes[e].emptyDir.medium",)),
        (
            {"containers": [a_container(workingDir="/x", imagePullPolicy="Always")]},
            ("spec.containers[main].imagePullPolicy", "spec.containers[main].workingDir"),
        ),
        (
            {"containers": [a_container(resources={"limits": {"cpu": "1", "nvidia.com/gpu": "1"}})]},
            ("spec.containers[main].resources.limits.cpu",),
        ),
        (
            {"initContainers": [a_container("first", securityContext={"privileged": True})]},
            ("spec.initContainers[first].securityContext",),
        ),
    ],
)
def test_fields_without_effect_are_named(pod_spec: dict[str, Any], paths: tuple[str, ...]) -> None:
    assert a_pod(**pod_spec).unhonored == paths
