import pytest

from trimtab.model.problem import Problem
from trimtab_extender.settings import Settings, load


def test_the_environment_says_what_the_command_line_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_EXTENDER_PORT", "1234")
    monkeypatch.setenv("TRIMTAB_EXTENDER_HOLD_SECONDS", "7")
    monkeypatch.setenv("TRIMTAB_EXTENDER_ELECTION", "false")
    settings = load(["--port", "4321"])
    assert (settings.port, settings.hold_seconds, settings.election) == (4321, 7.0, False)


def test_a_pod_is_known_by_its_own_address_name_and_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("POD_IP", "127.0.3.4"), ("POD_NAME", "extender-7"), ("POD_NAMESPACE", "power")):
        monkeypatch.setenv(name, value)
    settings = load([])
    assert (settings.address, settings.identity, settings.namespace) == ("127.0.3.4", "extender-7", "power")


def test_outside_of_a_pod_only_loopback_is_listened_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POD_IP", raising=False)
    monkeypatch.delenv("POD_NAME", raising=False)
    assert load([]).address == "127.0.0.1"
    assert load([]).identity


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "abc"),
        ("port", "0"),
        ("metrics_port", "65536"),
        ("hold_seconds", "0"),
        ("tick_seconds", "never"),
        ("log_level", "LOUD"),
    ],
)
def test_a_bad_value_names_the_option_and_the_variable(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variable = f"TRIMTAB_EXTENDER_{name.upper()}"
    monkeypatch.setenv(variable, value)
    with pytest.raises(Problem) as caught:
        load([])
    assert variable in str(caught.value)
    assert value in str(caught.value)


def test_every_setting_is_described() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_help_names_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load(["--help"])
    printed = capsys.readouterr().out
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')}" in printed
