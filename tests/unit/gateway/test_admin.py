"""What the admin port says about pools."""

import time
from collections.abc import AsyncIterator

import pytest
from httpx2 import ASGITransport, AsyncClient

from trimtab.obs.metrics import GatewayMetrics
from trimtab_gateway.admin import create_app
from trimtab_gateway.gateway import Gateway
from trimtab_gateway.limits import Limits
from trimtab_gateway.pools import PoolConfig


@pytest.fixture
async def client() -> AsyncIterator[AsyncClient]:
    gateway = Gateway(Limits(), GatewayMetrics(), time.perf_counter)
    gateway.configure(PoolConfig(f"p{number:03}", (f"m{number}",)) for number in reversed(range(250)))
    async with AsyncClient(transport=ASGITransport(create_app(gateway)), base_url="http://gateway") as client:
        yield client


async def names(client: AsyncClient, query: str = "") -> list[str]:
    answer = await client.get(f"/pools{query}")
    return [pool["name"] for pool in answer.json()]


async def test_pools_come_in_pages_in_the_order_of_their_names(client: AsyncClient) -> None:
    assert await names(client) == [f"p{number:03}" for number in range(100)]
    assert await names(client, "?after=p099&limit=2") == ["p100", "p101"]
    assert await names(client, "?after=p249") == []


@pytest.mark.parametrize("limit", [0, 1001])
async def test_a_page_has_bounds(client: AsyncClient, limit: int) -> None:
    assert (await client.get(f"/pools?limit={limit}")).status_code == 422
