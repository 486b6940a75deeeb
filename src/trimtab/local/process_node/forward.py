"""Addresses of Services: loopback listeners that hand each connection to a Ready pod.

A Service without a Ready pod has no listener, so that a connection to it is refused at once, as with kube-proxy.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, cast

import structlog

from trimtab.local.process_node import services
from trimtab.local.process_node.addresses import Pool
from trimtab.local.process_node.services import Backend, Service
from trimtab.model.problem import Problem

_log = structlog.get_logger(__name__)

Address = tuple[str, int]

_CONNECT_SECONDS: Final = 2.0
_BACKLOG: Final = 1024
_GATHER_SECONDS: Final = 0.01
_RETRY_SECONDS: Final = 1.0


class _Side(asyncio.Protocol):
    """One end of a connection: what it receives goes to the other end, at the pace of the other end."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: _Side | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's transports do not inherit from asyncio's

    @property
    def peer(self) -> asyncio.Transport | None:
        """Return the transport of the other end, if there is one."""
        return None if self.other is None else self.other.transport

    def data_received(self, data: bytes) -> None:
        if self.peer is not None:
            self.peer.write(data)

    def eof_received(self) -> bool:
        """Pass on that this end has said all; it may still listen."""
        if self.peer is None or self.peer.is_closing():
            return False
        self.peer.write_eof()
        return True

    def pause_writing(self) -> None:
        if self.peer is not None:
            self.peer.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None:
            self.peer.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if self.peer is not None:
            self.peer.close() if error is None else self.peer.abort()


class _Front(_Side):
    """The client's end. It reads as little as it can before a backend has accepted, and keeps what it has read."""

    def __init__(self, forwarder: "Forwarder") -> None:
        super().__init__()
        self._forwarder = forwarder
        self._early: list[bytes] = []
        self._early_end = False
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        self.transport.pause_reading()
        self._forwarder.open_fronts.add(self)
        self._connecting = asyncio.get_running_loop().create_task(self._connect(self.transport))

    def data_received(self, data: bytes) -> None:
        # uvloop starts to read after connection_made, whatever that did: what is there already comes once all the same.
        if self.other is None:
            self._early.append(data)
            assert self.transport is not None
            self.transport.pause_reading()
        super().data_received(data)

    def eof_received(self) -> bool:
        if self.other is None:
            self._early_end = True
            return True
        return super().eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        self._forwarder.open_fronts.discard(self)
        if self._connecting is not None:
            self._connecting.cancel()
        super().connection_lost(error)

    async def _connect(self, transport: asyncio.Transport) -> None:
        back = await self._forwarder.connect()
        self._connecting = None
        if back is None:
            transport.abort()
            return
        self.other, back.other = back, self
        for data in self._early:
            super().data_received(data)
        self._early.clear()
        if self._early_end:
            super().eof_received()
        else:
            transport.resume_reading()


class Forwarder:
    """One listener over the Ready pods behind a Service's port.

    Args:
        address: where it listens.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.open_fronts: set[_Front] = set()
        self._endpoints: tuple[Address, ...] = ()
        self._turn = itertools.count()
        self._server: asyncio.Server | None = None
        self._refused = ""

    async def serve(self, endpoints: tuple[Address, ...]) -> bool:
        """Forward to these from here on; none closes the listener, not the connections.

        Returns:
            False if the address is taken by someone else; it must be tried again.
        """
        self._endpoints = endpoints
        if not endpoints:
            await self.stop()
            return True
        if self._server is not None:
            return True
        return await self._listen()

    async def stop(self) -> None:
        """Stop listening. Connections go on until an end closes them."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def connect(self) -> _Side | None:
        """Return a connection to an endpoint, in turns; one that does not accept is passed over."""
        loop = asyncio.get_running_loop()
        endpoints = self._endpoints
        first = next(self._turn)
        for step in range(len(endpoints)):
            host, port = endpoints[(first + step) % len(endpoints)]
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(_CONNECT_SECONDS):
                    _, side = await loop.create_connection(_Side, host, port)
                    return side
        return None

    async def _listen(self) -> bool:
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: _Front(self), *self.address, backlog=_BACKLOG)
        except OSError as error:
            if str(error) != self._refused:
                _log.warning("service address not served", address=self.address, error=str(error))
            self._refused = str(error)
            return False
        self._refused = ""
        return True


@dataclass(frozen=True, slots=True)
class Forward:
    """A fixed address for one port of a Service: `NAMESPACE/SERVICE[:PORT]=ADDRESS:PORT`."""

    service: str
    port: str
    address: Address


def parse_forward(text: str) -> Forward:
    """Read the form above; the Service's port is a name or number and defaults to its first.

    Raises:
        ValueError: the text has another form.
    """
    target, _, address = text.partition("=")
    service, _, port = target.partition(":")
    host, _, number = address.rpartition(":")
    if service.count("/") != 1 or not host or not number.isdigit():
        raise ValueError(f"{text!r} is not NAMESPACE/SERVICE[:PORT]=ADDRESS:PORT")
    return Forward(service, port, (host, int(number)))


class ServiceTable:
    """All Services of the cluster, and listeners for those that pods of this node were told about.

    Args:
        forwards: fixed addresses.
        addresses: lends an address to each Service that is named to a pod.
        backends: the node's pods.
    """

    def __init__(self, forwards: Iterable[Forward], addresses: Pool, backends: Callable[[], list[Backend]]) -> None:
        self._forwards = tuple(forwards)
        self._addresses = addresses
        self._backends = backends
        self._services: dict[str, Service] = {}
        self._told: dict[str, str] = {}
        self._forwarders: dict[Address, Forwarder] = {}
        self._dirty = asyncio.Event()

    def put(self, service: Service) -> None:
        """Take over a Service."""
        self._services[service.key] = service
        self.changed()

    def drop(self, key: str) -> None:
        """Forget a Service; its address stays its own, should it come back."""
        if self._services.pop(key, None) is not None:
            self.changed()

    def changed(self) -> None:
        """Note that a pod or Service changed."""
        self._dirty.set()

    def variables(self, namespace: str) -> dict[str, str]:
        """Return the variables that name every Service of a namespace, and see to it that their addresses work."""
        env: dict[str, str] = {}
        for service in sorted(self._services.values(), key=lambda service: service.key):
            if service.namespace == namespace and (host := self._address(service)):
                env |= services.variables(service, host)
        self.changed()
        return env

    async def run(self) -> None:
        """Keep the listeners in step with Services and pods, for ever."""
        while True:
            await self._dirty.wait()
            await asyncio.sleep(_GATHER_SECONDS)
            self._dirty.clear()
            if not await self._synchronize():
                await asyncio.sleep(_RETRY_SECONDS)
                self._dirty.set()

    async def close(self) -> None:
        """Close every listener and connection."""
        for forwarder in self._forwarders.values():
            await forwarder.stop()
            for front in tuple(forwarder.open_fronts):
                if front.transport is not None:
                    front.transport.abort()

    def _address(self, service: Service) -> str:
        if service.key not in self._told:
            try:
                self._told[service.key] = self._addresses.take(service.key)
            except Problem as problem:
                _log.warning("service has no address", service=service.key, error=problem.what)
                return ""
        return self._told[service.key]

    async def _synchronize(self) -> bool:
        """Serve what is wanted and stop the rest; return whether every address could be served."""
        wanted = self._wanted()
        for address in self._forwarders.keys() - wanted.keys():
            await self._forwarders[address].serve(())
        served = [
            await self._forwarders.setdefault(address, Forwarder(address)).serve(endpoints)
            for address, endpoints in wanted.items()
        ]
        return all(served)

    def _wanted(self) -> Mapping[Address, tuple[Address, ...]]:
        by_namespace: dict[str, list[Backend]] = {}
        for backend in self._backends():
            by_namespace.setdefault(backend.namespace, []).append(backend)
        wanted: dict[Address, tuple[Address, ...]] = {}
        for key, host in self._told.items():
            if service := self._services.get(key):
                pods = by_namespace.get(service.namespace, [])
                wanted |= {(host, port.number): services.endpoints(service, port, pods) for port in service.ports}
        for forward in self._forwards:
            service = self._services.get(forward.service)
            port = service and service.port(forward.port)
            if service and port:
                pods = by_namespace.get(service.namespace, [])
                wanted[forward.address] = services.endpoints(service, port, pods)
        return wanted
