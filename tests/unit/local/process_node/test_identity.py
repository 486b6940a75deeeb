from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.process_node import a_pod
from trimtab.kube import Kube
from trimtab.local.process_node.identity import Cluster, issue_token, pod_kubeconfig, read_cluster
from trimtab.local.process_node.spec import TokenFile
from trimtab.model.problem import Problem

CONFIG = {
    "current-context": "b",
    "contexts": [{"name": "a", "context": {"cluster": "x"}}, {"name": "b", "context": {"cluster": "y"}}],
    "clusters": [
        {"name": "x", "cluster": {"server": "https://127.0.0.1:1"}},
        {"name": "y", "cluster": {"server": "https://127.0.0.1:2", "certificate-authority": "pki/ca.crt"}},
    ],
}


def test_the_cluster_of_the_current_context_is_read_with_absolute_paths(tmp_path: Path) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(CONFIG))

    cluster = read_cluster(file)

    assert cluster.entry == {"server": "https://127.0.0.1:2", "certificate-authority": str(tmp_path / "pki/ca.crt")}
    assert cluster.address == ("127.0.0.1", 2)


@pytest.mark.parametrize(("server", "port"), [("https://127.0.0.1", 443), ("http://127.0.0.1", 80)])
def test_a_server_without_port_has_the_port_of_its_scheme(server: str, port: int) -> None:
    assert Cluster({"server": server}).address == ("127.0.0.1", port)


@pytest.mark.parametrize("text", ["", "[]", "a: [", yaml.safe_dump(CONFIG | {"current-context": "none"})])
def test_an_unusable_kubeconfig_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(text)

    with pytest.raises(Problem, match=r"kubeconfig .* is not usable"):
        read_cluster(file)


def test_a_pod_acts_with_its_token_file_in_its_namespace() -> None:
    config = yaml.safe_load(pod_kubeconfig(Cluster({"server": "https://127.0.0.1:2"}), "shop", Path("/v/token")))

    assert config["users"][0]["user"] == {"tokenFile": "/v/token"}
    assert config["contexts"][0]["context"]["namespace"] == "shop"
    assert config["clusters"][0]["cluster"] == {"server": "https://127.0.0.1:2"}


class _Server(Kube):
    """Answers one TokenRequest."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []

    async def request(self, method: str, path: str, body: Any = None, **_: Any) -> Any:
        self.asked.append((method, path, body))
        return {"status": {"token": "secret"}}


async def test_a_token_is_bound_to_the_pod() -> None:
    server = _Server()

    token = await issue_token(server, a_pod(serviceAccountName="robot"), TokenFile("token", "vault", 3607))

    assert token == "secret"
    ((method, path, body),) = server.asked
    assert (method, path) == ("POST", "/api/v1/namespaces/shop/serviceaccounts/robot/token")
    assert body["spec"]["boundObjectRef"]["uid"] == "uid-web"
    assert (body["spec"]["audiences"], body["spec"]["expirationSeconds"]) == (["vault"], 3607)
