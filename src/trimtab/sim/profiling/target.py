"""What is measured: something that answers requests and says when each token came."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to be sent.

    Attributes:
        prompt_tokens: How long its prompt should be.
        output_tokens: How long its answer should be.
    """

    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Seen:
    """One request that was answered in full. Times are seconds of one clock.

    Attributes:
        prompt_tokens: As the engine counted.
        output_tokens: As the engine counted.
        sent_at: When the client began to send it.
        pieces: When each piece of the answer came, ascending; a piece is a token, or a few of them.
        cached_tokens: Prompt tokens that the engine found in its prefix cache, if it tells.
    """

    prompt_tokens: int
    output_tokens: int
    sent_at: float
    pieces: tuple[float, ...]
    cached_tokens: int = 0

    @property
    def first_at(self) -> float:
        """When the first token came."""
        return self.pieces[0]

    @property
    def last_at(self) -> float:
        """When the last token came."""
        return self.pieces[-1]

    @property
    def ttft(self) -> float:
        """Seconds from sending to the first token."""
        return self.first_at - self.sent_at

    @property
    def e2e(self) -> float:
        """Seconds from sending to the last token."""
        return self.last_at - self.sent_at

    @property
    def time_between_tokens(self) -> float | None:
        """Mean seconds between tokens; None for a single one."""
        return (self.last_at - self.first_at) / (self.output_tokens - 1) if self.output_tokens > 1 else None

    def tokens_by(self, time: float) -> float:
        """How many tokens had come by `time`; between the pieces' counts where a piece holds several."""
        pieces = sum(piece <= time for piece in self.pieces)
        if pieces <= 1 or len(self.pieces) <= 1:
            return float(pieces)
        return 1 + (pieces - 1) * (self.output_tokens - 1) / (len(self.pieces) - 1)


class Target(Protocol):
    """Something that answers requests."""

    def clock(self) -> float:
        """Return the time, in seconds, of the clock that `Seen` has its times from."""

    async def serve(self, asks: Sequence[Ask], clients: int, seconds: float) -> list[Seen]:
        """Let `clients` clients send `asks`, in their order, each its next one when its last one is answered.

        Args:
            asks: What is sent, the first `clients` of them at once.
            clients: Requests under way at any time.
            seconds: After so long nothing more is begun; what is under way is waited for.

        Returns:
            What was answered in full, in the order of sending.

        Raises:
            Problem: So much failed that nothing can be concluded.
        """
