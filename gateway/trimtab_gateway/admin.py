"""Health, the state of the pools, and explanations; FastAPI on a port that clients do not reach."""

from heapq import nsmallest
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Response

from trimtab_gateway.dispatcher import Dispatcher
from trimtab_gateway.gateway import Gateway


def create_app(gateway: Gateway) -> FastAPI:
    """Build the admin application of a gateway."""
    app = FastAPI(title="Trimtab gateway", docs_url="/", redoc_url=None)

    @app.get("/livez")
    async def livez() -> Response:
        """Answer while the event loop that carries the requests turns."""
        return Response("ok", media_type="text/plain")

    @app.get("/readyz")
    async def readyz() -> Response:
        """Say whether new requests should come here."""
        if gateway.not_ready:
            return Response(gateway.not_ready, 503, media_type="text/plain")
        return Response("ok", media_type="text/plain")

    @app.get("/pools")
    async def pools(after: str = "", limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> list[dict[str, Any]]:
        """Return pools by name, those after a name if given, each with its queue and its engines.

        Never all of very many: requests wait while the answer is made.
        """
        names = nsmallest(limit, (name for name in gateway.pools if name > after))
        return [_describe(gateway.pools[name], gateway.now()) for name in names]

    @app.get("/requests")
    async def requests(
        limit: Annotated[int, Query(ge=1, le=1000)] = 50, pool: str = "", outcome: str = ""
    ) -> list[dict[str, object]]:
        """Return the last requests that ended, newest first."""
        return [record.to_wire() for record in gateway.journal.latest(limit, pool=pool, outcome=outcome)]

    @app.get("/requests/{request_id}")
    async def explain(request_id: str) -> list[dict[str, object]]:
        """Return what was decided about a request, by the `x-request-id` of its answer."""
        found = gateway.journal.find(request_id)
        if not found:
            raise HTTPException(404, "Not among the last requests that ended.")
        return [record.to_wire() for record in found]

    return app


def _describe(pool: Dispatcher, at: float) -> dict[str, Any]:
    queue, config = pool.queue, pool.config
    return {
        "name": config.name,
        "models": config.models,
        "serviceLevels": [level.name for level in config.levels],
        "waiting": queue.waiting,
        "inFlight": queue.fleet.total_in_flight,
        "readyCapacity": queue.fleet.ready_capacity,
        "maxRequests": config.bounds.max_requests,
        "maxWaitingSeconds": config.bounds.max_waiting_seconds,
        "serviceSeconds": queue.service_seconds,
        "engines": [
            {
                "name": engine.name,
                "address": f"{engine.address.host}:{engine.address.port}",
                "inFlight": queue.fleet.in_flight(engine.name),
                "concurrency": engine.address.concurrency,
                "ready": engine.endpoint(at).ready,
                "onTrial": engine.health.on_trial,
                "ejectedForSeconds": max(0.0, round(engine.health.ejected_until - at, 3)),
            }
            for _, engine in sorted(pool.engines.items())
        ],
    }
