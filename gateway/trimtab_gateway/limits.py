"""What one connection may cost."""

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on sizes and times.

    Attributes:
        head_bytes: request line and headers of one request, or of one answer.
        headers: how many headers a request may have.
        body_bytes: body of one request.
        buffered_bytes: bodies of all requests that are received or wait.
        connections: clients connected at once.
        pipelined: complete requests that one client may have waiting behind the one that is served.
        head_seconds: from the first byte of a request to the end of its headers, and from the connection to that byte.
        body_seconds: from the end of the headers to the end of the body.
        idle_seconds: between two requests of one client.
        stall_seconds: how long a client may leave its answer unread.
        linger_seconds: how long what a client still sends is discarded after its connection was refused.
        connect_seconds: to reach an engine.
        answer_seconds: from the request to an engine to the head of its answer.
        silence_seconds: between two reads of an engine's answer.
        engine_idle_seconds: how long an unused connection to an engine is kept; vLLM closes its side after 5 s.
        retries: how often a request that no engine has seen is given to another one.
        write_buffer_bytes: unsent bytes of an answer at which its engine is no longer read.
    """

    head_bytes: int = 32 * KIB
    headers: int = 100
    body_bytes: int = 16 * MIB
    buffered_bytes: int = 256 * MIB
    connections: int = 10_000
    pipelined: int = 16
    head_seconds: float = 10.0
    body_seconds: float = 60.0
    idle_seconds: float = 75.0
    stall_seconds: float = 60.0
    linger_seconds: float = 2.0
    connect_seconds: float = 3.0
    answer_seconds: float = 600.0
    silence_seconds: float = 300.0
    engine_idle_seconds: float = 4.0
    retries: int = 2
    write_buffer_bytes: int = 64 * KIB
