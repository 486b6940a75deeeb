"""What an engine says about itself."""

import json

import pytest

from tests.sim.profiling.known import known_engine, measured, told
from tests.support.openai_server import OpenAIServer, Script
from trimtab.model.problem import Problem
from trimtab.sim.profiling.load import Limits
from trimtab.sim.profiling.session import Engine, Result, Session, look_at
from trimtab.sim.profiling.survey import Gauges, gauges_of, read_max_model_len, read_version
from trimtab.workload.wire import Client, parse_target


@pytest.fixture(autouse=True)
def looks_without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimtab.sim.profiling.session._LOOK_SECONDS", 0.0)


METRICS = """\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{engine="0",model_name="m"}} {running}
vllm:num_requests_running{{engine="1",model_name="m"}} 0.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{{engine="0",model_name="m"}} {waiting}
# TYPE vllm:prompt_tokens counter
vllm:prompt_tokens_total{{engine="0",model_name="m"}} 1000.0
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{{block_size="32",num_cpu_blocks="None",num_gpu_blocks="48"}} 1.0
"""


def metrics(running: float = 0.0, waiting: float = 0.0) -> bytes:
    return METRICS.format(running=running, waiting=waiting).encode()


def test_metrics_of_vllm() -> None:
    gauges = gauges_of(metrics(2.0, 3.0).decode())
    assert gauges == Gauges(running=2, waiting=3, prompt_tokens=1000, block_size=32, kv_blocks=48)
    assert gauges.under_way == 5


@pytest.mark.parametrize("text", ["", "up 1\n", 'vllm:cache_config_info{num_gpu_blocks="None"} 1.0\n'])
def test_what_metrics_do_not_say_is_none(text: str) -> None:
    assert gauges_of(text) == Gauges()


class Talking(OpenAIServer):
    """Answers GETs by path; what is not listed is 404."""

    def __init__(self, **answers: bytes) -> None:
        super().__init__()
        self._answers = answers

    async def _answer(self, script, request, writer) -> bool:  # type: ignore[no-untyped-def] # noqa: ANN001
        name = request.path.rsplit("/", 1)[-1]
        known = self._answers.get(name)
        script = Script(body=known) if known is not None else Script(status=404, body=b"{}")
        return await super()._answer(script, request, writer)


MODELS = json.dumps({"data": [{"id": "m", "max_model_len": 2048}]}).encode()


async def test_an_engine_that_tells_everything() -> None:
    async with Talking(models=MODELS, metrics=metrics(), version=b'{"version": "0.32"}') as server:
        engine = await look_at(Client(parse_target(server.url)), told())
    assert (engine.model, engine.version, engine.kv_blocks, engine.block_size) == ("m", "0.32", 48, 32)
    assert (engine.limits.max_model_len, engine.limits.kv_tokens, engine.notes) == (2048, 48 * 32, ())


async def test_an_engine_that_tells_nothing_and_what_is_told_instead() -> None:
    async with Talking(models=b'{"data": [{"id": "m"}]}') as server:
        client = Client(parse_target(server.url))
        engine = await look_at(client, told())
        assert (engine.kv_blocks, engine.limits.kv_tokens, engine.version) == (None, None, "")
        assert "4096 tokens assumed" in engine.notes[0]
        engine = await look_at(client, told(max_model_len=512, kv_blocks=10, block_size=8))
    assert (engine.limits.max_model_len, engine.limits.kv_tokens, engine.notes) == (512, 80, ())


async def test_a_busy_engine_is_refused_unless_that_is_meant() -> None:
    async with Talking(models=MODELS, metrics=metrics(3, 1)) as server:
        client = Client(parse_target(server.url))
        with pytest.raises(Problem, match="busy: 3 requests run and 1 wait"):
            await look_at(client, told())
        assert (await look_at(client, told(busy=True))).model == "m"


async def test_a_context_too_short_to_measure() -> None:
    async with Talking(models=MODELS) as server:
        with pytest.raises(Problem, match="40 tokens is too short"):
            await look_at(Client(parse_target(server.url)), told(max_model_len=40))


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"data": 3}', b'{"data": [3]}', b'{"data": [{"id": "m", "max_model_len": "x"}]}']
)
async def test_lists_of_models_of_other_shapes(body: bytes) -> None:
    async with Talking(models=body, version=body) as server:
        client = Client(parse_target(server.url))
        assert await read_max_model_len(client, "m") is None
        assert await read_version(client) == ""


async def test_nobody_there() -> None:
    async with Talking() as gone:
        client = Client(parse_target(gone.url))
    with pytest.raises(Problem, match="no server"):
        await look_at(client, told())
    assert await read_version(client) == ""


def session_that_sent(prompt_tokens: int, **changes: object) -> Session:
    client = Client(parse_target("http://127.0.0.1:9"))
    engine = Engine("m", "", Limits(4096, None, 8, 60), Gauges(), 16, 100, ())
    session = Session(client, engine, told(**changes), clock=lambda: 0.0, seed=0, progress=lambda *_: None)
    session.target.prompt_tokens = prompt_tokens
    return session


@pytest.fixture(scope="module")
def result() -> Result:
    return measured(known_engine(), seconds=20.0)


@pytest.mark.parametrize(
    ("processed", "notes"),
    [(1000, ()), (1005, ()), (1050, ("others sent 50 prompt tokens meanwhile",)), (None, ())],
)
def test_a_little_traffic_of_others_is_noted(processed: int | None, notes: tuple[str, ...], result: Result) -> None:
    after = Gauges(prompt_tokens=None if processed is None else 5000 + processed)
    checked = session_that_sent(1000)._checked(result, Gauges(prompt_tokens=5000), after)
    assert checked.notes == (*result.notes, *notes)


def test_much_traffic_of_others_spoils_the_measurement(result: Result) -> None:
    before, after = Gauges(prompt_tokens=0), Gauges(prompt_tokens=1200)
    with pytest.raises(Problem, match="others sent 200 prompt tokens meanwhile, 20% of what"):
        session_that_sent(1000)._checked(result, before, after)
    assert session_that_sent(1000, busy=True)._checked(result, before, after).notes[-1].startswith("others sent 200")
