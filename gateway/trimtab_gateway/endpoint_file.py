"""Pools and engines from a file, for a gateway without a cluster."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel

from trimtab.decide.queueing import Bounds
from trimtab.model.problem import Problem
from trimtab_gateway.pools import BEST_EFFORT, EngineAddress, Level, PoolConfig

Name = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$")]


class _Record(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, extra="forbid", frozen=True)


class FileEngine(_Record):
    """An engine: `host:port`, or a mapping with its own concurrency."""

    address: str
    concurrency: Annotated[int, Field(ge=1, le=100_000)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        return {"address": value} if isinstance(value, str) else value

    @field_validator("address")
    @classmethod
    def _is_address(cls, value: str) -> str:
        split_address(value)
        return value


class FileLevel(_Record):
    """A service level; fields as in a ServingPool."""

    name: Name
    default: bool = False
    ttft_milliseconds: Annotated[int, Field(ge=1)] | None = None


class FileQueue(_Record):
    """How much waiting is allowed; fields and defaults as in a ServingPool."""

    max_requests: Annotated[int, Field(ge=0)] = 5000
    max_waiting_seconds: Annotated[float, Field(gt=0)] = 600


class FilePool(_Record):
    """A pool: models, and the engines that serve all of them."""

    name: Name
    models: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]
    engines: tuple[FileEngine, ...] = ()
    concurrency: Annotated[int, Field(ge=1, le=100_000)] | None = None
    service_levels: tuple[FileLevel, ...] = ()
    queue: FileQueue = FileQueue()

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        _refuse_repeated("engines", [engine.address for engine in self.engines])
        _refuse_repeated("serviceLevels", [level.name for level in self.service_levels])
        if sum(level.default for level in self.service_levels) > 1:
            raise ValueError("serviceLevels: at most one level is the default")
        return self


class EndpointFile(_Record):
    """The whole file."""

    pools: Annotated[tuple[FilePool, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        _refuse_repeated("pools", [pool.name for pool in self.pools])
        _refuse_repeated("models", [model for pool in self.pools for model in pool.models])
        return self


def split_address(address: str) -> tuple[str, int]:
    """Split `host:port`, `[v6]:port` or `http://host:port`.

    Raises:
        ValueError: it is something else.
    """
    text = address.removeprefix("http://").rstrip("/")
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or "/" in host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:  # noqa: PLR2004
        raise ValueError(f"{address!r} is no engine address: write host:port, engines speak plain HTTP")
    return host, int(port)


def read(path: Path, default_concurrency: int, without_endpoint_seconds: float) -> tuple[PoolConfig, ...]:
    """Read pools from a YAML or JSON file.

    Raises:
        Problem: it cannot be read, is no YAML, or does not describe pools; names the file and the field.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        file = EndpointFile.model_validate(content)
    except OSError as error:
        raise Problem(f"{path}: {error.strerror}", fix="set --endpoints to a readable file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise Problem(f"{path}: not YAML: {text}", fix="correct the file") from error
    except ValidationError as error:
        raise Problem(f"{path}: {_describe(error)}", fix="correct the file") from error
    return tuple(_pool(pool, default_concurrency, without_endpoint_seconds) for pool in file.pools)


class WatchedFile:
    """An endpoints file that is read again when it changes; a bad change is reported and ignored."""

    def __init__(self, path: Path, parse: Callable[[Path], tuple[PoolConfig, ...]]) -> None:
        self._path = path
        self._parse = parse
        self._stamp: tuple[int, int] | None = None

    def load(self) -> tuple[PoolConfig, ...]:
        """Read the file whatever happened before.

        Raises:
            Problem: it cannot be used.
        """
        self._stamp = self._look()
        return self._parse(self._path)

    def changed(self) -> bool:
        """Whether the file is another one than `load` saw."""
        return self._look() != self._stamp

    def _look(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size


def _pool(pool: FilePool, default_concurrency: int, without_endpoint_seconds: float) -> PoolConfig:
    levels = tuple(
        Level(level.name, level.ttft_milliseconds / 1000 if level.ttft_milliseconds else None)
        for level in pool.service_levels
    )
    chosen = next((at for at, level in enumerate(pool.service_levels) if level.default), 0)
    concurrency = pool.concurrency or default_concurrency
    return PoolConfig(
        name=pool.name,
        models=pool.models,
        levels=levels,
        default_level=levels[chosen] if levels else BEST_EFFORT,
        bounds=Bounds(pool.queue.max_requests, pool.queue.max_waiting_seconds, without_endpoint_seconds),
        engines=tuple(_engine(engine, concurrency) for engine in pool.engines),
    )


def _engine(engine: FileEngine, concurrency: int) -> EngineAddress:
    host, port = split_address(engine.address)
    return EngineAddress(f"{host}:{port}", host, port, engine.concurrency or concurrency)


def _refuse_repeated(what: str, names: list[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"{what}: {repeated[0]!r} appears more than once")


def _describe(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else str(first["msg"])
