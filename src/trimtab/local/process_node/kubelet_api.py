"""The part of the kubelet's HTTPS API that `kubectl logs` needs, on the node's loopback address.

Whoever can reach that address can read logs: on loopback, that is every user of this machine.
"""

import asyncio
import ssl
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from socket import socket
from typing import Final, Protocol

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from trimtab.local.process_node.logs import LogFile, LogQuery, read

_NANOSECONDS: Final = 1_000_000_000
_VALID_DAYS: Final = 3650
_SHUTDOWN_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class FoundLog:
    """A log file, and the log that is still written to it, if any."""

    path: Path
    live: LogFile | None


class FindLog(Protocol):
    """Finds logs."""

    def __call__(self, namespace: str, pod: str, container: str, *, previous: bool) -> FoundLog:
        """Return the log of a container's current or previous start.

        Raises:
            LookupError: there is no such log; the text says what is missing.
        """


def parse_query(query: Mapping[str, str], now: float) -> LogQuery:
    """Read the query that the API server passes on.

    Raises:
        ValueError: a number or time is malformed.
    """
    since = int(now * _NANOSECONDS) - int(query["sinceSeconds"]) * _NANOSECONDS if "sinceSeconds" in query else 0
    if "sinceTime" in query:
        since = int(datetime.fromisoformat(query["sinceTime"]).timestamp() * _NANOSECONDS)
    return LogQuery(
        follow=query.get("follow") == "true",
        tail=int(query["tailLines"]) if "tailLines" in query else None,
        since_ns=since,
        timestamps=query.get("timestamps") == "true",
        limit_bytes=int(query["limitBytes"]) if "limitBytes" in query else None,
    )


class KubeletApi:
    """Serves logs.

    Args:
        find: finds a container's log.
        now: the clock, Unix seconds.
    """

    def __init__(self, find: FindLog, now: Callable[[], float]) -> None:
        self._find = find
        self._now = now
        self._runner: web.AppRunner | None = None

    async def start(self, listener: socket, address: str) -> None:
        """Serve on a listening socket with a certificate of our own for its address."""
        app = web.Application()
        app.router.add_get("/healthz", _healthy)
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        for verb in ("exec", "attach", "portForward", "run"):
            app.router.add_route("*", f"/{verb}/{{rest:.*}}", _not_implemented)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
        await self._runner.setup()
        context = await asyncio.to_thread(_server_context, address)
        await web.SockSite(self._runner, listener, ssl_context=context).start()

    async def stop(self) -> None:
        """Stop serving; followed logs end."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        names = request.match_info
        try:
            query = parse_query(request.query, self._now())
            previous = request.query.get("previous") == "true"
            found = self._find(names["namespace"], names["pod"], names["container"], previous=previous)
        except (ValueError, LookupError) as error:  # of all errors, the API server passes on only this one's text
            raise web.HTTPBadRequest(text=str(error.args[0])) from error
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        async for chunk in read(found.path, query, found.live):
            await response.write(chunk)
        return response


async def _healthy(_: web.Request) -> web.Response:
    return web.Response(text="ok")


async def _not_implemented(request: web.Request) -> web.Response:
    verb = request.path.split("/")[1]
    text = f"{verb}: pods of a process node are processes of this machine; use its shell, or the pod's own address"
    return web.Response(status=501, text=text)


def _server_context(address: str) -> ssl.SSLContext:
    """Return a TLS context with a fresh self-signed certificate; the API server does not check it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "both.pem"
        path.touch(mode=0o600)
        path.write_bytes(_self_signed(address))
        context.load_cert_chain(path)
    return context


def _self_signed(address: str) -> bytes:
    """Return key and certificate as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "trimtab-process-node")])
    at = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(at - timedelta(days=1))
        .not_valid_after(at + timedelta(days=_VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address(address))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return secret + certificate.public_bytes(serialization.Encoding.PEM)
