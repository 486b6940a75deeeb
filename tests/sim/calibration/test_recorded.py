"""Reading recorded runs: every setting is an input, and every fault is named by file, row and field."""

import gzip
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.sim.calibration.sweeps import SETUP, sweep, write
from trimtab.sim.calibration.recorded import find_runs, read_run, read_setup
from trimtab.workload.fault import TraceError


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = replace(sweep(), setup=replace(SETUP, prefix_tokens=32, tensor_parallel=2, strategies=4))
    path = write(run, tmp_path)
    assert find_runs(tmp_path) == [path]
    assert read_run(path) == run


def test_runs_are_found_by_pattern_plain_or_compressed(tmp_path: Path) -> None:
    zipped = write(sweep(), tmp_path)
    plain = tmp_path / "another-name_otel_requests.csv"
    plain.write_bytes(gzip.decompress(zipped.read_bytes()))
    (tmp_path / "sweep_engine_log.csv").write_text("time\n")
    assert find_runs(tmp_path) == [plain, zipped]


def settings(tmp_path: Path, engine: object, workload: object) -> tuple[Path, Path]:
    paths = tmp_path / "a_exp-config.yaml", tmp_path / "a_workload.yaml"
    for path, content in zip(paths, (engine, workload), strict=True):
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return paths


def test_settings_that_are_absent_have_the_engines_defaults(tmp_path: Path) -> None:
    setup = read_setup(*settings(tmp_path, {"model": "x/y"}, {}))
    assert (setup.model, setup.tensor_parallel, setup.block_size, setup.prefix_caching) == ("x/y", 1, 16, True)
    assert (setup.max_num_batched_tokens, setup.prefix_tokens, setup.rate_type) == (8192, 0, "sweep")


def test_settings_may_be_spelled_in_several_ways(tmp_path: Path) -> None:
    engine = {"model": "x/y", "tensor-parallel-size": 4, "gpu": "NVIDIA H100 80GB HBM3", "enable_prefix_caching": False}
    setup = read_setup(
        *settings(tmp_path, engine, {"rate-type": "constant", "data": "prompt_tokens=70,prefix_tokens=48"})
    )
    assert (setup.tensor_parallel, setup.accelerator, setup.prefix_caching) == (4, "h100", False)
    assert (setup.rate_type, setup.prefix_tokens) == ("constant", 48)


@pytest.mark.parametrize(
    ("engine", "workload", "field"),
    [
        ({"tensor_parallelism": 1}, {}, "model"),
        ({"model": "x", "max_num_seqs": "many"}, {}, "max_num_seqs"),
        ({"model": "x", "tensor_parallelism": 0}, {}, "tensor_parallelism"),
        ({"model": "x", "max_num_batched_tokens": True}, {}, "max_num_batched_tokens"),
        ({"model": "x", "gpu_memory_utilization": -0.5}, {}, "gpu_memory_utilization"),
        ({"model": "x"}, {"data": {"prefix_tokens": -3}}, "prefix_tokens"),
        ({"model": "x"}, {"rate-type": "sweep", "rate": 1.5}, "rate"),
        ("[a, b]", {}, "not a mapping"),
        ("model: [", {}, "not YAML"),
    ],
)
def test_a_faulty_setting_is_named(tmp_path: Path, engine: object, workload: object, field: str) -> None:
    with pytest.raises(TraceError, match=field) as caught:
        read_setup(*settings(tmp_path, engine, workload))
    assert caught.value.path in {str(tmp_path / "a_exp-config.yaml"), str(tmp_path / "a_workload.yaml")}


def test_a_run_without_settings_is_a_fault(tmp_path: Path) -> None:
    path = write(sweep(), tmp_path)
    (tmp_path / "sweep_exp-config.yaml").unlink()
    with pytest.raises(TraceError, match="a run needs its settings"):
        read_run(path)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("latency.e2e", "soon", "not a finite number"),
        ("latency.time_to_first_token", "-1", "not above zero"),
        ("latency.time_in_model_prefill", "0", "not above zero"),
        ("usage.prompt_tokens", "0", "token"),
        ("usage.completion_tokens", "2.5", "2.5"),
        ("arrival_s", "nan", "not a finite number"),
    ],
)
def test_a_faulty_row_is_named(tmp_path: Path, column: str, value: str, message: str) -> None:
    path = write(sweep(), tmp_path)
    header, *rows = gzip.decompress(path.read_bytes()).decode().splitlines()
    cells = rows[4].split(",")
    cells[header.split(",").index(column)] = value
    path.write_bytes(gzip.compress("\n".join([header, *rows[:4], ",".join(cells), *rows[5:]]).encode()))
    with pytest.raises(TraceError, match=message) as caught:
        read_run(path)
    assert (caught.value.row, caught.value.field, caught.value.path) == (6, column, str(path))


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = write(sweep(), tmp_path)
    text = gzip.decompress(path.read_bytes()).decode().replace("latency.e2e", "latency.total")
    path.write_bytes(gzip.compress(text.encode()))
    with pytest.raises(TraceError, match="the column is missing") as caught:
        read_run(path)
    assert caught.value.field == "latency.e2e"


def test_requests_without_an_answer_are_left_out_and_said(tmp_path: Path) -> None:
    path = write(sweep(), tmp_path)
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    lines[3] = lines[3].rsplit(",", 1)[0] + ",0"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    run = read_run(path)
    assert len(run.requests) == len(sweep().requests) - 1
    assert run.remarks == ("1 requests without an answer are left out.",)


def test_a_run_of_one_request_is_a_fault(tmp_path: Path) -> None:
    path = write(replace(sweep(), requests=()), tmp_path)
    with pytest.raises(TraceError, match="fewer than two requests"):
        read_run(path)


def test_the_client_says_when_its_stages_were(tmp_path: Path) -> None:
    path = write(sweep(), tmp_path)
    client = tmp_path / "sweep_guidellm_requests.csv"
    rows = ["0,synchronous,", "510,synchronous,", "6000,throughput,", ",throughput,", "9000,constant,2.5"]
    client.write_text("\n".join(["request_start_ms,strategy,rate", *rows]))
    stages = read_run(path).client_stages
    assert [(stage.name, stage.start, stage.requests) for stage in stages] == [
        ("synchronous", 0.0, 2),
        ("throughput", 6.0, 1),
        ("constant 2.5/s", 9.0, 1),
    ]
    client.write_text("strategy,tokens\nsynchronous,1\n")
    assert read_run(path).client_stages == (), "nothing there says when"
    client.write_text("strategy,start\nsynchronous,soon\n")
    faulty = read_run(path)
    assert faulty.client_stages == ()
    assert "client's record was not used" in faulty.remarks[0]
    assert "row 2, start" in faulty.remarks[0]
