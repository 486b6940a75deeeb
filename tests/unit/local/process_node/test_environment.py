from typing import Any

import pytest

from tests.support.process_node import a_container, a_pod, a_pod_object
from trimtab.local.process_node import environment
from trimtab.local.process_node.environment import ConfigError, Contents, Facts
from trimtab.local.process_node.spec import parse_pod

FACTS = Facts(pod_ip="127.20.1.0", host_ip="127.20.0.1", capacity={"cpu": "8", "memory": "1Gi"})
STORED: Contents = {("ConfigMap", "c"): {"k": "v", "l": "w"}, ("Secret", "s"): {"k": "hidden"}}


def variables(*env: dict[str, Any], given: dict[str, str] | None = None, **fields: Any) -> dict[str, str]:
    pod = a_pod(containers=[a_container(env=list(env), **fields)])
    return environment.variables(pod, pod.containers[0], FACTS, STORED, given or {})


def from_field(path: str) -> dict[str, Any]:
    return {"name": "X", "valueFrom": {"fieldRef": {"fieldPath": path}}}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)", "1"),
        ("x$(A)y$(B)", "x1y2"),
        ("$(MISSING)", "$(MISSING)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A ${A} $", "$A ${A} $"),
        ("$(A", "$(A"),
    ],
)
def test_references_are_expanded_as_kubernetes_does(text: str, expanded: str) -> None:
    assert environment.expand(text, {"A": "1", "B": "2"}) == expanded


def test_a_variable_refers_to_earlier_ones_only() -> None:
    env = variables({"name": "A", "value": "$(B)"}, {"name": "B", "value": "$(C)2"}, given={"C": "1"})

    assert env == {"C": "1", "A": "$(B)", "B": "12"}


def test_a_container_wins_over_what_the_node_gives() -> None:
    assert variables({"name": "POD_IP", "value": "mine"}, given={"POD_IP": "127.0.0.9"}) == {"POD_IP": "mine"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "web"),
        ("metadata.namespace", "shop"),
        ("metadata.uid", "uid-web"),
        ("spec.nodeName", "process-0"),
        ("spec.serviceAccountName", "default"),
        ("status.podIP", "127.20.1.0"),
        ("status.hostIP", "127.20.0.1"),
        ("metadata.labels['app']", "web"),
        ("metadata.labels['absent']", ""),
        ("metadata.annotations['trimtab.dev/x']", 'a "b"'),
        ("metadata.annotations", 'trimtab.dev/x="a \\"b\\""'),
    ],
)
def test_fields_of_the_pod(path: str, value: str) -> None:
    obj = a_pod_object(containers=[a_container(env=[from_field(path)])])
    obj["metadata"]["annotations"] = {"trimtab.dev/x": 'a "b"'}
    pod = parse_pod(obj)

    assert environment.variables(pod, pod.containers[0], FACTS, {}, {}) == {"X": value}


def test_an_unknown_field_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'status\.phase' is not a field of the downward API"):
        variables(from_field("status.phase"))


@pytest.mark.parametrize(
    ("ref", "value"),
    [
        ({"resource": "requests.cpu", "divisor": "1m"}, "250"),
        ({"resource": "requests.cpu"}, "1"),
        ({"resource": "limits.memory", "divisor": "1Mi"}, "64"),
        ({"resource": "limits.cpu"}, "8"),
        ({"resource": "requests.memory"}, "0"),
    ],
)
def test_resources_of_the_container(ref: dict[str, str], value: str) -> None:
    resources = {"requests": {"cpu": "250m"}, "limits": {"memory": "64Mi"}}

    assert variables({"name": "X", "valueFrom": {"resourceFieldRef": ref}}, resources=resources) == {"X": value}


def test_a_resource_of_a_container_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConfigError, match=r"other/limits\.cpu does not exist"):
        variables(
            {"name": "X", "valueFrom": {"resourceFieldRef": {"containerName": "other", "resource": "limits.cpu"}}}
        )


def test_keys_of_config_maps_and_secrets() -> None:
    env = variables(
        {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
        {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        envFrom=[{"prefix": "C_", "configMapRef": {"name": "c"}}],
    )

    assert env == {"A": "v", "B": "hidden", "C_k": "v", "C_l": "w"}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"configMapKeyRef": {"name": "c", "key": "none"}}, "no key 'none' in ConfigMap 'c'"),
        ({"secretKeyRef": {"name": "none", "key": "k"}}, "Secret 'none' not found"),
    ],
)
def test_a_missing_key_is_named_unless_it_is_optional(source: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        variables({"name": "X", "valueFrom": source})

    (kind,) = source
    assert variables({"name": "X", "valueFrom": {kind: source[kind] | {"optional": True}}}) == {}


def test_a_missing_bundle_is_named_unless_it_is_optional() -> None:
    with pytest.raises(ConfigError, match="ConfigMap 'none' not found"):
        variables(envFrom=[{"configMapRef": {"name": "none"}}])

    assert variables(envFrom=[{"configMapRef": {"name": "none", "optional": True}}]) == {}


def test_sources_are_what_must_be_fetched() -> None:
    pod = a_pod(
        containers=[
            a_container(
                env=[
                    {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                    from_field("metadata.uid"),
                ],
                envFrom=[{"configMapRef": {"name": "c"}}],
            )
        ],
        volumes=[{"name": "v", "configMap": {"name": "d"}}],
    )
    main = pod.containers[0]

    assert environment.sources(main.env, main.env_from, pod.volumes) == {
        ("Secret", "s"),
        ("ConfigMap", "c"),
        ("ConfigMap", "d"),
    }
