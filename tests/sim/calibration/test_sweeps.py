"""Closed-loop sweeps: how they are read, which of them judge, and how they are replayed."""

import gzip
from dataclasses import replace
from pathlib import Path

import pytest

from tests.sim.calibration.conversations import (
    CLIENT_HEADER,
    COST,
    FRONT_END,
    THINKS,
    config,
    made,
    write,
)
from trimtab.sim.calibration.closed_loop import replay
from trimtab.sim.calibration.sweeps import Second, Setting, Sweep, other_runs, read_sweeps, why_not
from trimtab.workload.fault import TraceError


@pytest.fixture(scope="module")
def plain() -> Sweep:
    return made(clients=4)


def test_a_name_says_how_a_run_was_made() -> None:
    assert Setting.of("tp2_bs64_offloadon") == Setting(2, 64, offload=True)
    assert Setting.of("tp8_bs512_offloadoff_again") == Setting(8, 512, offload=False)
    assert Setting.of("tp0_bs64_offloadon") is Setting.of("first try") is None


def test_what_was_written_is_read(tmp_path: Path, plain: Sweep) -> None:
    write(tmp_path, [plain])
    (read,), problems = read_sweeps(tmp_path / "vllm-kv-offload")
    assert not problems
    assert (read.id, read.setting, read.clients) == (plain.id, plain.setting, 4)
    for ours, theirs in zip(read.requests, plain.requests, strict=True):
        assert ours.at == pytest.approx(theirs.at)
        assert ours.latency.e2e == pytest.approx(theirs.latency.e2e)
        assert (ours.prompt_tokens, ours.conversation) == (theirs.prompt_tokens, theirs.conversation)
    assert read.fingerprint != replace(read, requests=read.requests[1:]).fingerprint


def test_what_only_some_servers_count_is_read_where_it_is(tmp_path: Path, plain: Sweep) -> None:
    folder = write(tmp_path, [plain]) / "vllm-kv-offload"
    shown = (folder / "server_metrics.csv").read_text(encoding="utf-8").splitlines()
    counted = [f"{shown[0]},num_preemptions_total", *(f"{line},{n}" for n, line in enumerate(shown[1:]))]
    (folder / "server_metrics.csv").write_text("\n".join(counted), encoding="utf-8")
    (read,), _ = read_sweeps(folder)
    assert (read.preemptions, plain.preemptions) == (len(plain.seconds) - 1, 0)
    assert read.known == 0.0, "the clients of these runs count nothing"


def test_runs_come_in_the_order_of_their_settings(tmp_path: Path, plain: Sweep) -> None:
    names = ["tp8_bs4_offloadoff", "tp1_bs16_offloadon", "tp1_bs16_offloadoff"]
    named = [replace(plain, id=name) for name in names]
    read, _ = read_sweeps(write(tmp_path, named) / "vllm-kv-offload")
    assert [sweep.id for sweep in read] == names[::-1]


def test_the_size_of_the_cache_is_told_from_its_usage(plain: Sweep) -> None:
    assert plain.kv_tokens() == pytest.approx(60_000, rel=0.05)
    unused = tuple(replace(second, kv_usage=0.001) for second in plain.seconds)
    assert replace(plain, seconds=unused).kv_tokens() is None


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("ttft_ms", "0", "ttft_ms: 0 ms is not above zero"),
        ("ttft_ms", "nan", "ttft_ms: 'nan' is not a finite number"),
        ("start_time_ms", "-1", "start_time_ms: -1 is below zero"),
        ("output_num_tokens", "0", "output_num_tokens: 0 tokens"),
    ],
)
def test_a_damaged_row_is_named_and_the_other_runs_are_read(
    tmp_path: Path, plain: Sweep, field: str, value: str, said: str
) -> None:
    folder = write(tmp_path, [plain, replace(plain, id="tp2_bs4_offloadoff")]) / "vllm-kv-offload"
    packed = folder / "client_metrics.csv.gz"
    unpacked = folder / "client_metrics.csv"
    lines = gzip.decompress(packed.read_bytes()).decode().splitlines()
    packed.unlink()
    cells = lines[2].split(",")
    cells[CLIENT_HEADER.index(field)] = value
    lines[2] = ",".join(cells)
    unpacked.write_text("\n".join(lines), encoding="utf-8")
    read, (problem,) = read_sweeps(folder)
    assert [sweep.id for sweep in read] == ["tp2_bs4_offloadoff"]
    assert "client_metrics.csv, row 3, " in problem
    assert said in problem


def test_what_is_not_there_is_said(tmp_path: Path, plain: Sweep) -> None:
    odd = replace(plain, id="first try")
    folder = write(tmp_path, [plain, odd]) / "vllm-kv-offload"
    (folder / "server_metrics.csv").unlink()
    (read,), problems = read_sweeps(folder)
    assert why_not(read, [read]) == "No metrics of its server are there."
    assert any("no file *server_metrics.csv" in problem for problem in problems)
    assert any("first try: its name does not say" in problem for problem in problems)


def test_other_load_on_the_server_excludes_a_run(plain: Sweep) -> None:
    assert why_not(plain, [plain]) == ""
    crowded = replace(plain, seconds=tuple(Second(s.at, s.kv_usage, 5) for s in plain.seconds))
    assert why_not(crowded, [crowded]) == (
        "Other load was on the server: 5 requests were open (median); the run has 4 clients."
    )


def slower(sweep: Sweep, times: float, devices: int) -> Sweep:
    requests = [
        replace(r, latency=replace(r.latency, e2e=r.latency.ttft + times * (r.latency.e2e - r.latency.ttft)))
        for r in sweep.requests
    ]
    setting = replace(sweep.setting, tensor_parallel=devices)
    return replace(sweep, requests=tuple(requests), setting=setting, id=f"on {devices}")


def test_more_devices_must_not_be_slower(plain: Sweep) -> None:
    bad, good = slower(plain, 1.3, 8), slower(plain, 1.1, 2)
    assert "something was wrong with the server" in why_not(bad, [plain, good, bad])
    assert "run tp1_bs4_offloadoff" in why_not(bad, [plain, good, bad])
    assert why_not(good, [plain, good, bad]) == why_not(plain, [plain, good, bad]) == ""
    other = replace(bad, setting=replace(bad.setting, max_num_seqs=16))
    assert why_not(other, [plain, other]) == "", "at another concurrency nothing can be said"


def test_a_replay_gives_the_times_that_made_the_run(plain: Sweep) -> None:
    replayed = replay(plain.requests, config(4), COST, FRONT_END)
    for asked, latency in zip(plain.requests, replayed.latencies, strict=True):
        assert latency.ttft == pytest.approx(asked.latency.ttft, rel=1e-6)
        assert latency.e2e == pytest.approx(asked.latency.e2e, rel=1e-6)
    assert 0.3 < replayed.found < 0.9, "what the turns before left"
    assert replayed.found_on_host == replayed.preemptions == 0


def test_clients_think_as_long_as_they_did(plain: Sweep) -> None:
    at_half_speed = replace(COST, base=2 * COST.base, mixed_floor=2 * COST.mixed_floor)
    replayed = replay(plain.requests, config(4), at_half_speed, FRONT_END)
    last = [max(r.answered_at for r in plain.requests if r.client == client) for client in range(4)]
    slow = [
        sum(
            latency.e2e + THINKS
            for asked, latency in zip(plain.requests, replayed.latencies, strict=True)
            if asked.client == client
        )
        for client in range(4)
    ]
    assert all(a > 1.3 * b for a, b in zip(slow, last, strict=True)), "the whole run takes longer"


def test_a_small_cache_with_a_host_recomputes_less() -> None:
    sweep = made(clients=8, kv_tokens=5000)
    without = replay(sweep.requests, config(8, 5000), COST, FRONT_END)
    with_host = replay(sweep.requests, config(8, 5000, offload=True), COST, FRONT_END)
    assert without.preemptions > 0
    assert with_host.found_on_host > 0.1
    assert with_host.found > without.found


def test_runs_recorded_otherwise_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "other_requests.csv"
    path.write_text("exp,user_id,trace_id,success\na,u,t,True\na,u,t,False\nb,u,t,True\n", encoding="utf-8")
    assert other_runs(tmp_path) == {"a": (2, 1), "b": (1, 0)}
    path.write_text("exp,user_id,success\na,u,True\n", encoding="utf-8")
    with pytest.raises(TraceError, match="trace_id: the column is missing"):
        other_runs(tmp_path)
