"""What the queue of a gateway loads: a program that starts in every pod needs no solver."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        ("trimtab.decide.queueing", ("scipy", "numpy", "sklearn")),
        ("trimtab.decide.queueing.models_queue, trimtab.decide.queueing.qlm", ("scipy", "sklearn")),
    ],
)
def test_the_queues_load_no_solver(modules: str, absent: tuple[str, ...]) -> None:
    program = f"import sys, {modules}; print([name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
