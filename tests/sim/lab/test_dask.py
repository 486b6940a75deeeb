"""A sweep on a Dask cluster gives the same bytes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.sim.lab.test_lab import files, run_into
from tests.sim.lab.toy import TOY
from trimtab.cli.lab import lab
from trimtab.model.problem import Problem
from trimtab.sim import experiments
from trimtab.sim.lab import Order

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None, host="127.0.0.1", protocol="tcp"
        ) as running,
        distributed.Client(running) as client,
    ):
        yield client


@pytest.mark.usefixtures("cluster")
def test_a_dask_cluster_writes_the_bytes_that_one_process_does(tmp_path: Path) -> None:
    order = Order(TOY, seeds=3)
    run_into(tmp_path / "alone", order)
    run_into(tmp_path / "cluster", order, backend="dask")
    assert files(tmp_path / "cluster") == files(tmp_path / "alone")


def test_the_command_line_finds_a_cluster_by_its_address(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiments, "experiments", lambda: {"toy": TOY})
    address = cluster.scheduler.address
    words = ["run", "toy", "--part", "main", "--seeds", "2", "--dask", address, "--out", str(tmp_path / "cluster")]
    result = CliRunner().invoke(lab, words, standalone_mode=False)
    assert result.return_value == 0, result.output
    run_into(tmp_path / "alone", Order(TOY, parts=("main",), seeds=2))
    assert files(tmp_path / "cluster") == files(tmp_path / "alone")


def test_a_cluster_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiments, "experiments", lambda: {"toy": TOY})
    monkeypatch.setattr("trimtab.cli.lab.CONNECT_SECONDS", 0.2)
    words = ["run", "toy", "--dask", "tcp://127.0.0.1:1", "--out", str(tmp_path)]
    result = CliRunner().invoke(lab, words, standalone_mode=False)
    assert isinstance(result.exception, Problem)
    assert "tcp://127.0.0.1:1" in str(result.exception)
