"""Which pool serves which model, kept current one pool at a time."""

from bisect import insort
from dataclasses import dataclass

from trimtab.api.openai import model_list
from trimtab_gateway.pools import PoolConfig, Precedence


@dataclass(frozen=True, slots=True)
class Contest:
    """A model that several pools claim.

    Attributes:
        model: what they claim.
        owner: the pool that serves it.
        ignored: the other ones, oldest first.
    """

    model: str
    owner: str
    ignored: tuple[str, ...]


class ModelIndex:
    """The models of all pools. Where several pools claim one, the pool of the lowest precedence has it.

    `claim` and `release` cost as much as their pool has models, however many pools there are.
    """

    __slots__ = ("_claims", "_contests", "_listing", "_names", "_pools")

    def __init__(self) -> None:
        self._pools: dict[str, tuple[Precedence, tuple[str, ...]]] = {}
        self._claims: dict[str, list[Precedence]] = {}
        self._contests: dict[str, Contest] = {}
        self._names: list[str] | None = None
        self._listing: bytes | None = None

    @property
    def contested(self) -> int:
        """How many models more than one pool claims."""
        return len(self._contests)

    def owner(self, model: str) -> str | None:
        """Return the name of the pool that serves a model."""
        claims = self._claims.get(model)
        return claims[0][1] if claims else None

    def names(self) -> list[str]:
        """Return all models, sorted."""
        if self._names is None:
            self._names = sorted(self._claims)
        return self._names

    def listing(self) -> bytes:
        """Return the body of `GET /v1/models`."""
        if self._listing is None:
            self._listing = model_list((name, self._claims[name][0][1]) for name in self.names())
        return self._listing

    def has(self, pool: PoolConfig) -> bool:
        """Whether a pool is known with exactly these models."""
        return self._pools.get(pool.name) == (pool.precedence, pool.models)

    def claim(self, pool: PoolConfig) -> list[Contest]:
        """Set the models of a pool; return what is newly contested, or newly owned by another pool."""
        if self.has(pool):
            return []
        before = self._drop(pool.name)
        self._pools[pool.name] = (pool.precedence, pool.models)
        for model in dict.fromkeys(pool.models):
            insort(self._claims.setdefault(model, []), pool.precedence)
        return self._settle(before + pool.models)

    def release(self, name: str) -> list[Contest]:
        """Forget a pool; return what is now owned by another pool and still contested."""
        return self._settle(self._drop(name))

    def _drop(self, name: str) -> tuple[str, ...]:
        """Take a pool's claims back and return its models."""
        precedence, models = self._pools.pop(name, (("", name), ()))
        for model in dict.fromkeys(models):
            self._claims[model].remove(precedence)
            if not self._claims[model]:
                del self._claims[model]
        return models

    def _settle(self, models: tuple[str, ...]) -> list[Contest]:
        self._names = self._listing = None
        news = []
        for model in dict.fromkeys(models):
            before = self._contests.pop(model, None)
            owner, *ignored = (name for _, name in self._claims.get(model, (("", ""),)))
            if not ignored:
                continue
            after = self._contests[model] = Contest(model, owner, tuple(ignored))
            if before is None or before.owner != owner or not set(ignored) <= set(before.ignored):
                news.append(after)
        return news
