import urllib.error
import urllib.request

import pytest

from trimtab_operator.pulse import Pulse, serve


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_loop_that_ticks_is_live_and_one_that_hangs_is_not() -> None:
    time = Time()
    pulse = Pulse(30, monotonic=time)
    time.now += 29
    assert pulse.livez()[0] == 200
    time.now += 2
    status, text = pulse.livez()
    assert status == 503
    assert "31 s" in text
    pulse.beat()
    assert pulse.livez()[0] == 200


def test_ready_means_that_everything_awaited_is_synced() -> None:
    pulse = Pulse(30, {"pods", "deployments"})
    assert pulse.readyz() == (503, "not synced yet: deployments, pods\n")
    pulse.synced("pods")
    pulse.synced("deployments")
    assert pulse.readyz()[0] == 200


def test_the_pages_are_served_from_a_thread() -> None:
    pulse = Pulse(30, {"pods"})
    with serve(pulse, "127.0.0.1", 0) as port:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=5) as answer:
            assert answer.status == 200
        for page, status in (("readyz", 503), ("nonsense", 404)):
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=5)
            assert caught.value.code == status
            caught.value.close()
