from pathlib import Path

import pytest

from tests.support.process_node import container
from trimtab.local.process_node import mounts

VOLUMES = Path("/state/volumes")
BY_PATH = {
    "/etc/trimtab": "/state/volumes/config",
    "/etc/trimtab/tls": "/state/volumes/tls",
    "/tmp": "/state/volumes/t",
}


@pytest.mark.parametrize(
    ("text", "rewritten"),
    [
        ("/etc/trimtab", "/state/volumes/config"),
        ("/etc/trimtab/a.yaml", "/state/volumes/config/a.yaml"),
        ("--config=/etc/trimtab/a.yaml", "--config=/state/volumes/config/a.yaml"),
        ("/etc/trimtab/tls/ca.crt", "/state/volumes/tls/ca.crt"),
        ("/etc/trimtab:/tmp", "/state/volumes/config:/state/volumes/t"),
        ('{"file": "/tmp/x"}', '{"file": "/state/volumes/t/x"}'),
        ("/etc/trimtabs/a", "/etc/trimtabs/a"),
        ("/var/etc/trimtab", "/var/etc/trimtab"),
        ("http://host/etc/trimtab", "http://host/etc/trimtab"),
        ("/tmpfile", "/tmpfile"),
    ],
)
def test_a_mount_path_is_replaced_where_a_path_starts_with_it(text: str, rewritten: str) -> None:
    assert mounts.rewrite(text, BY_PATH) == rewritten


def test_a_path_that_stands_for_itself_protects_what_is_below() -> None:
    by_path = {"/tmp": "/tmp/state/volumes/t", "/tmp/state": "/tmp/state"}

    assert mounts.rewrite("/tmp/state/kubeconfig /tmp/x", by_path) == "/tmp/state/kubeconfig /tmp/state/volumes/t/x"


def test_nothing_is_rewritten_without_mounts() -> None:
    assert mounts.rewrite("/a", {}) == "/a"
    assert mounts.rewrite("/a", {"/": "/state/volumes/root"}) == "/a"


def test_volumes_are_named_by_variables() -> None:
    main = container(
        volumeMounts=[
            {"name": "my-config.v2", "mountPath": "/etc/x", "subPath": "part"},
            {"name": "scratch", "mountPath": "/tmp"},
        ]
    )

    assert mounts.variables(main, VOLUMES) == {
        "TRIMTAB_MOUNT_MY_CONFIG_V2": "/state/volumes/my-config.v2/part",
        "TRIMTAB_MOUNT_SCRATCH": "/state/volumes/scratch",
        "TMPDIR": "/state/volumes/scratch",
    }
