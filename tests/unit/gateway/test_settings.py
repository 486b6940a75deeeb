"""Settings from the environment and from options."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from trimtab_gateway.limits import Limits
from trimtab_gateway.settings import Settings


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POD_IP", raising=False)


def test_defaults_are_for_loopback_and_agree_with_the_limits() -> None:
    settings = Settings()
    assert (settings.address, settings.port, settings.admin_port, settings.metrics_port) == (
        "127.0.0.1",
        8000,
        8081,
        9090,
    )
    assert settings.limits() == Limits()


def test_a_pod_listens_on_its_own_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POD_IP", "10.0.0.7")
    assert Settings().address == "10.0.0.7"


def test_the_environment_sets_what_options_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_GATEWAY_MAX_BODY_BYTES", "1000")
    monkeypatch.setenv("TRIMTAB_GATEWAY_NAMESPACES", '["ai", "shop"]')
    monkeypatch.setenv("TRIMTAB_GATEWAY_PORT", "1")
    settings = Settings(_cli_parse_args=["--port", "2", "--endpoints", "e.yaml", "--stall-seconds", "1.5"])
    assert (settings.port, settings.endpoints, settings.namespaces) == (2, Path("e.yaml"), ("ai", "shop"))
    assert (settings.limits().body_bytes, settings.limits().stall_seconds) == (1000, 1.5)


@pytest.mark.parametrize(
    ("field", "value"),
    [("port", 65536), ("max_connections", 0), ("head_seconds", 0), ("drain_seconds", -1), ("default_concurrency", 0)],
)
def test_impossible_values_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(ValidationError, match=field):
        Settings(**{field: value})


def test_idle_connections_are_given_up_before_vllm_does_it() -> None:
    assert Settings().engine_idle_seconds < 5.0
