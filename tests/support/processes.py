"""Trimtab's own processes, run by a test against a cluster with the rights that the chart grants them."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support import accounts

_READY_SECONDS = 30.0
_BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Running:
    """A process of ours.

    Attributes:
        name: Its console script.
        process: The process; `kill`, `send_signal` and `wait` are for tests of faults.
        log: What it printed.
        ready: Address that answers 200 when it is ready.
    """

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    ready: str

    @property
    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(self.ready, timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while not self.is_ready:
            code = self.process.poll()
            end = "\n".join(self.log.read_text().splitlines()[-15:])
            assert code is None, f"{self.name} ended with {code}:\n{end}"
            assert time.monotonic() < deadline, f"{self.name} is not ready:\n{end}"
            time.sleep(0.05)


@contextmanager
def running(name: str, settings: Mapping[str, object], kubeconfig: Path, ready: str, log: Path) -> Iterator[Running]:
    """Run a console script of ours with these settings until the block ends.

    Args:
        name: E.g. `trimtab-operator`.
        settings: Its settings by name; they are passed as environment variables with the process's own prefix.
        kubeconfig: Administrator's access to the API server; the process gets the chart's rights and no others.
        ready: Address of its readiness probe.
        log: Where its output goes.
    """
    prefix = name.upper().replace("-", "_")
    environment = {f"{prefix}_{key.upper()}": str(value) for key, value in settings.items()}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(_BIN / name)],
            env={**os.environ, **environment, "KUBECONFIG": str(accounts.kubeconfig_for(name, kubeconfig))},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Running(name, process, log, ready)
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
