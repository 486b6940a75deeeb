"""A cluster that somebody else runs, in the place of the local one: `pytest tests/controlplane --existing-cluster`."""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest


class ExistingCluster:
    """The cluster of `$KUBECONFIG`. Whatever only the local launcher can do skips the test that asks for it."""

    name = "existing"

    def __init__(self) -> None:
        kubeconfig = os.environ.get("KUBECONFIG", "")
        if not Path(kubeconfig).is_file():
            raise pytest.UsageError("--existing-cluster needs KUBECONFIG to name a kubeconfig file")
        self.kubeconfig = Path(kubeconfig)

    def program(self, name: str) -> Path:
        found = shutil.which(name)
        if found is None:
            pytest.skip(f"{name} is not on the PATH")
        return Path(found)

    def __getattr__(self, attribute: str) -> NoReturn:
        pytest.skip(f"LocalCluster.{attribute} needs the local launcher, and --existing-cluster was given")
