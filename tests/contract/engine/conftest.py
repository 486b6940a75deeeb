"""The engine under test: `TRIMTAB_ENGINE_URL`, or a simulator that is started for the session.

A real vLLM is started with what `SIMULATOR` says (same flags), a model of any kind, and `VLLM_SERVER_DEV_MODE=1`.
Tests that need a feature which the engine at hand does not offer are skipped, and say which one.
"""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest

from tests.contract.engine.client import Engine, Facts

SIMULATOR = [
    "engine", "--model", "tiny", "--profile", "tiny", "--port", "0", "--log-format", "json", "--speed", "1",
    "--max-model-len", "1024", "--max-num-seqs", "4", "--block-size", "32", "--scheduling-policy", "priority",
    "--enable-prefix-caching", "--enable-request-id-headers", "--enable-prompt-tokens-details",
    "--enable-server-load-tracking", "--enable-sleep-mode",
]  # fmt: skip


@pytest.fixture(scope="session")
def engine_url() -> Iterator[str]:
    if url := os.environ.get("TRIMTAB_ENGINE_URL"):
        yield url.rstrip("/")
        return
    program = str(Path(sys.executable).with_name("trimtab"))
    with subprocess.Popen([program, *SIMULATOR], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        try:
            yield json.loads(line)["url"]
        finally:
            process.terminate()
            process.communicate(timeout=10)


@pytest.fixture(scope="session")
def facts(engine_url: str) -> Facts:
    return Facts.of(engine_url)


@pytest.fixture
async def api(engine_url: str, facts: Facts) -> AsyncIterator[Engine]:
    limits = httpx2.Limits(max_connections=100)
    async with httpx2.AsyncClient(base_url=engine_url, timeout=30, limits=limits) as client:
        yield Engine(client, facts)
