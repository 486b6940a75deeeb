"""However the network cuts bytes into reads, both sides of the gateway see the same messages."""

from itertools import pairwise
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from trimtab.api.openai import ErrorCode
from trimtab_gateway.client import ClientConnection
from trimtab_gateway.engine import AnswerHead, EngineConnection, EngineLink
from trimtab_gateway.limits import Limits
from trimtab_gateway.request import Incoming, Rejection
from trimtab_gateway.wire import whole_response


class Wire:
    """A transport that remembers."""

    def __init__(self) -> None:
        self.written = b""
        self.closing = False

    def write(self, data: bytes) -> None:
        self.written += data

    def writelines(self, parts: Any) -> None:
        self.written += b"".join(parts)

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading

    def is_closing(self) -> bool:
        return self.closing

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        self.closing = True

    abort = close


class Front:
    """A gateway that answers every request at once with its own body."""

    def __init__(self) -> None:
        self.limits = Limits(body_bytes=2000, head_bytes=1000, headers=20, pipelined=2)
        self.buffered_bytes = 0
        self.clients: set[ClientConnection] = set()
        self.seen: list[tuple[Any, ...]] = []

    def now(self) -> float:
        return 0.0

    def handle(self, client: ClientConnection, request: Incoming) -> None:
        body = bytes(request.body)
        self.seen.append((request.method, request.target, tuple(request.headers), body))
        self.buffered_bytes -= request.body_bytes
        request.body_bytes = 0
        client.write(whole_response(200, body, close=not request.keep_alive))
        client.end(keep_alive=request.keep_alive)

    def reject(self, client: ClientConnection, rejection: Rejection) -> None:
        self.seen.append((rejection.code,))
        client.linger()


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut data into reads at these places."""
    places = sorted({0, len(data), *(place % (len(data) + 1) for place in cuts)})
    return [data[begin:end] for begin, end in pairwise(places)]


def serve(reads: list[bytes]) -> tuple[list[tuple[Any, ...]], bytes]:
    front = Front()
    client, wire = ClientConnection(front), Wire()
    client.connection_made(wire)  # type: ignore[arg-type]
    for data in reads:
        if not wire.closing:
            client.data_received(data)
    client.connection_lost(None)
    assert front.buffered_bytes == 0
    assert front.clients == set()
    return front.seen, wire.written


token = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12).map(lambda name: f"x-{name}")
value = st.text("abcXYZ019 ,;=\"'", max_size=20).map(str.strip)
headers = st.lists(st.tuples(token, value), max_size=6)
content = st.binary(max_size=200)
cuts = st.lists(st.integers(0, 100_000), max_size=12)


def render(method: str, path: str, fields: list[tuple[str, str]], body: bytes, chunks: list[int] | None) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: gateway", *(f"{name}: {text}" for name, text in fields)]
    if chunks is None:
        return ("\r\n".join(lines) + f"\r\nContent-Length: {len(body)}\r\n\r\n").encode() + body
    framed = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in cut(body, chunks))
    return ("\r\n".join(lines) + "\r\nTransfer-Encoding: chunked\r\n\r\n").encode() + framed + b"0\r\n\r\n"


requests = st.lists(
    st.builds(
        lambda method, path, fields, body, chunks: (
            render(method, path, fields, body, chunks),
            (method.encode(), path.encode(), body),
        ),
        st.sampled_from(["POST", "GET", "DELETE"]),
        st.sampled_from(["/v1/chat/completions", "/v1/models?x=y", "/"]),
        headers,
        content,
        st.none() | st.lists(st.integers(0, 200), max_size=4),
    ),
    min_size=1,
    max_size=5,
)


@given(requests, cuts)
@settings(max_examples=120, deadline=None)
def test_requests_arrive_whole_and_in_order_however_they_are_cut(sent: list[Any], places: list[int]) -> None:
    data = b"".join(raw for raw, _ in sent)
    seen, written = serve(cut(data, places))
    assert [(method, target, body) for method, target, _, body in seen] == [meant for _, meant in sent]
    assert written == serve([data])[1]


noise = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [b"\r\n", b"\n", b"\r", b" ", b":", b"0\r\n\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"]
    ),
)


@given(requests, st.integers(0, 2000), noise, cuts)
@example([(b"POST / HTTP/1.1\r\nHost: g\r\nContent-Length: 5\r\n\r\nabcde", ())], 30, b"Content-Length: 4\r\n", [])
@settings(max_examples=120, deadline=None)
def test_damaged_input_is_read_the_same_however_it_is_cut(
    sent: list[Any], place: int, damage: bytes, places: list[int]
) -> None:
    """The verdict on bytes must not depend on how they are cut, or two parsers in a row could be played off."""
    data = b"".join(raw for raw, _ in sent)
    place %= len(data) + 1
    data = data[:place] + damage + data[place:]
    whole, pieces = serve([data]), serve(cut(data, places))
    assert pieces == whole
    codes = [each[0] for each in whole[0] if isinstance(each[0], ErrorCode)]
    assert len(codes) <= 1


class Recorder:
    """Whoever waits for an engine's answer."""

    def __init__(self) -> None:
        self.status = 0
        self.head: AnswerHead | None = None
        self.raw = b""
        self.content = b""
        self.end = ""

    def connected(self, connection: EngineConnection) -> None:
        raise AssertionError

    def unreachable(self, error: str) -> None:
        raise AssertionError

    def answer_started(self, head: AnswerHead) -> None:
        assert not self.head
        self.head = head

    def body(self, raw: bytes, content: list[bytes]) -> None:
        assert self.head
        assert not self.end
        self.raw += raw
        self.content += b"".join(content)

    def ended(self) -> None:
        assert not self.end
        self.end = "ended"

    def broken(self, error: str, *, invalid: bool, unanswered: bool) -> None:
        assert not self.end
        self.end = "invalid" if invalid else "lost"


def ask(reads: list[bytes]) -> tuple[Recorder, bool]:
    link = EngineLink("127.0.0.1", 1, Limits(head_bytes=1000), lambda: 0.0)
    connection, wire, recorder = EngineConnection(link), Wire(), Recorder()
    connection.connection_made(wire)  # type: ignore[arg-type]
    connection.send(recorder, b"", b"")
    for data in reads:
        if not wire.closing:
            connection.data_received(data)
    reusable = connection in link._idle
    connection.connection_lost(None)
    return recorder, reusable


answers = st.tuples(
    st.sampled_from([b"200 OK", b"404 Not Found", b"500 Internal Server Error"]),
    headers,
    content,
    st.none() | st.lists(st.integers(0, 200), max_size=4),
    st.booleans(),
)


def render_answer(answer: Any) -> tuple[bytes, bytes]:
    status, fields, body, chunks, interim = answer
    lines = b"".join(f"{name}: {text}\r\n".encode() for name, text in fields)
    if chunks is None:
        framing, framed = b"Content-Length: %d\r\n" % len(body), body
    else:
        framing = b"Transfer-Encoding: chunked\r\n"
        framed = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in cut(body, chunks)) + b"0\r\n\r\n"
    before = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" if interim else b""
    return before + b"HTTP/1.1 %b\r\n%b%b\r\n" % (status, lines, framing), framed


@given(answers, cuts)
@settings(max_examples=150, deadline=None)
def test_answers_pass_byte_for_byte_however_they_are_cut(answer: Any, places: list[int]) -> None:
    head, framed = render_answer(answer)
    recorder, reusable = ask(cut(head + framed, places))
    assert (recorder.end, recorder.raw, recorder.content) == ("ended", framed, answer[2])
    assert reusable
    assert recorder.head
    assert recorder.head.status == int(answer[0][:3])
    assert [name for name, _ in recorder.head.headers][: len(answer[1])] == [name.encode() for name, _ in answer[1]]


@given(answers, st.integers(0, 2000), cuts)
@settings(max_examples=120, deadline=None)
def test_an_answer_that_stops_early_never_counts_as_complete(answer: Any, place: int, places: list[int]) -> None:
    head, framed = render_answer(answer)
    data = (head + framed)[: place % len(head + framed)]
    recorder, reusable = ask(cut(data, places))
    assert recorder.end == "lost"
    assert not reusable
    assert framed.startswith(recorder.raw)


@given(answers, st.integers(0, 2000), noise, cuts)
@settings(max_examples=150, deadline=None)
def test_a_damaged_answer_ends_exactly_once_and_its_connection_is_used_again_only_if_it_was_sound(
    answer: Any, place: int, damage: bytes, places: list[int]
) -> None:
    head, framed = render_answer(answer)
    data = head + framed
    place %= len(data) + 1
    recorder, reusable = ask(cut(data[:place] + damage + data[place:], places))
    assert recorder.end in {"ended", "invalid", "lost"}
    assert not reusable or recorder.end == "ended"


@given(st.binary(max_size=400), cuts)
@settings(max_examples=120, deadline=None)
def test_arbitrary_bytes_from_either_side_are_survived(data: bytes, places: list[int]) -> None:
    serve(cut(data, places))
    assert ask(cut(data, places))[0].end in {"ended", "invalid", "lost"}
