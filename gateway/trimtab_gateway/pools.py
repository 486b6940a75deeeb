"""What the gateway serves: pools with their models, service levels and engines. Values only."""

from dataclasses import dataclass

from trimtab.decide.queueing import Bounds
from trimtab.model.ref import Ref


@dataclass(frozen=True, slots=True)
class Level:
    """A service level that a request may choose.

    Attributes:
        name: unique in its pool.
        ttft_seconds: promised time to the first token of a stream; None when nothing is promised.
    """

    name: str
    ttft_seconds: float | None = None


BEST_EFFORT = Level("")
Precedence = tuple[str, str]
"""When a pool was made, and its name: the lowest one gets a model that several pools claim."""
_DEFAULT_BOUNDS = Bounds()


@dataclass(frozen=True, slots=True)
class EngineAddress:
    """Where one engine answers.

    Attributes:
        name: unique in its pool; the pod's name, or `host:port`.
        host: an address or a name.
        port: TCP port.
        concurrency: requests that it may carry at once.
        ready: whether it may get new requests.
    """

    name: str
    host: str
    port: int
    concurrency: int
    ready: bool = True


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """One pool.

    Attributes:
        name: how metrics and messages call it: `namespace/name` of a ServingPool, or the name in the endpoints file.
        models: what clients may put into `model`; the first one is the pool's own, adapters included.
        levels: service levels that requests may choose.
        default_level: what a request gets that chooses none.
        bounds: how much waiting it allows.
        engines: who serves it.
        since: when it was made, in an order that sorts; empty when pools cannot claim the same model.
    """

    name: str
    models: tuple[str, ...]
    levels: tuple[Level, ...] = ()
    default_level: Level = BEST_EFFORT
    bounds: Bounds = _DEFAULT_BOUNDS
    engines: tuple[EngineAddress, ...] = ()
    since: str = ""

    @property
    def precedence(self) -> Precedence:
        """Where the pool stands among pools that claim the same model."""
        return self.since, self.name

    @property
    def subject(self) -> Ref:
        """The pool as the subject of a reason."""
        namespace, _, name = self.name.rpartition("/")
        return Ref("ServingPool", namespace, name)

    def level(self, name: str) -> Level | None:
        """Return the level of a name, the default level for an empty name, None for an unknown one."""
        if not name:
            return self.default_level
        return next((level for level in self.levels if level.name == name), None)
