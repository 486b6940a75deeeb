"""What the gateway sees of a stream that passes through: the first token, the gaps, and errors in disguise."""

from trimtab.api.openai import STREAM_ERROR_MARK

_TAIL_BYTES = len(STREAM_ERROR_MARK) - 1
_BUSY = b'"code": 503'
_BUSY_COMPACT = b'"code":503'


class EventStream:
    """Watches the content of one stream of server-sent events without keeping it.

    Engines report failures inside streams whose status is 200 (vLLM: overload as 503, a dead engine core as 500), so
    the status alone does not say how a request ended.
    """

    __slots__ = ("_tail", "failed", "overloaded")

    def __init__(self) -> None:
        self._tail = b""
        self.failed = False
        """Whether an error passed."""
        self.overloaded = False
        """Whether that error only said that the engine is busy."""

    def see(self, content: list[bytes]) -> None:
        """Look at what has come, in the order in which it came."""
        seen = self._tail + (content[0] if len(content) == 1 else b"".join(content))
        if STREAM_ERROR_MARK in seen:
            self.failed = True
            self.overloaded = _BUSY in seen or _BUSY_COMPACT in seen
        self._tail = seen[-_TAIL_BYTES:]

    @property
    def between_events(self) -> bool:
        """Whether the last event is complete, so that another one may follow."""
        return not self._tail or self._tail.endswith((b"\n\n", b"\r\n\r\n"))
