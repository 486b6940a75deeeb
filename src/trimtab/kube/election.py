"""Leader election with a Lease: one process leads, the others stand by and take over.

The client's own elector is wrapped, because as it is it never gives the Lease back, ends on the first broken
connection, and waits up to five minutes for an answer, by which time somebody else leads.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
import structlog
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.resourcelock.leaselock import LeaseLock

from trimtab.kube.client import Kube
from trimtab.kube.errors import Invalid, KubeError
from trimtab.kube.resources import LEASES

_log = structlog.get_logger(__name__)

Lead = Callable[[], Awaitable[None]]


class LeadershipLost(RuntimeError):
    """The Lease could not be renewed in time: somebody else may lead, so this process must end."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How long a Lease lasts.

    Attributes:
        lease_seconds: after this long without renewal anybody may take it.
        renew_seconds: a leader that could not renew for this long stops leading; less than `lease_seconds`.
        retry_seconds: time between two tries, to renew or to acquire.
    """

    lease_seconds: int = 15
    renew_seconds: int = 10
    retry_seconds: int = 2


@dataclass(slots=True)
class Election:
    """One candidate.

    Attributes:
        kube: a connection to the API server.
        namespace: where the Lease is.
        name: the Lease's name.
        identity: who we are; unique per process.
        terms: how long the Lease lasts.
        on_try: called after each try to acquire or renew, so that liveness sees a standby at work.
        leading: whether we hold the Lease.
    """

    kube: Kube
    namespace: str
    name: str
    identity: str
    terms: Terms = Terms()
    on_try: Callable[[], None] = lambda: None
    leading: bool = False

    async def lead(self, work: Lead) -> None:
        """Wait for the Lease, then run `work`; give the Lease back when it ends, whether by return or by error.

        Raises:
            LeadershipLost: the Lease was lost while `work` ran, which is cancelled first.
        """
        won = asyncio.Event()
        campaign = asyncio.create_task(self._campaign(won), name="leader election")
        try:
            await self._first(campaign, asyncio.create_task(won.wait()))
            self.leading = True
            _log.info("leading", lease=f"{self.namespace}/{self.name}", identity=self.identity)
            await self._first(campaign, asyncio.create_task(_run(work), name="leader's work"))
        finally:
            await _end(campaign)
            if self.leading:
                self.leading = False
                await self._give_back()

    async def _first(self, campaign: "asyncio.Task[None]", other: "asyncio.Task[Any]") -> None:
        """Wait for `other`; an end of the campaign before that is the loss of the Lease."""
        try:
            await asyncio.wait({campaign, other}, return_when=asyncio.FIRST_COMPLETED)
            if not other.done():
                self.leading = False
                raise LeadershipLost(f"Lease {self.namespace}/{self.name} was not renewed in time")
            await other
        finally:
            await _end(other)

    async def _campaign(self, won: asyncio.Event) -> None:
        async def started() -> None:
            won.set()

        async def stopped() -> None:
            _log.error("leadership lost", lease=f"{self.namespace}/{self.name}", identity=self.identity)

        terms = self.terms
        lock = _PatientLock(self)
        config = Config(lock, terms.lease_seconds, terms.renew_seconds, terms.retry_seconds, started, stopped)
        await LeaderElection(config).run()

    async def _give_back(self) -> None:
        """Empty the holder, so that a standby need not wait for the Lease to run out."""
        operations = [
            {"op": "test", "path": "/spec/holderIdentity", "value": self.identity},
            {"op": "remove", "path": "/spec/holderIdentity"},
        ]
        try:
            await self.kube.json_patch(LEASES, self.name, operations, self.namespace)
        except Invalid:
            _log.info("lease already has another holder", lease=f"{self.namespace}/{self.name}")
        except KubeError as error:
            _log.warning("lease not given back", lease=f"{self.namespace}/{self.name}", error=error.message)
        else:
            _log.info("lease given back", lease=f"{self.namespace}/{self.name}")


class _PatientLock(LeaseLock):
    """A Lease whose calls end in time and turn a broken connection into a failed try, which is tried again."""

    def __init__(self, election: Election) -> None:
        super().__init__(election.name, election.namespace, election.identity, election.kube.api)
        self._limit = election.terms.renew_seconds / 2
        self._on_try = election.on_try

    async def get(self, name: str, namespace: str) -> Any:
        answer = await self._try(super().get(name, namespace))
        return answer or (False, ApiException(status=0, reason="the API server did not answer"))

    async def create(self, name: str, namespace: str, election_record: Any) -> bool:
        return bool(await self._try(super().create(name, namespace, election_record)))

    async def update(self, name: str, namespace: str, updated_record: Any) -> bool:
        return bool(await self._try(super().update(name, namespace, updated_record)))

    async def _try(self, call: Awaitable[Any]) -> Any:
        self._on_try()
        try:
            return await asyncio.wait_for(call, self._limit)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            _log.warning("lease not reached", error=str(error) or type(error).__name__)
            return None


async def _run(work: Lead) -> None:
    await work()


async def _end(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
