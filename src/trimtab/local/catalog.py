"""Which third-party programs a local cluster needs, at which version, and where they can be had.

The versions are the ones pinned by the Go modules under `tools/`; a test holds the two together.
"""

import platform
from dataclasses import dataclass
from typing import Final

from trimtab.model.problem import Problem

KUBERNETES: Final = "v1.37.2"


@dataclass(frozen=True, slots=True)
class Program:
    """One executable.

    Attributes:
        name: The file name it is cached under.
        package: The Go package it is built from.
        release: Address of the official release: the program, or an archive. `{arch}` is Go's name of the machine.
        member: Path inside the archive; empty when the release is the program itself.
        checksums: Address of the release's SHA-256 list; empty when upstream publishes none.
        pinned: SHA-256 by architecture, for releases without a list. Other architectures are built.
    """

    name: str
    package: str
    release: str
    member: str = ""
    checksums: str = ""
    pinned: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Family:
    """Programs that come from one Go module and share its version.

    Attributes:
        name: Folder under `tools/`.
        version: Version of the module.
        programs: What it yields.
        linker: Flags for Go's linker besides `-s -w`.
        environment: Additional variables for the build.
        build_minutes: How long a cold build took on two cores.
    """

    name: str
    version: str
    programs: tuple[Program, ...]
    build_minutes: float
    linker: str = ""
    environment: tuple[tuple[str, str], ...] = ()


def _kubernetes(name: str) -> Program:
    release = f"https://dl.k8s.io/release/{KUBERNETES}/bin/linux/{{arch}}/{name}"
    return Program(name, f"k8s.io/kubernetes/cmd/{name}", release, checksums=f"{release}.sha256")


def _stamp(*packages: str) -> str:
    """Linker flags that say which version it is: without them servers and clients call themselves v0.0.0."""
    major, minor, _ = KUBERNETES.removeprefix("v").split(".")
    facts = {"gitVersion": KUBERNETES, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    return " ".join(f"-X {package}.{name}={value}" for package in packages for name, value in facts.items())


def _kwok(name: str, sha256: str) -> Program:
    release = f"https://github.com/kubernetes-sigs/kwok/releases/download/v0.8.0/{name}-linux-{{arch}}"
    return Program(name, f"sigs.k8s.io/kwok/cmd/{name}", release, pinned=(("amd64", sha256),))


def _etcd(name: str, package: str) -> Program:
    base = "https://github.com/etcd-io/etcd/releases/download/v3.7.3"
    archive = "etcd-v3.7.3-linux-{arch}"
    return Program(name, package, f"{base}/{archive}.tar.gz", f"{archive}/{name}", f"{base}/SHA256SUMS")


_PROMETHEUS = "https://github.com/prometheus/prometheus/releases/download/v3.16.0"
_HELM = "https://get.helm.sh/helm-v4.3.1-linux-{arch}.tar.gz"

FAMILIES: Final = (
    Family(
        "etcd",
        "v3.7.3",
        (_etcd("etcd", "go.etcd.io/etcd/server/v3"), _etcd("etcdctl", "go.etcd.io/etcd/etcdctl/v3")),
        build_minutes=0.5,
    ),
    Family(
        "kubernetes",
        KUBERNETES,
        tuple(map(_kubernetes, ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl"))),
        build_minutes=6,
        linker=_stamp("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"),
    ),
    Family(
        "kwok",
        "v0.8.0",
        (
            _kwok("kwok", "f5a4385a2ae1b9dd7f8acae18e002a75c0ebba124ae9d7259aa8dadb50711f46"),
            _kwok("kwokctl", "d5743166c657283d6e827c7c4c20cacfd9009fd94830f06718ca7b2c7099461f"),
        ),
        build_minutes=1.2,
        linker="-X sigs.k8s.io/kwok/pkg/consts.Version=v0.8.0",
    ),
    Family(
        "prometheus",
        "v0.316.0",
        (
            Program(
                "prometheus",
                "github.com/prometheus/prometheus/cmd/prometheus",
                f"{_PROMETHEUS}/prometheus-3.16.0.linux-{{arch}}.tar.gz",
                "prometheus-3.16.0.linux-{arch}/prometheus",
                f"{_PROMETHEUS}/sha256sums.txt",
            ),
        ),
        build_minutes=4,
        linker="-X github.com/prometheus/common/version.Version=3.16.0",
        environment=(("CGO_ENABLED", "0"),),
    ),
    Family(
        "helm",
        "v4.3.1",
        (Program("helm", "helm.sh/helm/v4/cmd/helm", _HELM, "linux-{arch}/helm", f"{_HELM}.sha256sum"),),
        build_minutes=1.6,
        linker="-X helm.sh/helm/v4/internal/version.version=v4.3.1",
    ),
)

PROGRAMS: Final = {program.name: family for family in FAMILIES for program in family.programs}


def architecture(machine: str = "") -> str:
    """Go's name of this machine's architecture.

    Raises:
        Problem: Local clusters do not run on it.
    """
    machine = machine or platform.machine()
    names = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
    if machine not in names:
        raise Problem(f"local clusters run on x86-64 and arm64, not on {machine}", fix="use --existing-cluster or kind")
    return names[machine]
