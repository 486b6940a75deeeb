"""The chart, rendered by the real Helm: values that are refused, rights, hardening, settings."""

import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.helm import CHART, LOCAL, NAMESPACE
from trimtab.api import crd
from trimtab.api.keys import GROUP
from trimtab.kube.resources import TRIMTAB_KINDS
from trimtab.local.programs import Programs
from trimtab_extender.settings import Settings as ExtenderSettings
from trimtab_gateway.settings import Settings as GatewaySettings
from trimtab_operator.settings import OperatorSettings

ROOT = CHART.parents[1]
PROCESSES = {"operator": OperatorSettings, "extender": ExtenderSettings, "gateway": GatewaySettings}
SECOND_SCHEDULER = ("--set", "scheduler.mode=Deployment,scheduler.image=kube-scheduler:v1.37.2")
FROM_THE_POD = {"identity", "bind_address", "address", "kubeconfig"}
# What probes, Services, rights and volumes of the chart depend on.
FIXED = {
    "operator": {"health_port", "metrics_port", "lease", "namespace"},
    "extender": {"port", "metrics_port", "lease", "namespace"},
    "gateway": {"port", "admin_port", "metrics_port", "endpoints"},
}


@pytest.fixture(scope="module")
def helm() -> Path:
    found = Programs.standard().found("helm")
    if found is None:
        pytest.skip("Helm is not on this machine yet: trimtab cluster programs fetch helm")
    return found.path


def _run(helm: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(helm), *arguments], capture_output=True, text=True, check=False)


def _render(helm: Path, *arguments: str) -> list[dict[str, Any]]:
    chart = (str(CHART), "--namespace", NAMESPACE, "--set", "image.registry=REGISTRY")
    done = _run(helm, "template", "trimtab", *chart, *arguments)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def _pods(documents: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and template of everything that makes pods."""
    for document in documents:
        if document["kind"] in {"Deployment", "Job"}:
            yield document["metadata"]["name"], document["spec"]["template"]


def _named(documents: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    return next(one for one in documents if (one["kind"], one["metadata"]["name"]) == (kind, name))


def test_helm_finds_nothing_wrong_with_the_chart(helm: Path) -> None:
    done = _run(helm, "lint", "--strict", str(CHART), "--values", str(LOCAL))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("surprise=1", "surprise"),
        ("operator.replica=2", "replica"),
        ("operator.replicas=many", "/operator/replicas"),
        ("extender.replicas=2", "/extender/replicas"),
        ("gateway.settings.drain_secnds=3", "drain_secnds"),
        ("extender.settings.address=0.0.0.0", "address"),
        ("scheduler.mode=Sidecar", "/scheduler/mode"),
        ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
        ("scheduler.mode=Deployment,image.registry=REGISTRY", "scheduler.image"),
        ("image.tag=0.1.0", "--set image.registry=WHERE"),
    ],
)
def test_values_that_mean_nothing_are_refused_and_named(helm: Path, setting: str, complaint: str) -> None:
    done = _run(helm, "template", "trimtab", str(CHART), "--set", setting)
    assert done.returncode != 0
    assert complaint in done.stderr


@pytest.mark.parametrize(("version", "accepted"), [("1.34.9", 0), ("1.35.0", 1), ("1.37.2", 1), ("1.38.0", 0)])
def test_only_the_versions_of_kubernetes_that_are_claimed_are_accepted(helm: Path, version: str, accepted: int) -> None:
    done = _run(helm, "template", "trimtab", str(CHART), "--values", str(LOCAL), "--kube-version", version)
    assert (done.returncode == 0) == bool(accepted), done.stderr


@pytest.mark.parametrize("process", PROCESSES)
def test_the_schema_knows_every_setting_that_a_pod_survives(process: str) -> None:
    settings = PROCESSES[process]
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    known = set(schema["properties"][process]["properties"]["settings"]["properties"])
    wanted = set(settings.model_fields) - FROM_THE_POD - FIXED[process]
    assert known == wanted, f"correct {process}.settings in values.schema.json"


@pytest.mark.parametrize(("process", "setting"), [(one, name) for one, names in FIXED.items() for name in names])
def test_what_the_chart_depends_on_cannot_be_set(helm: Path, process: str, setting: str) -> None:
    assert setting in PROCESSES[process].model_fields, "else it would be refused as unknown"
    done = _run(helm, "template", "trimtab", str(CHART), "--set", f"{process}.settings.{setting}=1")
    assert done.returncode != 0
    assert f"/{process}/settings" in done.stderr
    assert setting in done.stderr


@pytest.mark.parametrize("process", PROCESSES)
def test_settings_reach_the_process_and_change_its_pods(helm: Path, process: str) -> None:
    plain, changed = _render(helm), _render(helm, "--set", f"{process}.settings.log_level=DEBUG")
    name = f"trimtab-{process}"
    data = _named(changed, "ConfigMap", name)["data"]
    assert data[f"TRIMTAB_{process.upper()}_LOG_LEVEL"] == "DEBUG"
    assert dict(_pods(plain))[name]["metadata"]["annotations"] != dict(_pods(changed))[name]["metadata"]["annotations"]
    (container,) = dict(_pods(plain))[name]["spec"]["containers"]
    assert container["envFrom"] == [{"configMapRef": {"name": name}}]
    assert container["command"] == [name]
    assert container["image"].split(":")[0] == f"REGISTRY/{name}"


def test_every_pod_is_hardened_and_has_an_account_of_its_own(helm: Path) -> None:
    documents = _render(helm, *SECOND_SCHEDULER)
    accounts = {one["metadata"]["name"] for one in documents if one["kind"] == "ServiceAccount"}
    pods = dict(_pods(documents))
    assert set(pods) == {
        "trimtab-operator",
        "trimtab-extender",
        "trimtab-gateway",
        "trimtab-scheduler",
        "trimtab-release",
        "trimtab-test",
    }
    assert pods["trimtab-test"]["spec"]["automountServiceAccountToken"] is False
    others = [template["spec"] for name, template in pods.items() if name != "trimtab-test"]
    assert {spec["serviceAccountName"] for spec in others} == accounts
    for name, template in pods.items():
        pod = template["spec"]["securityContext"]
        assert (pod["runAsNonRoot"], pod["seccompProfile"]["type"]) == (True, "RuntimeDefault")
        for container in template["spec"]["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"].get("requests"), f"{name} is refused where a quota wants requests"


@pytest.mark.parametrize("process", PROCESSES)
def test_a_process_is_probed_bounded_spread_and_outlives_its_drain(helm: Path, process: str) -> None:
    documents = _render(helm)
    template = dict(_pods(documents))[f"trimtab-{process}"]["spec"]
    (container,) = template["containers"]
    ports = {port["name"] for port in container["ports"]}
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert {container[probe]["httpGet"]["port"] for probe in ("livenessProbe", "readinessProbe")} <= ports
    assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
    assert len(template["topologySpreadConstraints"]) == 2
    defaults = PROCESSES[process].model_fields
    drain = sum(defaults[name].default for name in ("drain_delay_seconds", "drain_seconds") if name in defaults)
    assert template["terminationGracePeriodSeconds"] >= drain + 15
    budget = _named(documents, "PodDisruptionBudget", f"trimtab-{process}")["spec"]
    assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")


@pytest.mark.parametrize(
    ("settings", "grace"),
    [
        ("gateway.settings.drain_seconds=600", 3 + 600 + 15),
        ("gateway.settings.drain_seconds=0,gateway.settings.drain_delay_seconds=0.5", 1 + 15),
        ("extender.settings.drain_seconds=300", 300 + 15),
    ],
)
def test_a_longer_drain_is_given_the_time(helm: Path, settings: str, grace: int) -> None:
    name = f"trimtab-{settings.partition('.')[0]}"
    assert dict(_pods(_render(helm, "--set", settings)))[name]["spec"]["terminationGracePeriodSeconds"] == grace


def test_a_hung_extender_is_killed_early_enough_to_be_replaced_within_15_seconds(helm: Path) -> None:
    (container,) = dict(_pods(_render(helm)))["trimtab-extender"]["spec"]["containers"]
    probe = container["livenessProbe"]
    noticed = probe["failureThreshold"] * probe["periodSeconds"] + probe["timeoutSeconds"]
    starting = 5
    assert noticed + probe["terminationGracePeriodSeconds"] + starting <= 15
    assert probe["failureThreshold"] >= 3  # a busy machine may miss two


def test_roles_have_no_wildcards_and_only_what_a_process_may_do(helm: Path) -> None:
    documents = _render(helm)
    roles = [one for one in documents if one["kind"] in {"Role", "ClusterRole"}]
    for rule in (rule for role in roles for rule in role["rules"]):
        assert not {"*", "escalate", "bind", "impersonate"} & {*rule["verbs"], *rule["resources"], *rule["apiGroups"]}
        assert "secrets" not in rule["resources"]
    for name in ("trimtab-gateway", "trimtab-extender"):
        verbs = {verb for rule in _named(documents, "ClusterRole", name)["rules"] for verb in rule["verbs"]}
        assert verbs <= {"get", "list", "watch"}, f"{name} writes nothing outside of its own namespace"


def test_further_kinds_to_scale_are_granted_on_request(helm: Path) -> None:
    values = 'operator.scalable=[{"group":"leaderworkerset.x-k8s.io","resources":["leaderworkersets"]}]'
    rules = _named(_render(helm, "--set-json", values), "ClusterRole", "trimtab-operator")["rules"]
    found = {rule["resources"][0]: rule["verbs"] for rule in rules if rule["apiGroups"] == ["leaderworkerset.x-k8s.io"]}
    assert found == {"leaderworkersets": ["list", "watch"], "leaderworkersets/scale": ["get", "patch"]}


def test_the_scheduler_configuration_is_the_shipped_one_with_the_service_in_it(helm: Path) -> None:
    shipped = yaml.safe_load((ROOT / "manifests" / "scheduler-config.yaml").read_text(encoding="utf-8"))
    config = _named(_render(helm), "ConfigMap", "trimtab-scheduler")["data"]["scheduler-config.yaml"]
    (extender,) = yaml.safe_load(config)["extenders"]
    (expected,) = shipped["extenders"]
    assert extender == expected | {"urlPrefix": f"http://trimtab-extender.{NAMESPACE}.svc:8888/v1"}


@pytest.mark.parametrize(("mode", "kinds"), [("None", set()), ("Config", {"ConfigMap"})])
def test_the_scheduler_is_left_to_others_unless_asked_for(helm: Path, mode: str, kinds: set[str]) -> None:
    documents = _render(helm, "--set", f"scheduler.mode={mode}")
    assert {one["kind"] for one in documents if one["metadata"]["name"] == "trimtab-scheduler"} == kinds


def test_local_values_send_every_pod_to_the_process_node(helm: Path) -> None:
    for name, template in _pods(_render(helm, "--values", str(LOCAL))):
        assert template["spec"]["nodeSelector"] == {f"{GROUP}/node-type": "process"}, name
        assert template["metadata"]["labels"][f"{GROUP}/run-as"] == "process", name
        assert template["spec"]["tolerations"][0]["key"] == f"{GROUP}/process-node", name


def test_the_hook_can_be_left_out(helm: Path) -> None:
    assert "trimtab-release" not in dict(_pods(_render(helm, "--set", "releaseOnUninstall=false")))


def test_the_crds_folder_has_the_generated_definitions_and_nothing_else() -> None:
    assert {path.name for path in (CHART / "crds").iterdir()} == set(crd.files())


@pytest.mark.parametrize(
    ("values", "samples", "check"),
    [
        ("image.tag=local", "manifests/samples,", ""),
        ("image.registry=R", "manifests/samples-real", "helm test trimtab"),
    ],
    ids=["local", "real"],
)
def test_the_notes_fit_into_five_lines_and_name_the_next_step(
    helm: Path, values: str, samples: str, check: str
) -> None:
    notes = _notes(helm, "--set", values)
    assert len(notes) == 5
    assert check in notes[0]
    assert f"kubectl apply -f {samples}" in notes[1]
    assert ("local cluster only" in notes[1]) == ("real" in samples)


def test_the_notes_name_the_way_out_when_the_job_cannot_run(helm: Path) -> None:
    last = _notes(helm)[-1]
    assert {"--no-hooks", "releaseOnUninstall=false"} <= {*last.replace(",", "").split()}
    assert "--no-hooks" not in _notes(helm, "--set", "releaseOnUninstall=false")[-1]


def _notes(helm: Path, *arguments: str) -> list[str]:
    chart = (str(CHART), "--namespace", NAMESPACE, "--set", "image.registry=R", "--dry-run=client")
    done = _run(helm, "install", "trimtab", *chart, *arguments)
    return done.stdout.partition("NOTES:\n")[2].strip().splitlines()


@pytest.mark.parametrize("process", [*PROCESSES, "scheduler"])
def test_placement_priority_and_the_accounts_annotations_are_taken_over(helm: Path, process: str) -> None:
    affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone"}]}}
    values = {"affinity": affinity, "priorityClassName": "vital", "serviceAccountAnnotations": {"cloud/role": "reader"}}
    documents = _render(helm, *SECOND_SCHEDULER, "--set-json", f"{process}={json.dumps(values)}")
    name = f"trimtab-{process}"
    pods = dict(_pods(documents))
    assert (pods[name]["spec"]["affinity"], pods[name]["spec"]["priorityClassName"]) == (affinity, "vital")
    assert _named(documents, "ServiceAccount", name)["metadata"]["annotations"] == {"cloud/role": "reader"}
    others = pods.keys() - {name, "trimtab-release", "trimtab-test"}  # these two are placed like the operator
    assert not any("priorityClassName" in pods[other]["spec"] for other in others)


@pytest.mark.parametrize("process", ["extender", "gateway"])
def test_services_take_over_their_annotations(helm: Path, process: str) -> None:
    documents = _render(helm, "--set-json", f'{process}.serviceAnnotations={{"cloud/internal":"true"}}')
    assert _named(documents, "Service", f"trimtab-{process}")["metadata"]["annotations"] == {"cloud/internal": "true"}


def test_the_second_scheduler_restarts_with_its_configuration_and_only_then(helm: Path) -> None:
    def annotations(*arguments: str) -> dict[str, str]:
        found: dict[str, str] = dict(_pods(_render(helm, *SECOND_SCHEDULER, *arguments)))["trimtab-scheduler"][
            "metadata"
        ]["annotations"]
        return found

    assert annotations("--set", "scheduler.name=other") != annotations()
    assert annotations("--set", "gateway.replicas=3") == annotations()


def test_the_roles_of_a_namespace_learn_our_kinds_and_no_role_learns_to_write_those_of_the_cluster(helm: Path) -> None:
    documents = _render(helm)
    granted = {role: {(of, verb) for of, verb in _aggregated(documents, role)} for role in ("view", "edit", "admin")}
    kinds = {(one.plural, one.namespaced) for one in TRIMTAB_KINDS}
    assert granted["view"] >= {(plural, verb) for plural, _ in kinds for verb in ("get", "list", "watch")}
    assert {verb for _, verb in granted["view"]} == {"get", "list", "watch"}
    written = {of for of, verb in granted["edit"] - granted["view"] if verb in {"create", "delete", "patch", "update"}}
    assert written == {plural for plural, namespaced in kinds if namespaced} | {"servingpools/scale"}
    assert granted["view"] < granted["edit"] == granted["admin"]


def _aggregated(documents: list[dict[str, Any]], role: str) -> Iterator[tuple[str, str]]:
    """Yield what a role that clusters come with gains: resource and verb."""
    for one in documents:
        if one["metadata"].get("labels", {}).get(f"rbac.authorization.k8s.io/aggregate-to-{role}") == "true":
            for rule in one["rules"]:
                assert rule["apiGroups"] == [GROUP]
                yield from itertools.product(rule["resources"], rule["verbs"])


def test_helm_test_asks_both_services_and_fails_unless_both_are_well(helm: Path) -> None:
    (container,) = dict(_pods(_render(helm)))["trimtab-test"]["spec"]["containers"]
    interpreter, *script = container["command"][:3]
    asked = container["command"][3:]
    assert interpreter == "python"
    assert asked == [
        f"http://trimtab-extender.{NAMESPACE}.svc:8888/readyz",
        f"http://trimtab-gateway.{NAMESPACE}.svc:8000/v1/models",
    ]
    with _answering(200) as well, _answering(503) as ill:
        for second, succeeds in ((well, True), (ill, False)):
            done = subprocess.run([sys.executable, *script, well, second], capture_output=True, text=True, check=False)
            assert (done.returncode == 0) == succeeds, done.stderr


@contextmanager
def _answering(status: int) -> Iterator[str]:
    """Serve one status for every path; yield the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            del arguments

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def test_without_dns_there_is_no_test_to_run(helm: Path) -> None:
    assert "trimtab-test" not in dict(_pods(_render(helm, "--values", str(LOCAL))))


def test_the_manifest_for_those_without_helm_pulls_from_a_place_that_has_to_be_replaced() -> None:
    documents = yaml.safe_load_all((ROOT / "manifests" / "install.yaml").read_text(encoding="utf-8"))
    images = {
        container["image"] for _, template in _pods(list(documents)) for container in template["spec"]["containers"]
    }
    assert len(images) == len(PROCESSES)
    assert all(image.startswith("REGISTRY/trimtab-") for image in images)
    assert "s,image: REGISTRY/," in (ROOT / "docs" / "how-to" / "install.md").read_text(encoding="utf-8")
