"""Numbers from Prometheus: one table of queries; what is missing or not a number is absent, never zero."""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import requests
from prometheus_api_client import PrometheusConnect
from prometheus_api_client.exceptions import PrometheusApiClientException
from urllib3.util import Retry

from trimtab.model.problem import Problem


@dataclass(frozen=True, slots=True)
class Query:
    """One number for each pool.

    Attributes:
        promql: an instant query; its result carries the label `pool`.
        unit: of the result.
        fresh_seconds: samples older than this do not count.
    """

    promql: str
    unit: str
    fresh_seconds: int = 60


POOL_QUERIES: Final[Mapping[str, Query]] = {
    "waiting": Query("sum by (pool) (trimtab_gateway_waiting)", "requests"),
    "in_flight": Query("sum by (pool) (trimtab_gateway_in_flight)", "requests"),
    "requests": Query("sum by (pool) (rate(trimtab_gateway_requests_total[1m]))", "requests per second"),
    "ttft_p99": Query(
        "histogram_quantile(0.99, sum by (pool, le) (rate(trimtab_gateway_ttft_seconds_bucket[1m])))", "seconds"
    ),
}


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A Prometheus server.

    Attributes:
        url: its address, e.g. `http://127.0.0.1:9090`.
        timeout_seconds: limit for each query.
    """

    url: str
    timeout_seconds: float = 5.0

    async def by_pool(self, query: Query) -> dict[str, float]:
        """Return the newest value for each pool that has one.

        Raises:
            Problem: the server cannot be reached, or does not understand the query.
        """
        return await asyncio.to_thread(self._ask, query)

    def _ask(self, query: Query) -> dict[str, float]:
        # One connection per call: the client is not safe to share between threads.
        connection = PrometheusConnect(self.url, retry=Retry(total=0), timeout=self.timeout_seconds, disable_ssl=True)
        try:
            found = connection.custom_query(query.promql)
        except (requests.RequestException, PrometheusApiClientException) as error:
            raise Problem(f"Prometheus at {self.url} did not answer: {error}", fix="check --prometheus") from error
        values = ((one["metric"].get("pool", ""), float(one["value"][1])) for one in found)
        return {pool: value for pool, value in values if pool and math.isfinite(value)}
