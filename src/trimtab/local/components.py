"""The components of a local cluster: how each is started, where it logs, how it is asked whether it is well."""

import os
import ssl
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from trimtab.local.owned import MARK, ROLE, Process

START_ORDER: Final = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kwok-controller",
    "prometheus",
    "process-node",
)


@dataclass(frozen=True, slots=True)
class Component:
    """One process of a cluster.

    Attributes:
        name: As in `START_ORDER`.
        argv: Its command line.
        log: Where its output goes.
        health: Address that answers 200 when it is well; empty when being alive is all that can be asked.
        credentials: Folder of the client certificate to show there.
    """

    name: str
    argv: tuple[str, ...]
    log: Path
    health: str = ""
    credentials: Path | None = None

    def runs_as(self, process: Process) -> bool:
        """Whether `process` is this component."""
        if process.role:
            return process.role == self.name
        return process.argv[:1] == self.argv[:1]  # started by kwokctl, which knows no roles

    def start(self, root: Path) -> None:
        """Start it as an orphan in a session of its own, marked as part of the cluster at `root`."""
        environment = {**os.environ, MARK: str(root), ROLE: self.name}
        with self.log.open("ab") as log:
            # The shell leaves at once, so that nobody here has to wait for the component later on.
            command = ["/bin/sh", "-c", '"$@" &', "sh", *self.argv]
            subprocess.run(
                command,
                env=environment,
                cwd=root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                check=True,
            )

    def ailment(self, timeout_seconds: float = 6.0) -> str:
        """Empty when it answers that it is well, else what it answered, in a few words.

        Args:
            timeout_seconds: How long to wait. An API server without etcd needs four seconds to say so.
        """
        if not self.health:
            return ""
        try:
            with urllib.request.urlopen(self.health, timeout=timeout_seconds, context=self._context()) as answer:  # noqa: S310 - loopback
                answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return _failed_checks(error.read().decode(errors="replace")) or f"answers {error.code}"
        except OSError as error:
            return f"does not answer ({getattr(error, 'reason', error)})"
        return ""

    def last_lines(self, count: int) -> list[str]:
        """The end of its log."""
        if not self.log.exists():
            return []
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - 64 * 1024))
            return file.read().decode(errors="replace").splitlines()[-count:]

    def _context(self) -> ssl.SSLContext | None:
        if not self.health.startswith("https:"):
            return None
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # loopback; some sign their own certificate
        if self.credentials:
            context.load_cert_chain(self.credentials / "admin.crt", self.credentials / "admin.key")
        return context


def from_kwokctl(folder: Path) -> list[Component]:
    """The components that kwokctl wrote down in a cluster's folder, in the order they start in; none before it has."""
    try:
        head = (folder / "kwok.yaml").read_text().partition("\n---")[0]  # hundreds of lines of stages follow
        described: dict[str, Any] = yaml.load(head, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}  # noqa: S506
    except (FileNotFoundError, yaml.YAMLError):  # it is being written, or its writer was killed
        return []
    found = {item["name"]: _component(item, folder) for item in described.get("components") or ()}
    return [found[name] for name in START_ORDER if name in found]


def _component(item: dict[str, Any], folder: Path) -> Component:
    paths = {"etcd": "/health", "kube-apiserver": "/readyz?verbose", "kwok-controller": "/readyz"}
    metric = item["metric"]
    return Component(
        name=item["name"],
        argv=(item["binary"], *item.get("args", ())),
        log=folder / "logs" / f"{item['name']}.log",
        health=f"{metric['scheme']}://{metric['host']}{paths.get(item['name'], '/healthz')}",
        credentials=folder / "pki",
    )


def _failed_checks(body: str) -> str:
    """The checks that Kubernetes' verbose health answers mark as failed."""
    failed = [line[3:].partition(" ")[0] for line in body.splitlines() if line.startswith("[-]")]
    return f"not ready: {', '.join(failed)}" if failed else ""
