"""`trimtab engine` as a process: its start, its logs, and how it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

PROGRAM = str(Path(sys.executable).with_name("trimtab"))


class Process:
    """A running engine."""

    def __init__(self, *arguments: str, env: dict[str, str] | None = None) -> None:
        command = [PROGRAM, "engine", "--model", "m", "--log-format", "json", *arguments]
        # POD_IP and the variables of vLLM would change what is tested.
        clean = {name: value for name, value in os.environ.items() if name != "POD_IP" and not name.startswith("VLLM")}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**clean, **(env or {})})
        assert self.process.stderr is not None
        self.first = json.loads(self.process.stderr.readline())
        self.http = httpx2.Client(base_url=self.first["url"], timeout=20)

    def stream_in_background(self, tokens: int) -> tuple[threading.Thread, list[str]]:
        """Read a stream in a thread; returns once its first token is there."""
        lines: list[str] = []
        begun = threading.Event()
        body = {"prompt": "x", "max_tokens": tokens, "ignore_eos": True, "stream": True}

        def read() -> None:
            with self.http.stream("POST", "/v1/completions", json=body) as response:
                for line in response.iter_lines():
                    lines.extend([line] if line else [])
                    begun.set()

        thread = threading.Thread(target=read)
        thread.start()
        assert begun.wait(10)
        return thread, lines

    def ended(self) -> tuple[int, dict[str, Any]]:
        """Wait for the end; returns the exit code and the last log line."""
        assert self.process.stderr is not None
        code = self.process.wait(15)
        return code, json.loads(self.process.stderr.read().strip().splitlines()[-1])

    def close(self) -> None:
        self.http.close()
        self.process.kill()
        self.process.communicate()


Run = Callable[..., Process]


@pytest.fixture
def run() -> Iterator[Run]:
    started: list[Process] = []

    def go(*arguments: str, env: dict[str, str] | None = None) -> Process:
        started.append(Process("--port", "0", *arguments, env=env))
        return started[-1]

    yield go
    for process in started:
        process.close()


def refused(*arguments: str) -> tuple[int, str]:
    """Start an engine that must not start; returns its exit code and what it said."""
    command = [PROGRAM, "engine", "--model", "m", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return done.returncode, done.stderr


def test_one_line_at_the_start_and_one_at_the_end(run: Run) -> None:
    engine = run("--speed", "50")
    assert engine.first["message"] == "engine serves"
    assert (engine.first["model"], engine.first["profile"], engine.first["speed"]) == ("m", "tiny", 50.0)
    engine.http.post("/v1/completions", json={"prompt": "x", "max_tokens": 5, "ignore_eos": True})
    engine.process.send_signal(signal.SIGTERM)
    code, last = engine.ended()
    assert code == 0
    assert (last["message"], last["generation_tokens"]) == ("engine stopped", 5)


def test_sigterm_aborts_open_streams_and_closes_the_listener(run: Run) -> None:
    engine = run()
    thread, lines = engine.stream_in_background(3000)
    engine.process.send_signal(signal.SIGTERM)
    thread.join(10)
    last, done = lines[-2:]
    assert done == "data: [DONE]"
    chunk = json.loads(last.removeprefix("data: "))
    assert chunk["choices"][0]["finish_reason"] == "abort"
    assert "system_fingerprint" in chunk
    assert engine.ended()[0] == 0
    with pytest.raises(httpx2.ConnectError):
        engine.http.get("/health")


def test_shutdown_timeout_lets_streams_finish_while_new_requests_fail(run: Run) -> None:
    engine = run("--shutdown-timeout", "20", "--speed", "4")
    thread, lines = engine.stream_in_background(1500)
    engine.process.send_signal(signal.SIGTERM)
    body = {"prompt": "x", "max_tokens": 1}
    while (response := engine.http.post("/v1/completions", json=body)).status_code == 200:
        assert thread.is_alive(), "the signal has not been seen in time"
    assert engine.http.get("/health").status_code == 200
    assert (response.status_code, response.json()) == (
        500,
        {
            "error": {
                "message": "cannot schedule new futures after shutdown",
                "type": "InternalServerError",
                "param": None,
                "code": 500,
            }
        },
    )
    thread.join(20)
    assert lines[-1] == "data: [DONE]"
    assert json.loads(lines[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
    assert engine.ended()[0] == 0


def test_shutdown_timeout_ends(run: Run) -> None:
    engine = run("--shutdown-timeout", "0.2")
    thread, lines = engine.stream_in_background(3000)
    engine.process.send_signal(signal.SIGTERM)
    thread.join(10)
    assert json.loads(lines[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "abort"
    assert engine.ended()[0] == 0


def test_the_address_comes_from_the_pod(run: Run) -> None:
    engine = run(env={"POD_IP": "127.0.0.7"})
    assert engine.first["url"].startswith("http://127.0.0.7:")
    assert engine.http.get("/health").status_code == 200


def test_vllms_environment_variables_count(run: Run) -> None:
    engine = run(
        "--enable-lora",
        env={"VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", "VLLM_API_KEY": "k"},
    )
    assert engine.http.get("/is_sleeping").status_code == 200
    assert engine.http.get("/v1/models").status_code == 401
    key = {"authorization": "Bearer k"}
    loaded = engine.http.post("/v1/load_lora_adapter", json={"lora_name": "a", "lora_path": "/x"}, headers=key)
    assert loaded.status_code == 200


def test_flags_of_vllm_that_change_nothing_are_accepted(run: Run) -> None:
    engine = run("--enforce-eager", "--dtype", "bfloat16", "--gpu-memory-utilization", "0.9", "--disable-log-requests")
    assert engine.http.get("/health").status_code == 200


def test_limits_reach_the_engine(run: Run) -> None:
    engine = run("--block-size", "32", "--max-model-len", "512", "--max-num-seqs", "3")
    assert engine.http.get("/v1/models").json()["data"][0]["max_model_len"] == 512
    scrape = engine.http.get("/metrics").text
    assert 'block_size="32"' in scrape
    assert 'num_gpu_blocks="1024"' in scrape, "as many tokens as the profile's 2049 blocks of 16"


def test_what_the_gpu_had_to_drop_comes_back_from_the_host(run: Run) -> None:
    engine = run(
        "--profile", "llama-3.3-70b-fp4-b200-tp1", "--kv-offloading-size", "1", "--num-gpu-blocks-override", "40",
        "--max-model-len", "600", "--speed", "20",
    )  # fmt: skip
    for word in ("alpha", "beta", "alpha"):
        body = {"model": "m", "prompt": " ".join([word] * 500), "max_tokens": 2}
        assert engine.http.post("/v1/completions", json=body).status_code == 200
    counters = (line.split() for line in engine.http.get("/metrics").text.splitlines() if "_total{" in line)
    values = {name.partition("{")[0]: float(value) for name, value in counters}
    assert values["vllm:external_prefix_cache_queries_total"] == values["vllm:prefix_cache_queries_total"] == 1500
    assert 0 < values["vllm:external_prefix_cache_hits_total"] < 500


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--quantization", "fp8"], 2, "No such option"),
        (["--profile", "nope"], 1, "there is no profile 'nope'"),
        (["--profile", "nope"], 1, "tiny"),
        (["--speed", "0"], 1, "--speed must be above zero"),
        (["--max-model-len", "99999"], 1, "above the profile's 4096 tokens"),
        (["--num-gpu-blocks-override", "10"], 1, "above the 144 tokens that the KV cache holds"),
        (["--lora-modules", "a"], 1, "is not NAME=PATH"),
        (["--kv-offloading-size", "1"], 1, "does not say how large the KV cache of a token is"),
        (["--scheduling-policy", "lifo"], 2, "is not one of"),
        (["--host", "192.0.2.1"], 1, "cannot listen on 192.0.2.1:8000"),
    ],
)
def test_what_cannot_start_says_why(arguments: list[str], code: int, said: str) -> None:
    exit_code, words = refused(*arguments)
    assert said in words
    assert exit_code == code


def test_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said = refused("--port", str(port))
    assert code == 1
    assert f"cannot listen on 127.0.0.1:{port}" in said
    assert "--port" in said


def test_help_names_the_profiles() -> None:
    done = subprocess.run([PROGRAM, "engine", "--help"], capture_output=True, text=True, check=True)
    assert "llama-3.1-8b-h100" in done.stdout
    assert "--speed" in done.stdout
