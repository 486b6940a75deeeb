"""One try of a probe or hook: HTTP, TCP, gRPC or a command."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Self, assert_never

import aiohttp

from trimtab.local.process_node.spec import (
    Container,
    Exec,
    GrpcCheck,
    HookAction,
    HttpGet,
    Port,
    ProbeAction,
    Sleep,
    TcpConnect,
)

_LONGEST_BODY: Final = 1024
_SERVING: Final = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a try went; the message is for people and empty for a plain success."""

    succeeded: bool
    message: str = ""


RunCommand = Callable[[tuple[str, ...]], Awaitable[Outcome]]


@dataclass(frozen=True, slots=True)
class Target:
    """What is tried: a container, at its pod's address, and a way to run a command beside it."""

    ip: str
    container: Container
    run: RunCommand

    def port(self, port: Port) -> int:
        """Return a port's number.

        Raises:
            LookupError: the container declares no port of that name.
        """
        number = self.container.port(port)
        if number is None:
            raise LookupError(f"container {self.container.name} declares no port {port!r}")
        return number


class Prober:
    """Tries probes. One HTTP session serves them all; each try has a connection of its own, as with the kubelet."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    @classmethod
    def create(cls) -> Self:
        """Return a prober that must be closed."""
        connector = aiohttp.TCPConnector(limit=0, force_close=True, ssl=False)
        return cls(aiohttp.ClientSession(connector=connector, headers={"User-Agent": "kube-probe/trimtab"}))

    async def close(self) -> None:
        """Close the session."""
        await self._session.close()

    async def attempt(self, action: ProbeAction | HookAction, target: Target, timeout_seconds: float) -> Outcome:
        """Try once. Whatever goes wrong is a failed try with a message, never an exception."""
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._attempt(action, target)
        except TimeoutError:
            return Outcome(succeeded=False, message=f"no answer within {timeout_seconds:g} s")
        except (aiohttp.ClientError, OSError, LookupError, ValueError) as error:
            return Outcome(succeeded=False, message=str(error) or type(error).__name__)

    async def _attempt(self, action: ProbeAction | HookAction, target: Target) -> Outcome:
        match action:
            case HttpGet():
                return await self._http(action, target)
            case TcpConnect():
                return await _tcp(action, target)
            case GrpcCheck():
                return await _grpc(action, target)
            case Exec():
                return await target.run(action.command)
            case Sleep():
                await asyncio.sleep(action.seconds)
                return Outcome(succeeded=True)
        assert_never(action)

    async def _http(self, action: HttpGet, target: Target) -> Outcome:
        url = f"{action.scheme}://{action.host or target.ip}:{target.port(action.port)}/{action.path.lstrip('/')}"
        async with self._session.get(url, headers=list(action.headers), allow_redirects=False) as response:
            body = await response.content.read(_LONGEST_BODY)
            if response.ok:
                return Outcome(succeeded=True)
            text = body.decode(errors="replace").strip()
            return Outcome(succeeded=False, message=f"HTTP probe failed with statuscode: {response.status} {text}")


async def _tcp(action: TcpConnect, target: Target) -> Outcome:
    _, writer = await asyncio.open_connection(action.host or target.ip, target.port(action.port))
    writer.close()
    await writer.wait_closed()
    return Outcome(succeeded=True)


async def _grpc(action: GrpcCheck, target: Target) -> Outcome:
    """Call `grpc.health.v1.Health/Check` over HTTP/2 without TLS; the two messages are one field each."""
    import httpx2  # noqa: PLC0415 few pods have gRPC probes, and the import takes longer than a try

    name = action.service.encode()
    message = (b"\x0a" + _varint(len(name)) + name) if name else b""
    url = f"http://{target.ip}:{target.port(action.port)}/grpc.health.v1.Health/Check"
    framed = b"\0" + len(message).to_bytes(4, "big") + message
    headers = {"content-type": "application/grpc", "te": "trailers"}
    async with httpx2.AsyncClient(http1=False, http2=True, timeout=None, trust_env=False) as client:
        try:
            answer = await client.post(url, content=framed, headers=headers)
        except httpx2.HTTPError as error:
            raise OSError(str(error) or type(error).__name__) from error
    status = _serving_status(answer.content)
    if status == _SERVING:
        return Outcome(succeeded=True)
    refused = answer.headers.get("grpc-message") or answer.headers.get("grpc-status")
    return Outcome(succeeded=False, message=f"gRPC health status {status if status is not None else refused}")


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:  # noqa: PLR2004 seven bits per byte
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def _serving_status(body: bytes) -> int | None:
    """Return field 1 of a HealthCheckResponse in its five-byte frame; None if there is no message."""
    if len(body) < 5 or body[0]:  # noqa: PLR2004 the length of the frame's head
        return None
    message = body[5 : 5 + int.from_bytes(body[1:5], "big")]
    return message[1] if message[:1] == b"\x08" and len(message) > 1 else 0
