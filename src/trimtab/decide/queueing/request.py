"""What a queue knows about one request; never its content."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Request:
    """One request that asks to be served.

    Attributes:
        key: unique in its queue, growing with arrival; breaks ties.
        arrived_at: when its last byte was received, in seconds of the caller's clock.
        model: what the client asked for.
        level: the service level that it chose, empty when the pool declares none.
        predicted_tokens: how long its answer will be, as predicted at its arrival; None without a prediction.
        input_tokens: tokens of its prompt, 0 when unknown.
    """

    key: int
    arrived_at: float
    model: str = ""
    level: str = ""
    predicted_tokens: float | None = None
    input_tokens: int = 0
