"""The leader's tasks: an error in any of them is the end of the process, said aloud."""

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import web

from tests.support.api_server import api_server
from tests.support.clocks import FakeClock
from trimtab.api import keys
from trimtab.api.schema_hashes import SCHEMA_HASHES
from trimtab.kube import Kube
from trimtab.kube.resources import TRIMTAB_KINDS
from trimtab.model.reason import Reason, ReasonCode
from trimtab.model.ref import Ref
from trimtab.obs.metrics import OperatorMetrics
from trimtab_operator import main, schema
from trimtab_operator.events import Events
from trimtab_operator.pulse import Pulse
from trimtab_operator.runtime import Runtime
from trimtab_operator.settings import OperatorSettings

OLD = Reason(ReasonCode.SCHEMA_MISMATCH, Ref("CustomResourceDefinition", "", "x"), words=(("crd", "x"),))


def a_runtime(kube: Kube | None = None) -> Runtime:
    clock, metrics = FakeClock(), OperatorMetrics()
    given = cast("Kube", kube)
    return Runtime(OperatorSettings(), given, clock, metrics, Events(given, clock, metrics), Pulse(30))


async def _nothing(*_: Any) -> None:
    return


async def _forever(*_: Any) -> None:
    await asyncio.Event().wait()


async def _defect(*_: Any) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize("worker", ["keep_stock", "keep_census", "_carry_nudges", "await_schema"])
async def test_a_defect_in_any_task_of_the_leader_ends_its_work(monkeypatch: pytest.MonkeyPatch, worker: str) -> None:
    monkeypatch.setattr(main, "_prepare", _nothing)
    for name in ("keep_stock", "keep_census", "_carry_nudges", "await_schema", "_watch_kinds"):
        monkeypatch.setattr(main, name, _defect if name == worker else _forever)
    runtime = a_runtime()
    runtime.refusal.reason = OLD
    ending: list[asyncio.Task[None]] = []
    async with asyncio.timeout(5):
        with pytest.raises(ZeroDivisionError):
            await main._lead(runtime, asyncio.Event(), ending)
    ending[0].cancel()
    assert runtime.metrics.registry.get_sample_value("trimtab_operator_leading") == 0


async def test_leading_goes_on_when_the_schema_has_come_to_match(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "_prepare", _nothing)
    for name, does in (("keep_stock", _forever), ("_carry_nudges", _forever), ("await_schema", _nothing)):
        monkeypatch.setattr(main, name, does)
    monkeypatch.setattr(main, "_watch_kinds", _forever)
    runtime, stop = a_runtime(), asyncio.Event()
    runtime.refusal.reason = OLD
    ending: list[asyncio.Task[None]] = []
    leading = asyncio.create_task(main._lead(runtime, stop, ending))
    await asyncio.wait({leading}, timeout=0.2)
    assert not leading.done()
    stop.set()
    await leading
    ending[0].cancel()


async def test_an_unexpected_error_is_logged_with_its_task_and_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    task = asyncio.create_task(_defect(), name="audit")
    await asyncio.wait({task})
    assert main._why_ended({task}) == 1
    said = capsys.readouterr()
    assert "audit" in said.out + said.err
    assert "ZeroDivisionError" in said.out + said.err


async def test_the_schema_is_looked_at_again_when_the_server_did_not_answer(tmp_path: Path) -> None:
    shown = {f"{one.plural}.{one.group}": SCHEMA_HASHES[one.kind] for one in TRIMTAB_KINDS}
    failures = [503, 403]

    async def handle(request: web.Request) -> web.Response:
        if failures:
            return web.json_response({}, status=failures.pop())
        found = shown[request.path.rpartition("/")[2]]
        return web.json_response({"metadata": {"annotations": {keys.SCHEMA_HASH: found}}})

    async with api_server(handle, tmp_path) as kubeconfig, Kube.connect(kubeconfig) as kube:
        runtime = a_runtime(kube)
        runtime.refusal.reason = OLD
        async with asyncio.timeout(10):
            await schema.await_schema(runtime)
    assert runtime.refusal.reason is None
    assert failures == []
