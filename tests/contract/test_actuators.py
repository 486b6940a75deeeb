"""What every actuator keeps to, whatever world is behind it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from tests.support.api_server import api_server
from tests.support.pool_values import AT, KNOB
from trimtab.actuate.dry_run import DryRun
from trimtab.actuate.scaling import ScaleActuator
from trimtab.kube import Kube, Unavailable
from trimtab.kube.resources import DEPLOYMENTS
from trimtab.model.decision import Action, Applied, Outcome, Precedence
from trimtab.model.reason import Reason, ReasonCode
from trimtab.ports import Actuator

ACTION = Action(KNOB, 1, 3, Precedence.SLO, "Fixed", Reason(ReasonCode.REPLICAS_FROM_SPEC, KNOB.object), "7", AT + 30)


class StoppedClock:
    """A clock that shows one time."""

    def __init__(self, at: float) -> None:
        self.at = at

    def now(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += seconds


@dataclass
class Scale:
    """A `/scale` that answers as told and remembers what it was asked."""

    status: int = 200
    answer: dict[str, Any] = field(default_factory=lambda: {"metadata": {"resourceVersion": "8"}})
    asked: list[tuple[str, Any]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.append((request.path, orjson.loads(await request.read())))
        return web.json_response(self.answer, status=self.status)


@pytest.fixture
def scale() -> Scale:
    return Scale()


@pytest.fixture
async def real(scale: Scale, tmp_path: Path) -> AsyncIterator[ScaleActuator]:
    async with api_server(scale.handle, tmp_path) as kubeconfig, Kube.connect(kubeconfig) as kube:
        yield ScaleActuator(kube, StoppedClock(AT), DEPLOYMENTS, "ai", "web")


@pytest.fixture(params=["scale", "dry run"])
def actuator(request: pytest.FixtureRequest, real: ScaleActuator) -> Actuator[Action, Applied]:
    return real if request.param == "scale" else DryRun()


async def test_the_answer_is_about_the_action(actuator: Actuator[Action, Applied]) -> None:
    applied = await actuator.apply(ACTION)
    assert applied.action == ACTION
    assert applied.outcome in {Outcome.APPLIED, Outcome.RECORDED}


async def test_an_actuator_can_be_asked_twice(actuator: Actuator[Action, Applied]) -> None:
    assert await actuator.apply(ACTION) == await actuator.apply(ACTION)


async def test_a_dry_run_only_records() -> None:
    assert (await DryRun().apply(ACTION)).outcome is Outcome.RECORDED


async def test_replicas_are_written_only_on_the_version_that_was_decided_on(real: ScaleActuator, scale: Scale) -> None:
    applied = await real.apply(ACTION)
    ((path, operations),) = scale.asked
    assert path == "/apis/apps/v1/namespaces/ai/deployments/web/scale"
    assert operations == [
        {"op": "test", "path": "/metadata/resourceVersion", "value": "7"},
        {"op": "add", "path": "/spec/replicas", "value": 3},
    ]
    assert (applied.outcome, applied.resource_version) == (Outcome.APPLIED, "8")


async def test_a_void_action_is_not_even_sent(real: ScaleActuator, scale: Scale) -> None:
    applied = await real.apply(replace(ACTION, valid_until=AT - 1))
    assert applied.outcome is Outcome.STALE
    assert scale.asked == []


@pytest.mark.parametrize(
    ("status", "details", "outcome"),
    [
        (409, {}, Outcome.STALE),
        (404, {}, Outcome.STALE),
        (422, {}, Outcome.STALE),  # how the API server answers a failed `test`: without a word about which
        (422, {"causes": [{"field": "spec.replicas", "message": "must be at least 0"}]}, Outcome.REFUSED),
        (403, {}, Outcome.REFUSED),
        (400, {}, Outcome.REFUSED),
    ],
)
async def test_a_refusal_is_an_outcome_in_the_servers_words(
    real: ScaleActuator, scale: Scale, status: int, details: dict[str, Any], outcome: Outcome
) -> None:
    scale.status, scale.answer = status, {"message": "the server's words", "details": details}
    applied = await real.apply(ACTION)
    assert (applied.outcome, applied.detail) == (outcome, "the server's words")


async def test_a_server_that_does_not_answer_is_an_error(real: ScaleActuator, scale: Scale) -> None:
    scale.status, scale.answer = 503, {"message": "overloaded"}
    with pytest.raises(Unavailable):
        await real.apply(ACTION)
