import pytest
from pydantic import ValidationError

from trimtab.obs.logging import LogFormat
from trimtab_operator.settings import OperatorSettings


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POD_IP", "POD_NAME"):
        monkeypatch.delenv(name, raising=False)


def test_without_an_environment_everything_is_on_loopback() -> None:
    settings = OperatorSettings()
    assert (settings.bind_address, settings.health_port, settings.metrics_port) == ("127.0.0.1", 8081, 8080)


def test_the_environment_sets_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POD_IP", "127.0.1.1")
    monkeypatch.setenv("POD_NAME", "operator-0")
    monkeypatch.setenv("TRIMTAB_OPERATOR_LOG_FORMAT", "json")
    monkeypatch.setenv("TRIMTAB_OPERATOR_CONCURRENCY", "3")
    settings = OperatorSettings()
    assert (settings.bind_address, settings.identity) == ("127.0.1.1", "operator-0")
    assert (settings.log_format, settings.concurrency) == (LogFormat.JSON, 3)


def test_a_bad_value_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_OPERATOR_CONCURRENCY", "0")
    with pytest.raises(ValidationError, match="concurrency"):
        OperatorSettings()


def test_every_setting_explains_itself() -> None:
    assert all(field.description for field in OperatorSettings.model_fields.values())
