"""How kopf is set up: one place for all of its settings, and its access to the API server."""

import logging
from collections.abc import Iterable
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
    logging.getLogger("kopf").setLevel(logging.WARNING)  # what it says at INFO is about itself
    logging.getLogger("kopf._cogs.clients").setLevel(logging.CRITICAL)  # each retry is an ERROR there
    settings.posting.enabled = False
    settings.networking.request_timeout = memo.settings.request_timeout_seconds
    settings.networking.connect_timeout = memo.settings.request_timeout_seconds
    settings.watching.inactivity_timeout = 70.0
    settings.watching.server_timeout = 290  # a float would not be understood by the API server
    settings.watching.reconnect_backoff = 0.2
    settings.queueing.idle_timeout = 0.05  # handlers only parse: a worker need not linger
    settings.queueing.exit_timeout = 1.0
    # Not ours: kopf takes its finalizer off objects that need none from it, and ours guards what is held.
    settings.persistence.finalizer = f"{keys.GROUP}/kopf"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=keys.GROUP)
    settings.persistence.diffbase_storage = _NoDiffs()


class _NoDiffs(kopf.DiffBaseStorage):
    """Spares kopf the deep copy of every object in every event: no handler of ours asks what changed."""

    def build(self, *, body: kopf.Body, extra_fields: Iterable[Any] | None = None) -> kopf.BodyEssence:
        del body, extra_fields
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        del body
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        del body, patch, essence


async def login(memo: Runtime, **_: Any) -> kopf.ConnectionInfo:
    """Connect as the adapter does, token files included, which kopf's own logins do not read.

    Called again when a token is refused, so the credentials are read again first.
    """
    await memo.kube.reload()
    access = memo.kube.api.configuration
    scheme, _space, token = (await access.get_api_key_with_prefix("BearerToken") or "").partition(" ")
    return kopf.ConnectionInfo(
        server=access.host,
        ca_path=access.ssl_ca_cert,
        insecure=not access.verify_ssl,
        scheme=scheme or None,
        token=token or None,
        certificate_path=access.cert_file,
        private_key_path=access.key_file,
    )
