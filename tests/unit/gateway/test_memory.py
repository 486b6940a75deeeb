"""What a held request costs."""

import tracemalloc

from tests.property.test_gateway_framing import Wire
from tests.unit.gateway.test_cluster import Cluster, a_pool

_MIB = 1024 * 1024


async def test_a_body_that_waits_is_held_once() -> None:
    cluster = Cluster()
    cluster.pool(a_pool())  # without an engine: the request waits
    client = cluster.gateway.connect()
    client.connection_made(Wire())  # type: ignore[arg-type]
    body = b'{"model": "llama", "prompt": "' + b"a" * 8 * _MIB + b'"}'
    tracemalloc.start()
    try:
        client.data_received(b"POST /v1/completions HTTP/1.1\r\nhost: g\r\ncontent-length: %d\r\n\r\n" % len(body))
        for at in range(0, len(body), 65536):
            client.data_received(body[at : at + 65536])
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert cluster.gateway.pools["ai/chat"].queue.waiting == 1
    assert cluster.gateway.buffered_bytes == len(body)
    assert len(body) <= held < 1.25 * len(body)
