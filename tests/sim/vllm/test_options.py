"""What flags change, against the captured answers of a vLLM that was started with them."""

import asyncio
import json
import re
from typing import Any

import httpx2
import pytest

from tests.sim.conditions import until
from tests.sim.vllm.conftest import Running, Start

CHAT = "/v1/chat/completions"
BUSY = {
    "error": {
        "message": "The engine is currently busy and cannot accept new requests. Please try again later or on a"
        " different instance.",
        "type": "Service Unavailable",
        "param": None,
        "code": 503,
    }
}


async def busy(engine: Running, requests: int, tokens: int = 800) -> list["asyncio.Future[Any]"]:
    """Start requests one after the other; the engine has seen each before the next one comes."""
    target = engine.server.driver.engine
    calls: list[asyncio.Future[Any]] = []
    for number in range(1, requests + 1):
        calls.append(asyncio.ensure_future(engine.complete(max_tokens=tokens)))
        await until(lambda seen=number: target.num_running + target.num_waiting == seen)  # type: ignore[misc]
    return calls


async def cancel(calls: list["asyncio.Future[Any]"]) -> None:
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


class TestApiKey:
    @pytest.mark.parametrize("path", ["/health", "/version", "/metrics", "/load", "/ping"])
    async def test_gates_nothing_but_v1(self, start: Start, path: str) -> None:
        engine = await start(api_keys=("secret",))
        assert (await engine.http.get(path)).status_code == 200

    @pytest.mark.parametrize("header", [None, "Bearer wrong", "secret", "Basic secret", "Bearer"])
    async def test_refuses_other_keys(self, start: Start, header: str | None) -> None:
        engine = await start(api_keys=("secret",))
        headers = {"authorization": header} if header else {}
        response = await engine.http.get("/v1/models", headers=headers)
        assert (response.status_code, response.json()) == (401, {"error": "Unauthorized"})

    async def test_accepts_each_of_several(self, start: Start) -> None:
        engine = await start(api_keys=("one", "two"))
        for key in ("one", "two"):
            response = await engine.http.get("/v1/models", headers={"authorization": f"Bearer {key}"})
            assert response.status_code == 200

    async def test_tokenize_stays_open(self, start: Start) -> None:
        engine = await start(api_keys=("secret",))
        assert (await engine.http.post("/tokenize", json={"prompt": "a b"})).json()["count"] == 2


class TestQueueLimit:
    async def test_a_full_queue_is_a_plain_503(self, start: Start) -> None:
        engine = await start(max_num_seqs=1, max_num_queued_reqs=2, speed=1.0)
        calls = await busy(engine, 3)
        await until(lambda: engine.server.driver.queue_looks_full)
        for stream in (False, True):
            response = await engine.http.post("/v1/completions", json={**engine.body, "stream": stream})
            assert (response.status_code, response.json()) == (503, BUSY)
            assert "retry-after" not in response.headers
        assert (await engine.http.get("/health")).status_code == 200
        assert 'admission_rejections_total{model_name="m",reason="max_num_queued_reqs"} 2.0' in await engine.metrics()
        await cancel(calls)

    async def test_streams_that_arrive_together_fail_in_the_stream(self, start: Start) -> None:
        engine = await start(max_num_seqs=1, max_num_queued_reqs=3)
        body = {**engine.body, "stream": True, "max_tokens": 5}
        responses = await asyncio.gather(*(engine.http.post("/v1/completions", json=body) for _ in range(12)))
        assert {response.status_code for response in responses} == {200}
        refused = [response.text for response in responses if '"error"' in response.text]
        assert refused
        for answer in refused:
            event, done, rest = answer.split("\n\n")
            assert json.loads(event.removeprefix("data: ")) == BUSY
            assert (done, rest) == ("data: [DONE]", "")
        counted = re.search(r'admission_rejections_total\{.*num_queued_reqs"\} (\S+)', await engine.metrics())
        assert counted
        assert float(counted[1]) == len(refused)

    async def test_whole_answers_that_arrive_together_are_503(self, start: Start) -> None:
        engine = await start(max_num_seqs=1, max_num_queued_reqs=3)
        body = {**engine.body, "max_tokens": 5}
        responses = await asyncio.gather(*(engine.http.post("/v1/completions", json=body) for _ in range(12)))
        assert {response.status_code for response in responses} == {200, 503}

    async def test_without_the_option_there_is_no_bound(self, start: Start) -> None:
        engine = await start(max_num_seqs=1, speed=200.0)
        answers = await asyncio.gather(*(engine.complete(max_tokens=2) for _ in range(60)))
        assert len(answers) == 60


class TestAdapters:
    async def start(self, start: Start, **options: Any) -> Running:
        return await start(max_loras=1, runtime_lora=True, **options)

    async def test_load_use_and_unload(self, start: Start) -> None:
        engine = await self.start(start)
        loaded = await engine.http.post("/v1/load_lora_adapter", json={"lora_name": "a", "lora_path": "/x"})
        assert (loaded.status_code, loaded.text) == (200, "Success: LoRA adapter 'a' added successfully.")
        cards = (await engine.http.get("/v1/models")).json()["data"]
        assert [(card["id"], card["root"], card["parent"]) for card in cards] == [("m", "m", None), ("a", "/x", "m")]
        assert (await engine.complete(model="a", max_tokens=2))["model"] == "a"
        unloaded = await engine.http.post("/v1/unload_lora_adapter", json={"lora_name": "a"})
        assert (unloaded.status_code, unloaded.text) == (200, "Success: LoRA adapter 'a' removed successfully.")
        gone = await engine.http.post("/v1/completions", json={**engine.body, "model": "a"})
        assert gone.status_code == 404

    @pytest.mark.parametrize(
        ("path", "body", "status", "message"),
        [
            ("load", {"lora_name": "x", "lora_path": ""}, 400, "Both 'lora_name' and 'lora_path' must be provided."),
            ("load", {"lora_name": "here", "lora_path": "/y"}, 400, "The lora adapter 'here' has already been loaded."),
            ("unload", {"lora_name": "nope"}, 404, "The lora adapter 'nope' cannot be found."),
            ("load", {"lora_path": "/y"}, 400, "1 validation error:"),
        ],
    )
    async def test_what_is_refused(
        self, start: Start, path: str, body: dict[str, str], status: int, message: str
    ) -> None:
        engine = await self.start(start, adapters=(("here", "/x"),))
        response = await engine.http.post(f"/v1/{path}_lora_adapter", json=body)
        assert response.status_code == status
        assert response.json()["error"]["message"].startswith(message)

    async def test_the_metric_names_running_and_waiting_adapters(self, start: Start) -> None:
        engine = await self.start(start, adapters=(("a", "/x"), ("b", "/x")), speed=1.0)
        calls = [asyncio.ensure_future(engine.complete(model=name, max_tokens=800)) for name in ("a", "b")]
        await until(lambda: engine.server.driver.engine.num_deferred == 1)
        scrape = await engine.metrics()
        labels = re.search(r"vllm:lora_requests_info\{(.*)\}", scrape)
        assert labels
        assert 'max_lora="1"' in labels[1]
        names = dict(re.findall(r'(\w+)_lora_adapters="(\w*)"', labels[1]))
        assert sorted(names.values()) == ["a", "b"]
        assert 'waiting_by_reason{engine="0",model_name="m",reason="deferred"} 1.0' in scrape
        await cancel(calls)

    @pytest.mark.parametrize("options", [{}, {"max_loras": 1}, {"runtime_lora": True}])
    async def test_both_options_are_needed(self, start: Start, options: dict[str, Any]) -> None:
        engine = await start(**options)
        response = await engine.http.post("/v1/load_lora_adapter", json={"lora_name": "a", "lora_path": "/x"})
        assert (response.status_code, response.json()) == (404, {"detail": "Not Found"})

    async def test_adapters_do_not_share_the_prefix_cache(self, start: Start) -> None:
        engine = await self.start(start, adapters=(("a", "/x"),), prompt_tokens_details=True)
        prompt = "word " * 64
        cached = [
            (await engine.complete(prompt=prompt, model=name, max_tokens=1))["usage"]["prompt_tokens_details"]
            for name in ("m", "m", "a", "a")
        ]
        assert [details["cached_tokens"] for details in cached] == [0, 48, 0, 48]


class TestDefaults:
    @pytest.mark.parametrize("path", ["/sleep", "/wake_up", "/pause", "/resume", "/abort_requests"])
    async def test_no_development_endpoints(self, start: Start, path: str) -> None:
        assert (await (await start()).http.post(path, json={})).status_code == 404

    async def test_no_request_id_header_no_details_no_load(self, start: Start) -> None:
        engine = await start(speed=1.0)
        calls = await busy(engine, 1)
        assert (await engine.http.get("/load")).json() == {"server_load": 0}
        await cancel(calls)
        response = await engine.http.post("/v1/completions", json={**engine.body, "max_tokens": 1})
        assert "x-request-id" not in response.headers
        assert response.json()["usage"]["prompt_tokens_details"] is None

    async def test_older_metric_names_are_hidden(self, start: Start) -> None:
        assert "gpu_cache_usage_perc" not in await (await start()).metrics()


async def test_older_metric_names_on_request(start: Start) -> None:
    engine = await start(hidden_metrics=True)
    await engine.complete(max_tokens=3)
    scrape = await engine.metrics()
    assert 'vllm:gpu_cache_usage_perc{engine="0",model_name="m"} 0.0' in scrape
    assert 'vllm:time_per_output_token_seconds_count{engine="0",model_name="m"} 2.0' in scrape


async def test_several_names(start: Start) -> None:
    engine = await start(names=("first", "second"))
    assert [card["id"] for card in (await engine.http.get("/v1/models")).json()["data"]] == ["first", "second"]
    assert (await engine.complete(model="second", max_tokens=1))["model"] == "second"
    refused = await engine.http.post("/v1/completions", json={**engine.body, "model": "third"})
    assert refused.json()["error"]["message"].endswith("Valid aliases: first, second.")


async def test_stream_interval_puts_several_tokens_into_a_chunk(start: Start) -> None:
    engine = await start(stream_interval=10)
    body = {**engine.body, "max_tokens": 41, "stream": True}
    text = (await engine.http.post("/v1/completions", json=body)).text
    chunks = [json.loads(line[6:]) for line in text.split("\n\n") if line.startswith("data: {")]
    assert len(chunks) <= 6
    assert len("".join(chunk["choices"][0]["text"] for chunk in chunks).split()) == 41


async def test_an_exact_length_ends_with_stop(start: Start) -> None:
    engine = await start()
    answer = await engine.complete(max_tokens=200, ignore_eos=False, vllm_xargs={"output_tokens": 17})
    assert answer["usage"]["completion_tokens"] == 17
    assert answer["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("value", [0, -1, "many", 1.5])
async def test_an_impossible_exact_length(start: Start, value: object) -> None:
    engine = await start()
    body = {**engine.body, "vllm_xargs": {"output_tokens": value}}
    response = await engine.http.post("/v1/completions", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "vllm_xargs.output_tokens"


async def test_equal_seeds_give_equal_answers_and_other_seeds_others(start: Start) -> None:
    one, same, other = await start(seed=1), await start(seed=1), await start(seed=2)
    fields = {"max_tokens": 900, "ignore_eos": False}
    texts = [(await engine.complete(**fields))["choices"][0]["text"] for engine in (one, same, other)]
    assert texts[0] == texts[1] != texts[2]
    seeded = [(await one.complete(**fields, seed=seed))["choices"][0]["text"] for seed in (5, 5, 6)]
    assert seeded[0] == seeded[1] != seeded[2]


async def test_a_short_kv_cache_preempts_and_all_are_served(start: Start) -> None:
    engine = await start(kv_blocks=48, block_size=32, max_num_seqs=4, speed=100.0)
    answers = await asyncio.gather(*(engine.complete(max_tokens=900) for _ in range(4)))
    assert [answer["usage"]["completion_tokens"] for answer in answers] == [900] * 4
    counted = re.search(r"num_preemptions_total\{.*\} (\S+)", await engine.metrics())
    assert counted
    assert float(counted[1]) > 0
    assert 'kv_cache_usage_perc{engine="0",model_name="m"} 0.0' in await engine.metrics()


async def test_the_next_turn_of_a_chat_hits_the_answer_too(start: Start) -> None:
    engine = await start(prompt_tokens_details=True)
    messages = [{"role": "user", "content": "tell me " * 20}]
    body = {"messages": messages, "max_tokens": 100, "ignore_eos": True}
    first = (await engine.http.post(CHAT, json=body)).json()
    answer = first["choices"][0]["message"]
    messages += [{"role": "assistant", "content": answer["content"]}, {"role": "user", "content": "go on"}]
    second = (await engine.http.post(CHAT, json=body)).json()
    known = first["usage"]["total_tokens"] - 1
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] == known // 16 * 16


def broken(*_: object) -> None:
    raise RuntimeError("a bug")


class TestUnexpectedErrors:
    async def test_one_request_fails_the_others_go_on(self, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
        engine = await start()

        with monkeypatch.context() as patch:
            patch.setattr("trimtab.sim.vllm.text.block_hashes", broken)
            response = await engine.http.post("/v1/completions", json=engine.body)
        error = {"message": "a bug", "type": "InternalServerError", "param": None, "code": 500}
        assert (response.status_code, response.json()) == (500, {"error": error})
        assert (await engine.complete(max_tokens=2))["usage"]["completion_tokens"] == 2
        assert "trimtab_engine_failures_total 1.0" in await engine.metrics()

    async def test_a_stream_that_has_begun_is_broken_off(self, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
        engine = await start()

        monkeypatch.setattr(engine.server.driver, "submit", broken)
        with pytest.raises(httpx2.RemoteProtocolError):
            await engine.http.post("/v1/completions", json={**engine.body, "stream": True})
        assert engine.server.driver.stats.failures == 1
        assert not engine.server.api._open

    @pytest.mark.parametrize(
        "content", [b'{"prompt": "\\ud800"}', b'{"prompt": "\xff"}', b'{"prompt": ' + b"[" * 100_000, b"\x00"]
    )
    async def test_bodies_that_parsers_choke_on(self, start: Start, content: bytes) -> None:
        engine = await start()
        headers = {"content-type": "application/json"}
        response = await engine.http.post("/v1/completions", content=content, headers=headers)
        assert response.status_code == 400
        assert engine.server.driver.stats.failures == 0


async def test_a_refused_choice_refuses_the_whole_answer(start: Start) -> None:
    engine = await start(max_num_seqs=1, max_num_queued_reqs=2)
    body = {**engine.body, "max_tokens": 4, "n": 4}
    whole = await engine.http.post("/v1/completions", json=body)
    assert (whole.status_code, whole.json()) == (503, BUSY)
    stream = (await engine.http.post("/v1/completions", json={**body, "stream": True})).text
    assert stream.count('"code":503') == 2
    assert stream.count('"finish_reason":"length"') == 2
    assert stream.endswith("data: [DONE]\n\n")


async def test_sleep_loses_the_keys_of_frozen_requests(start: Start) -> None:
    engine = await start(dev_mode=True, speed=4.0)
    [call] = await busy(engine, 1)
    await engine.http.post("/sleep?level=1&mode=keep")
    target = engine.server.driver.engine
    assert (target.num_running, target.num_waiting, target.cache.used) == (0, 1, 0)
    await engine.http.post("/wake_up")
    assert (await call)["usage"]["completion_tokens"] == 800
    assert target.preemptions == 1


async def test_pause_can_wait_for_open_requests(start: Start) -> None:
    engine = await start(dev_mode=True, speed=4.0)
    [call] = await busy(engine, 1, tokens=200)
    await engine.http.post("/pause?mode=wait")
    assert (await call)["usage"]["completion_tokens"] == 200
    assert engine.server.driver.engine.paused


async def test_pause_aborts_open_requests_by_default(start: Start) -> None:
    engine = await start(dev_mode=True)
    [call] = await busy(engine, 1)
    await engine.http.post("/pause")
    assert (await call)["choices"][0]["finish_reason"] == "abort"
