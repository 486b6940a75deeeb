"""A gRPC health service, just enough of HTTP/2 for one probe; the probe itself was tried against grpcio's own."""

import asyncio

import h2.config
import h2.connection
import h2.events


class HealthServer(asyncio.Protocol):
    """Answers each Check with a status, and remembers what was asked."""

    def __init__(self, status: int, asked: list[tuple[str, bytes]]) -> None:
        self._status = status
        self._asked = asked
        self._paths: dict[int, str] = {}
        self._bodies: dict[int, bytes] = {}
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._h2.initiate_connection()
        transport.write(self._h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        for event in self._h2.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                headers = {name.decode(): value.decode() for name, value in event.headers}
                self._paths[event.stream_id] = headers[":path"]
            elif isinstance(event, h2.events.DataReceived):
                self._bodies[event.stream_id] = self._bodies.get(event.stream_id, b"") + event.data
            elif isinstance(event, h2.events.StreamEnded):
                self._answer(event.stream_id)
        self._transport.write(self._h2.data_to_send())

    def _answer(self, stream: int) -> None:
        self._asked.append((self._paths[stream], self._bodies[stream]))
        self._h2.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
        self._h2.send_data(stream, b"\0\0\0\0\2\x08" + bytes([self._status]))
        self._h2.send_headers(stream, [("grpc-status", "0")], end_stream=True)
