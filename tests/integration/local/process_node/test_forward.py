"""Connections through loopback forwarders."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from tests.support.process_node import container
from tests.support.until import until
from trimtab.local import ports
from trimtab.local.process_node.addresses import Pool
from trimtab.local.process_node.forward import Forward, Forwarder, ServiceTable, parse_forward
from trimtab.local.process_node.services import Backend, Service, ServicePort

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[tuple[str, int]]:
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    try:
        yield host, port
    finally:
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def forwarding(*endpoints: tuple[str, int]) -> AsyncIterator[tuple[str, int]]:
    forwarder = Forwarder(("127.0.0.2", ports.free(1, ())[0]))
    assert await forwarder.serve(endpoints)
    try:
        yield forwarder.address
    finally:
        await forwarder.stop()
        for front in tuple(forwarder.open_fronts):
            assert front.transport is not None
            front.transport.abort()
        await until(lambda: _no_fronts(forwarder))


async def _no_fronts(forwarder: Forwarder) -> bool:
    return not forwarder.open_fronts


def naming(name: bytes) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.write(name)
        writer.close()

    return handle


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer only when all has been said: half-closing must work for this to end."""
    writer.write(await reader.read())
    await writer.drain()
    writer.close()


async def ask(address: tuple[str, int], request: bytes = b"") -> bytes:
    """Say all, then read all."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(request)
        writer.write_eof()
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_megabytes_pass_both_ways_and_half_closing_is_passed_on() -> None:
    request = bytes(range(256)) * 40_000
    async with serving(echo) as backend, forwarding(backend) as address:
        assert await asyncio.wait_for(ask(address, request), 30) == request


async def test_connections_are_dealt_out_in_turns() -> None:
    async with serving(naming(b"a")) as one, serving(naming(b"b")) as two, forwarding(one, two) as address:
        found = [await ask(address) for _ in range(6)]

    assert sorted(found) == [b"a"] * 3 + [b"b"] * 3


async def test_an_endpoint_that_refuses_is_passed_over() -> None:
    dead = ("127.0.0.1", ports.free(1, ())[0])
    async with serving(naming(b"alive")) as alive, forwarding(dead, alive) as address:
        assert [await ask(address) for _ in range(4)] == [b"alive"] * 4


async def test_a_client_is_told_at_once_when_every_endpoint_refuses() -> None:
    dead = ("127.0.0.1", ports.free(1, ())[0])
    async with forwarding(dead) as address:
        with pytest.raises(ConnectionError):
            await ask(address, b"x")


async def test_a_client_that_leaves_takes_its_backend_connection_with_it() -> None:
    left = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        left.set()
        writer.close()

    async with serving(wait) as backend, forwarding(backend) as address:
        _, writer = await asyncio.open_connection(*address)
        writer.write(b"x")
        writer.transport.abort()
        await asyncio.wait_for(left.wait(), 10)


async def test_a_slow_reader_slows_the_writer_down() -> None:
    sent = 0

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        try:
            while True:
                writer.write(bytes(65536))
                sent += 65536
                await writer.drain()
        except ConnectionError:
            return
        finally:
            writer.close()

    async with serving(flood) as backend, forwarding(backend) as address:
        reader, writer = await asyncio.open_connection(*address, limit=1024)
        await reader.readexactly(1)
        await until(lambda: _unchanged(lambda: sent))
        assert sent < 64 * 1024 * 1024
        writer.transport.abort()


async def _unchanged(value: Callable[[], int]) -> bool:
    before = value()
    await asyncio.sleep(0.2)
    return value() == before


@pytest.mark.parametrize(
    ("text", "forward"),
    [
        ("a/b=127.0.0.1:80", Forward("a/b", "", ("127.0.0.1", 80))),
        ("a/b:http=127.0.0.1:80", Forward("a/b", "http", ("127.0.0.1", 80))),
    ],
)
def test_forwards_are_read(text: str, forward: Forward) -> None:
    assert parse_forward(text) == forward


@pytest.mark.parametrize("text", ["", "a=127.0.0.1:80", "a/b", "a/b=80", "a/b=127.0.0.1:http", "a/b/c=127.0.0.1:80"])
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not NAMESPACE/SERVICE"):
        parse_forward(text)


class Table:
    """A running service table over backends that a test changes."""

    def __init__(self, forwards: tuple[Forward, ...] = ()) -> None:
        self.backends: list[Backend] = []
        self.table = ServiceTable(forwards, Pool("127.9.128.0", "127.9.128.9"), lambda: self.backends)

    def put(self, name: str, port: int, target: int) -> None:
        self.table.put(Service("shop", name, f"uid-{name}", {"app": name}, (ServicePort(port, target),)))

    def ready(self, app: str, ip: str) -> None:
        self.backends.append(Backend("shop", app, ip, True, {"app": app}, (container(),)))
        self.table.changed()

    def gone(self) -> None:
        self.backends.clear()
        self.table.changed()


@asynccontextmanager
async def running(table: Table) -> AsyncIterator[None]:
    task = asyncio.create_task(table.table.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await table.table.close()


async def accepts(address: tuple[str, int]) -> bool:
    try:
        await ask(address)
    except OSError:
        return False
    return True


async def refuses(address: tuple[str, int]) -> bool:
    return not await accepts(address)


async def test_a_service_that_a_pod_was_told_of_has_an_address_that_works_while_a_pod_is_ready() -> None:
    table = Table()
    async with serving(naming(b"x")) as (ip, port), running(table):
        table.put("web", 80, port)
        env = table.table.variables("shop")
        address = (env["WEB_SERVICE_HOST"], int(env["WEB_SERVICE_PORT"]))
        assert await refuses(address)

        table.ready("web", ip)
        await until(lambda: accepts(address))

        table.gone()
        await until(lambda: refuses(address))


async def test_a_service_keeps_its_address_when_it_comes_back() -> None:
    table = Table()
    table.put("web", 80, 80)
    before = table.table.variables("shop")
    table.table.drop("shop/web")
    assert table.table.variables("shop") == {}
    table.put("api", 80, 80)
    table.put("web", 80, 80)

    assert table.table.variables("shop")["WEB_SERVICE_HOST"] == before["WEB_SERVICE_HOST"]


async def test_services_of_other_namespaces_are_not_named() -> None:
    table = Table()
    table.put("web", 80, 80)

    assert table.table.variables("other") == {}


async def test_a_fixed_address_that_someone_else_holds_is_served_once_it_is_free() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        address = holder.getsockname()
        table = Table((Forward("shop/web", "", address),))
        async with serving(naming(b"x")) as (ip, port), running(table):
            table.put("web", 80, port)
            table.ready("web", ip)
            holder.close()
            await until(lambda: accepts(address))


async def test_no_address_is_held_without_a_ready_pod() -> None:
    address = ("127.0.0.2", ports.free(1, ())[0])
    table = Table((Forward("shop/web", "", address),))
    async with running(table):
        table.put("web", 80, 80)
        assert await refuses(address)
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(address)
