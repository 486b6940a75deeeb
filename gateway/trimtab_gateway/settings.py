"""Everything that can be set, from the command line or from the environment."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt
from pydantic_settings import BaseSettings, SettingsConfigDict

from trimtab.obs.logging import LogFormat
from trimtab_gateway.limits import Limits

PortNumber = Annotated[int, Field(ge=0, le=65535)]


_DEFAULTS = Limits()


def _address() -> str:
    return os.environ.get("POD_IP") or "127.0.0.1"


class Settings(BaseSettings):
    """Where the gateway listens, what it serves and what one client may cost.

    Each setting is an option of `trimtab-gateway` and an environment variable with the prefix TRIMTAB_GATEWAY_.
    """

    model_config = SettingsConfigDict(
        env_prefix="TRIMTAB_GATEWAY_",
        frozen=True,
        use_attribute_docstrings=True,
        cli_prog_name="trimtab-gateway",
        cli_kebab_case=True,
        cli_implicit_flags=True,
    )

    address: str = Field(default_factory=_address)
    """Address to listen on. Default: $POD_IP, else 127.0.0.1."""
    port: PortNumber = 8000
    """Port of the OpenAI API."""
    admin_port: PortNumber = 8081
    """Port of health, pools and explanations; not for clients."""
    metrics_port: PortNumber = 9090
    """Port of /metrics."""
    endpoints: Path | None = None
    """A YAML file with pools and engines; without it, ServingPools and their pods are watched."""
    kubeconfig: Path | None = None
    """Kubeconfig file. Default: $KUBECONFIG, else ~/.kube/config, else the pod's service account."""
    namespaces: tuple[str, ...] = ()
    """Namespaces whose ServingPools are served; all by default."""
    default_concurrency: PositiveInt = 64
    """Requests that an engine carries at once when neither its profile nor the file says it."""
    without_endpoint_seconds: PositiveFloat = 10.0
    """How long a request waits while its pool has no ready engine at all."""
    probe_seconds: PositiveFloat = 5.0
    """Time between two health checks of the engines of an endpoints file."""
    max_body_bytes: PositiveInt = _DEFAULTS.body_bytes
    """Largest request body."""
    max_buffered_bytes: PositiveInt = _DEFAULTS.buffered_bytes
    """Most bytes of request bodies that are held at once, 256 MiB by default; memory may exceed it by an eighth."""
    max_connections: PositiveInt = _DEFAULTS.connections
    """Most clients that are connected at once."""
    head_seconds: PositiveFloat = _DEFAULTS.head_seconds
    """Time for a client to send the headers of a request."""
    body_seconds: PositiveFloat = _DEFAULTS.body_seconds
    """Time for a client to send the body of a request."""
    idle_seconds: PositiveFloat = _DEFAULTS.idle_seconds
    """Time that a client may stay connected between two requests."""
    stall_seconds: PositiveFloat = _DEFAULTS.stall_seconds
    """Time that a client may leave its answer unread."""
    connect_seconds: PositiveFloat = _DEFAULTS.connect_seconds
    """Time to connect to an engine."""
    answer_seconds: PositiveFloat = _DEFAULTS.answer_seconds
    """Time for an engine to begin its answer."""
    silence_seconds: PositiveFloat = _DEFAULTS.silence_seconds
    """Time that an engine may be silent within an answer."""
    engine_idle_seconds: PositiveFloat = _DEFAULTS.engine_idle_seconds
    """Time that an unused connection to an engine is kept; below the 5 s after which vLLM closes its side."""
    drain_delay_seconds: Annotated[float, Field(ge=0)] = 3.0
    """After SIGTERM: time to go on as usual while load balancers notice that readiness is gone."""
    drain_seconds: Annotated[float, Field(ge=0)] = 60.0
    """After that: time for open requests to end; what is open then is cut. A pod's grace must outlast both."""
    log_format: LogFormat = LogFormat.AUTO
    """How log lines look: auto, console or json."""
    log_level: str = "INFO"
    """DEBUG, INFO, WARNING or ERROR."""

    def limits(self) -> Limits:
        """Return the bounds on what one connection may cost."""
        return Limits(
            body_bytes=self.max_body_bytes,
            buffered_bytes=self.max_buffered_bytes,
            connections=self.max_connections,
            head_seconds=self.head_seconds,
            body_seconds=self.body_seconds,
            idle_seconds=self.idle_seconds,
            stall_seconds=self.stall_seconds,
            connect_seconds=self.connect_seconds,
            answer_seconds=self.answer_seconds,
            silence_seconds=self.silence_seconds,
            engine_idle_seconds=self.engine_idle_seconds,
        )
