"""Leader election with a Lease: one process leads, the others stand by and take over.

The client's own elector is wrapped, because as it is it never gives the Lease back, ends on the first broken
connection, and waits up to five minutes for an answer, by which time somebody else leads. The connection's time-out
must be shorter than `Terms.renew_seconds`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
import structlog
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.leaderelectionrecord import LeaderElectionRecord
from kubernetes.aio.leaderelection.resourcelock.baselock import BaseLock

from trimtab.kube.client import Kube, Object
from trimtab.kube.errors import AlreadyExists, Conflict, Invalid, KubeError, NotFound
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
        on_try: called at each try to acquire, so that liveness sees a standby at work. Not on renewals: they go on
            while the leader's work hangs.
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
                campaign.result()  # raises what ended it, if it was a defect
                raise LeadershipLost(f"Lease {self.namespace}/{self.name} was not renewed in time")
            await other
        finally:
            await _end(other)

    async def _campaign(self, won: asyncio.Event) -> None:
        async def started() -> None:
            won.set()

        async def stopped() -> None:
            _log.error("leadership lost", lease=f"{self.namespace}/{self.name}", identity=self.identity)

        logging.getLogger("kubernetes.aio.leaderelection").setLevel(logging.CRITICAL)  # said in our words already
        terms = self.terms
        lock = _Lease(self)
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


class _Lease(BaseLock):
    """The Lease as the client's elector wants to see it, over our own connection.

    The client's own lock cannot create a Lease (its call does not pass its own validation), and a broken connection
    ends its election; here that is one failed try.
    """

    def __init__(self, election: Election) -> None:
        super().__init__(election.name, election.namespace, election.identity)
        self._kube = election.kube
        self._election = election
        self._seen: Object = {}

    async def get(self, name: str, namespace: str) -> tuple[bool, Any]:
        if not self._election.leading:
            self._election.on_try()
        try:
            self._seen = await self._kube.get(LEASES, name, namespace)
        except KubeError as error:
            _report(error)
            refusal = ApiException(status=error.status, reason=error.message)
            refusal.body = orjson.dumps({"code": error.status}).decode()
            return False, refusal
        spec = self._seen.get("spec") or {}
        seconds = str(spec.get("leaseDurationSeconds") or "")
        return True, LeaderElectionRecord(
            spec.get("holderIdentity") or None, seconds or None, spec.get("acquireTime"), spec.get("renewTime")
        )

    async def create(self, name: str, namespace: str, election_record: LeaderElectionRecord) -> bool:
        lease = {"metadata": {"name": name, "namespace": namespace}, "spec": self._spec(election_record, {})}
        return await self._try(self._kube.create(LEASES, lease))

    async def update(self, name: str, namespace: str, updated_record: LeaderElectionRecord) -> bool:
        """Replace the Lease that was read, and only that version of it."""
        lease = self._seen | {"spec": self._spec(updated_record, self._seen.get("spec") or {})}
        return await self._try(self._kube.replace(LEASES, name, lease, namespace))

    def _spec(self, record: LeaderElectionRecord, before: Object) -> Object:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        goes_on = before.get("holderIdentity") == record.holder_identity
        return {
            "holderIdentity": record.holder_identity,
            "leaseDurationSeconds": int(record.lease_duration or 0),
            "acquireTime": before.get("acquireTime", now) if goes_on else now,
            "renewTime": now,
            "leaseTransitions": int(before.get("leaseTransitions") or 0) + (not goes_on),
        }

    async def _try(self, call: Awaitable[Object]) -> bool:
        try:
            self._seen = await call
        except KubeError as error:
            _report(error)
            return False
        return True


def _report(error: KubeError) -> None:
    if not isinstance(error, (NotFound, Conflict, AlreadyExists)):  # those are how candidates meet
        _log.warning("lease not reached", error=error.message)


async def _run(work: Lead) -> None:
    await work()


async def _end(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
