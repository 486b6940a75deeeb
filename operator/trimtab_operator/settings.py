"""Every setting of the operator: `TRIMTAB_OPERATOR_<NAME>` in the environment, `--<name>` on the command line."""

import os
import socket
from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from trimtab.obs.logging import LogFormat


class OperatorSettings(BaseSettings):
    """The Trimtab operator: reconciles the custom resources of group trimtab.dev."""

    model_config = SettingsConfigDict(
        env_prefix="TRIMTAB_OPERATOR_",
        frozen=True,
        use_attribute_docstrings=True,
        cli_prog_name="trimtab-operator",
        cli_kebab_case=True,
        extra="forbid",
    )

    namespace: str = "trimtab-system"
    """Namespace of the leader's Lease: the operator's own."""

    lease: str = "trimtab-operator"
    """Name of the Lease by which replicas elect a leader."""

    identity: str = Field(default_factory=lambda: os.environ.get("POD_NAME") or f"{socket.gethostname()}-{os.getpid()}")
    """Who this process is in the Lease; unique per process. Default: $POD_NAME, else host and process id."""

    bind_address: str = Field(default_factory=lambda: os.environ.get("POD_IP") or "127.0.0.1")
    """Address of the health and metrics ports. Default: $POD_IP, else 127.0.0.1."""

    health_port: Annotated[int, Field(ge=0, le=65535)] = 8081
    """Port of /livez and /readyz."""

    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """Port of /metrics."""

    log_format: LogFormat = LogFormat.AUTO
    """Log lines as `json` or `console`; `auto` is console on a terminal."""

    log_level: str = "INFO"
    """Least severe level that is logged: DEBUG, INFO, WARNING or ERROR."""

    concurrency: Annotated[int, Field(ge=1, le=256)] = 12
    """How many objects are written at once."""

    request_timeout_seconds: Annotated[float, Field(gt=0)] = 10.0
    """Limit for each call to the API server."""

    proposal_seconds: Annotated[float, Field(gt=0)] = 3600.0
    """How long a proposal (mode Propose) waits for approval."""

    status_interval_seconds: Annotated[float, Field(ge=0)] = 30.0
    """Least time between two status writes of one object when only numbers moved."""

    stale_seconds: Annotated[float, Field(gt=0)] = 30.0
    """The process is no longer live when its loop has not ticked for this long."""
