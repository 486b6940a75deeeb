"""Errors inside streams are seen however they are cut, and never where there is none."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from trimtab_gateway.events import EventStream

GOOD = b'data: {"choices":[{"delta":{"content":"{\\"error\\": data: "}}]}\n\n'
BAD = b'data: {"error": {"message": "m", "code": 500}}\n\n'
BUSY = b'data: {"error": {"message": "m", "type": "x", "param": null, "code": 503}}\n\n'

parts = st.lists(st.integers(0, 400), max_size=8)


def see(data: bytes, places: list[int]) -> EventStream:
    stream = EventStream()
    ends = sorted({min(place, len(data)) for place in places} | {0, len(data)})
    for begin, end in pairwise(ends):
        stream.see([data[begin:end]])
    return stream


@given(parts)
def test_an_error_is_seen_however_it_is_cut(places: list[int]) -> None:
    stream = see(GOOD + BAD, places)
    assert (stream.failed, stream.overloaded) == (True, False)


@given(parts)
def test_good_events_are_no_error_however_they_are_cut(places: list[int]) -> None:
    assert not see(GOOD * 3, places).failed


def test_a_busy_engine_is_told_from_a_broken_one() -> None:
    stream = see(GOOD + BUSY, [])
    assert (stream.failed, stream.overloaded) == (True, True)


def test_several_parts_of_one_read_are_one_text() -> None:
    stream = EventStream()
    stream.see([BAD[:9], BAD[9:]])
    assert stream.failed


def test_whether_another_event_may_follow() -> None:
    stream = EventStream()
    assert stream.between_events
    stream.see([b"data: x"])
    assert not stream.between_events
    stream.see([b"\n\n"])
    assert stream.between_events
    stream.see([b"data: x\r\n\r\n"])
    assert stream.between_events
    stream.see([b"data: y\n"])
    assert not stream.between_events
