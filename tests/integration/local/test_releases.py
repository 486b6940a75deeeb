"""Releases from a local file server: good, missing, wrong, hanging, slow and cut off."""

import hashlib
import io
import socket
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.file_server import FileServer, file_server
from trimtab.local.catalog import PROGRAMS, Family, architecture
from trimtab.local.progress import Silent
from trimtab.local.releases import Releases, listed_checksum
from trimtab.local.sources import Unavailable
from trimtab.model.problem import Problem

ARCH = architecture()
ETCD = PROGRAMS["etcd"]
HELM = PROGRAMS["helm"]
KUBERNETES = PROGRAMS["kube-apiserver"]
KWOK = PROGRAMS["kwok"]
ETCD_ARCHIVE = f"/github.com/etcd-io/etcd/releases/download/v3.7.3/etcd-v3.7.3-linux-{ARCH}.tar.gz"
ETCD_SUMS = "/github.com/etcd-io/etcd/releases/download/v3.7.3/SHA256SUMS"


@pytest.fixture
def site() -> Iterator[FileServer]:
    with file_server() as server:
        yield server


def archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def publish_etcd(site: FileServer, *, sum_: str = "") -> None:
    folder = f"etcd-v3.7.3-linux-{ARCH}"
    content = archive({f"{folder}/etcd": b"the server", f"{folder}/etcdctl": b"the client"})
    site.files[ETCD_ARCHIVE] = content
    published = sum_ or hashlib.sha256(content).hexdigest()
    name = ETCD_ARCHIVE.rpartition("/")[2]
    site.files[ETCD_SUMS] = f"{'0' * 64}  another-file\n{published}  {name}\n".encode()


def deliver(site: FileServer, family: Family, into: Path, **settings: float) -> None:
    Releases(site.address, **settings).deliver(family, into, Silent())


def test_an_archive_is_downloaded_once_checked_and_unpacked(site: FileServer, tmp_path: Path) -> None:
    publish_etcd(site)
    deliver(site, ETCD, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "etcd": b"the server",
        "etcdctl": b"the client",
    }
    assert site.asked.count(f"GET {ETCD_ARCHIVE}") == 1


def test_plain_programs_have_a_sum_each(site: FileServer, tmp_path: Path) -> None:
    for program in KUBERNETES.programs:
        path = f"/dl.k8s.io/release/{KUBERNETES.version}/bin/linux/{ARCH}/{program.name}"
        site.files[path] = program.name.encode()
        site.files[f"{path}.sha256"] = hashlib.sha256(program.name.encode()).hexdigest().encode()
    deliver(site, KUBERNETES, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(p.name for p in KUBERNETES.programs)


def test_what_does_not_match_its_published_sum_is_not_used(site: FileServer, tmp_path: Path) -> None:
    publish_etcd(site, sum_="f" * 64)
    with pytest.raises(Unavailable, match=rf"has SHA-256 [0-9a-f]{{64}}, published is {'f' * 64}: not used"):
        deliver(site, ETCD, tmp_path)
    assert not (tmp_path / "etcd").exists()


@pytest.mark.skipif(ARCH != "amd64", reason="the pinned sums are for amd64")
def test_what_does_not_match_its_pinned_sum_is_not_used(site: FileServer, tmp_path: Path) -> None:
    site.files[f"/github.com/kubernetes-sigs/kwok/releases/download/v0.8.0/kwok-linux-{ARCH}"] = b"something else"
    with pytest.raises(Unavailable, match=r"published is f5a4385a2ae1.*: not used"):
        deliver(site, KWOK, tmp_path)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({}, "404"),
        ({ETCD_SUMS: b"0123  another-file\nabc  yet-another\n"}, "does not have etcd-v3.7.3"),
    ],
)
def test_a_release_without_a_sum_is_not_used(
    site: FileServer, tmp_path: Path, broken: dict[str, bytes], message: str
) -> None:
    publish_etcd(site)
    del site.files[ETCD_SUMS]
    site.files |= broken
    with pytest.raises(Unavailable, match=message):
        deliver(site, ETCD, tmp_path)


def test_an_archive_without_the_program_is_not_used(site: FileServer, tmp_path: Path) -> None:
    publish_etcd(site)
    content = archive({"README": b""})
    site.files[ETCD_ARCHIVE] = content
    name = ETCD_ARCHIVE.rpartition("/")[2]
    site.files[ETCD_SUMS] = f"{hashlib.sha256(content).hexdigest()} *{name}".encode()
    with pytest.raises(Unavailable, match=r"no readable etcd-v3\.7\.3"):
        deliver(site, ETCD, tmp_path)


def test_a_site_that_never_answers_is_given_up_in_time_and_not_asked_again(site: FileServer, tmp_path: Path) -> None:
    site.stuck |= {ETCD_SUMS}
    releases = Releases(site.address, contact_seconds=0.3)
    started = time.monotonic()
    for _ in range(3):
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:\d+ does not answer within 0\.3 s"):
            releases.deliver(ETCD, tmp_path, Silent())
    assert time.monotonic() - started < 2
    assert site.asked == [f"HEAD {ETCD_SUMS}"]


def test_a_site_that_refuses_connections_is_given_up_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(Unavailable, match="cannot be reached"):
        Releases(address).deliver(HELM, tmp_path, Silent())


def test_a_site_whose_name_does_not_resolve_is_given_up_at_once(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"mirror\.invalid cannot be reached"):
        Releases("http://mirror.invalid").deliver(HELM, tmp_path, Silent())


def test_a_download_that_trickles_is_given_up(site: FileServer, tmp_path: Path) -> None:
    publish_etcd(site)
    site.files[ETCD_ARCHIVE] += bytes(2000)
    site.trickling |= {ETCD_ARCHIVE}
    with pytest.raises(Unavailable, match="is too slow: 0 kB/s"):
        deliver(site, ETCD, tmp_path, stall_seconds=0.3)


def test_a_download_that_is_cut_off_is_not_used(site: FileServer, tmp_path: Path) -> None:
    publish_etcd(site)
    site.cut |= {ETCD_ARCHIVE}
    with pytest.raises(Unavailable):
        deliver(site, ETCD, tmp_path)
    assert not (tmp_path / "etcd").exists()


def test_downloads_can_be_switched_off(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="switched off by TRIMTAB_RELEASES"):
        Releases.standard({"TRIMTAB_RELEASES": "off"}).deliver(ETCD, tmp_path, Silent())


def test_a_mirror_can_be_named(site: FileServer, tmp_path: Path) -> None:
    publish_etcd(site)
    Releases.standard({"TRIMTAB_RELEASES": f"{site.address}/"}).deliver(ETCD, tmp_path, Silent())
    assert (tmp_path / "etcd").exists()


def test_a_mirror_that_is_no_address_is_refused() -> None:
    with pytest.raises(Problem, match=r"TRIMTAB_RELEASES: 'mirror' is no address\nfix: "):
        Releases.standard({"TRIMTAB_RELEASES": "mirror"})


@pytest.mark.parametrize(
    "text", ["AB12\n", "ab12  file\n", "ab12 *file", "00  other\nab12  ./dist/file\n", "\nab12  file\n\n"]
)
def test_published_lists_are_read_in_their_usual_forms(text: str) -> None:
    assert listed_checksum(text, "file") == "ab12"
