import pytest

from trimtab.workload.level import ServiceLevel, parse_duration, parse_level, short_duration


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("interactive:ttft=2s,tpot=60ms:0.8", ServiceLevel("interactive", 2.0, 0.06, None, 0.8)),
        ("batch:completion=1h", ServiceLevel("batch", None, None, 3600.0, 1.0)),
        ("a-1:tpot=1.5s:3", ServiceLevel("a-1", None, 1.5, None, 3.0)),
    ],
)
def test_levels_are_read(text: str, level: ServiceLevel) -> None:
    assert parse_level(text) == level


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the name '' is not a lower-case DNS label"),
        ("Chat:ttft=2s", "the name 'Chat' is not a lower-case DNS label"),
        ("chat", "'' is not one of ttft=, tpot=, completion="),
        ("chat:", "'' is not one of"),
        ("chat:ttft=2", "'2' is not a duration; write 250ms, 2s"),
        ("chat:ttft=0s", "'ttft=0s' cannot be met"),
        ("chat:ttft=2s,ttft=3s", "'ttft=3s' is not one of"),
        ("chat:latency=2s", "'latency=2s' is not one of"),
        ("chat:ttft=2s:0", "the share '0' is not a number above 0"),
        ("chat:ttft=2s:half", "the share 'half' is not a number above 0"),
        ("chat:ttft=2s:inf", "the share 'inf' is not a number above 0"),
        ("chat:ttft=2s:1:1", "the share '1:1' is not a number above 0"),
    ],
)
def test_faulty_levels_say_which_part(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"level|duration") as caught:
        parse_level(text)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "2", "s", "-1s", "1 s", "1d", "1s1", "x1s", "1e3s", "1.s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.06, "60 ms"), (2, "2 s"), (1.5, "1.5 s"), (600, "10 min"), (3600, "1 h"), (90, "90 s")]
)
def test_durations_are_written_as_people_write_them(seconds: float, text: str) -> None:
    assert short_duration(seconds) == text


def test_targets_are_described() -> None:
    assert parse_level("a:ttft=2s,tpot=60ms").described == "TTFT ≤ 2 s, TPOT ≤ 60 ms"
