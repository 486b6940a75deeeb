"""How kopf is set up: one place for all of its settings, and its access to the API server."""

from typing import Any

import kopf

from trimtab.api import keys
from trimtab_operator.runtime import Runtime


def register(registry: kopf.OperatorRegistry) -> None:
    """Register the startup and login handlers."""
    kopf.on.startup(registry=registry)(configure)
    kopf.on.login(registry=registry, retries=5, backoff=1.0)(login)


async def configure(settings: kopf.OperatorSettings, memo: Runtime, **_: Any) -> None:
    """Set everything that kopf lets be set and that matters here."""
    settings.posting.enabled = False
    settings.networking.request_timeout = memo.settings.request_timeout_seconds
    settings.networking.connect_timeout = memo.settings.request_timeout_seconds
    settings.watching.inactivity_timeout = 70.0
    settings.watching.server_timeout = 290  # a float would not be understood by the API server
    settings.watching.reconnect_backoff = 0.2
    settings.queueing.idle_timeout = 0.05  # handlers only parse: a worker need not linger
    settings.queueing.exit_timeout = 1.0
    settings.persistence.finalizer = keys.FINALIZER
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=keys.GROUP)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=keys.GROUP)


async def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """Use $KUBECONFIG or ~/.kube/config, else the pod's service account; called again when a token is refused."""
    return kopf.login_with_kubeconfig(**kwargs) or kopf.login_with_service_account(**kwargs)
