"""The settings of the process: environment variables `TRIMTAB_EXTENDER_<NAME>`, or options of the same names."""

import os
import socket
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from trimtab.model.problem import Problem
from trimtab.obs.logging import LogFormat

Port = Annotated[int, Field(ge=1, le=65535)]


def _address() -> str:
    return os.environ.get("POD_IP") or "127.0.0.1"


def _identity() -> str:
    return os.environ.get("POD_NAME") or f"{socket.gethostname()}-{os.getpid()}"


class Settings(BaseSettings):
    """Trimtab's scheduler extender. Each option can also be set as TRIMTAB_EXTENDER_<NAME> in the environment."""

    model_config = SettingsConfigDict(
        env_prefix="TRIMTAB_EXTENDER_",
        frozen=True,
        use_attribute_docstrings=True,
        cli_prog_name="trimtab-extender",
        cli_kebab_case=True,
        cli_implicit_flags=True,
    )

    address: str = Field(default_factory=_address)
    """Address to listen on. Default: $POD_IP, else 127.0.0.1."""

    port: Port = 8888
    """Port of filter, prioritize, /livez and /readyz."""

    metrics_port: Port = 9090
    """Port of /metrics."""

    kubeconfig: Path | None = None
    """Kubeconfig file. Default: $KUBECONFIG, else ~/.kube/config, else the pod's service account."""

    election: bool = True
    """Whether replicas elect one active replica by a Lease; only that one is Ready."""

    namespace: str = Field(default_factory=lambda: os.environ.get("POD_NAMESPACE") or "trimtab-system")
    """Namespace of the Leases. Default: $POD_NAMESPACE, else trimtab-system."""

    lease: str = "trimtab-extender"
    """Name of the Lease."""

    identity: str = Field(default_factory=_identity)
    """Our name in the Lease. Default: $POD_NAME, else host name and process id."""

    hold_seconds: Annotated[float, Field(ge=1, le=600)] = 30.0
    """How long watts are held for a pod that passed and is not seen bound."""

    suspect_seconds: Annotated[float, Field(ge=0.5, le=600)] = 5.0
    """How long nothing may be heard of pods, while one is on its way, before the API server is asked directly."""

    tick_seconds: Annotated[float, Field(ge=0.05, le=60)] = 1.0
    """How often gauges are brought up to date and rejected pods are considered for a nudge; one nudge each at most."""

    drain_seconds: Annotated[float, Field(ge=0, le=300)] = 2.0
    """How long questions are still answered after SIGTERM, while readiness already fails."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """How much is logged."""

    log_format: LogFormat = LogFormat.AUTO
    """How log lines look: auto (console on a terminal, else JSON), console or json."""


def load(arguments: list[str] | None = None) -> Settings:
    """Read the settings from the command line (default: that of the process) and the environment.

    Raises:
        Problem: a value is wrong; the text names the option.
    """
    try:
        return Settings(_cli_parse_args=True if arguments is None else arguments)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(map(str, first["loc"]))
        variable = f"TRIMTAB_EXTENDER_{name.upper()}"
        fix = f"correct --{name.replace('_', '-')} or {variable}"
        raise Problem(f"{name}: {first['msg']} (got {first['input']!r})", fix=fix) from error
