"""Everything that is not generation."""

import asyncio
import re

import pytest

from tests.contract.engine.client import MAX_NUM_SEQS, Engine

COUNTERS = [
    "prefix_cache_queries", "prefix_cache_hits", "external_prefix_cache_queries", "external_prefix_cache_hits",
    "mm_cache_queries", "mm_cache_hits", "num_preemptions", "prompt_tokens", "prompt_tokens_by_source",
    "prompt_tokens_cached", "prompt_tokens_cached_by_source", "generation_tokens", "request_success",
]  # fmt: skip
GAUGES = ["num_requests_running", "num_requests_waiting", "num_requests_waiting_by_reason", "kv_cache_usage_perc",
          "engine_sleep_state", "cache_config_info"]  # fmt: skip
HISTOGRAMS = [
    "request_prompt_tokens", "request_generation_tokens", "iteration_tokens_total", "request_max_num_generation_tokens",
    "request_params_n", "request_params_max_tokens", "time_to_first_token_seconds", "inter_token_latency_seconds",
    "request_time_per_output_token_seconds", "e2e_request_latency_seconds", "request_queue_time_seconds",
    "request_inference_time_seconds", "request_prefill_time_seconds", "request_decode_time_seconds",
    "request_num_preemptions", "request_prefill_kv_computed_tokens",
]  # fmt: skip
BOUNDS = {
    "time_to_first_token_seconds": "0.001 0.005 0.01 0.02 0.04 0.06 0.08 0.1 0.25 0.5 0.75 1.0 2.5 5.0 7.5 10.0 20.0"
    " 40.0 80.0 160.0 640.0 2560.0 +Inf",
    "inter_token_latency_seconds": "0.01 0.025 0.05 0.075 0.1 0.15 0.2 0.3 0.4 0.5 0.75 1.0 2.5 5.0 7.5 10.0 20.0"
    " 40.0 80.0 +Inf",
    "e2e_request_latency_seconds": "0.3 0.5 0.8 1.0 1.5 2.0 2.5 5.0 10.0 15.0 20.0 30.0 40.0 50.0 60.0 120.0 240.0"
    " 480.0 960.0 1920.0 7680.0 +Inf",
    "iteration_tokens_total": "1.0 8.0 16.0 32.0 64.0 128.0 256.0 512.0 1024.0 2048.0 4096.0 8192.0 16384.0 +Inf",
    "request_num_preemptions": "1.0 2.0 3.0 4.0 5.0 10.0 20.0 +Inf",
    "request_params_n": "1.0 2.0 5.0 10.0 20.0 +Inf",
}


@pytest.mark.parametrize("path", ["/health", "/ping"])
async def test_health_is_empty(api: Engine, path: str) -> None:
    response = await api.http.get(path)
    assert (response.status_code, response.content) == (200, b"")


async def test_version(api: Engine) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", (await api.http.get("/version")).json()["version"])


async def test_models(api: Engine) -> None:
    listing = (await api.http.get("/v1/models")).json()
    assert listing["object"] == "list"
    card = listing["data"][0]
    assert set(card) == {"id", "object", "created", "owned_by", "root", "parent", "max_model_len", "permission"}
    assert (card["object"], card["owned_by"], card["parent"]) == ("model", "vllm", None)
    assert card["permission"][0]["object"] == "model_permission"


async def test_tokenize_a_prompt(api: Engine) -> None:
    answer = (await api.http.post("/tokenize", json={"prompt": "hello gateway"})).json()
    assert set(answer) == {"count", "max_model_len", "tokens", "token_strs"}
    assert answer["count"] == len(answer["tokens"]) > 0
    assert (answer["max_model_len"], answer["token_strs"]) == (api.facts.max_model_len, None)


async def test_tokenize_counts_what_a_chat_costs(api: Engine) -> None:
    messages = [{"role": "user", "content": "hello gateway"}]
    answer = (await api.http.post("/tokenize", json={"messages": messages, "return_token_strs": True})).json()
    assert len(answer["token_strs"]) == answer["count"]
    assert (await api.chat())["usage"]["prompt_tokens"] == answer["count"]


class TestMetrics:
    async def types(self, api: Engine) -> dict[str, str]:
        text = (await api.http.get("/metrics")).text
        return dict(re.findall(r"^# TYPE vllm:(\S+) (\S+)$", text, re.MULTILINE))

    async def test_families_and_types(self, api: Engine) -> None:
        types = await self.types(api)
        expected = {f"{name}_total": "counter" for name in COUNTERS}
        expected |= dict.fromkeys(GAUGES, "gauge") | dict.fromkeys(HISTOGRAMS, "histogram")
        assert {name: types.get(name) for name in expected} == expected

    @pytest.mark.parametrize("name", BOUNDS)
    async def test_bounds(self, api: Engine, name: str) -> None:
        await api.chat()
        text = (await api.http.get("/metrics")).text
        found = re.findall(rf'^vllm:{name}_bucket\{{[^}}]*le="([^"]+)"', text, re.MULTILINE)
        assert " ".join(found) == BOUNDS[name]

    async def test_labels(self, api: Engine) -> None:
        text = (await api.http.get("/metrics")).text
        labels = f'{{engine="0",model_name="{api.facts.model}"}}'
        assert f"vllm:num_requests_running{labels} 0.0" in text
        success = f'{{engine="0",finished_reason="length",model_name="{api.facts.model}"}}'
        assert f"vllm:request_success_total{success} " in text
        assert {*re.findall(r'waiting_by_reason\{.*reason="(\w+)"', text)} == {"capacity", "deferred"}
        assert {*re.findall(r'engine_sleep_state\{.*sleep_state="(\w+)"', text)} == {
            "awake", "weights_offloaded", "discard_all",
        }  # fmt: skip

    async def test_a_request_is_counted(self, api: Engine) -> None:
        async def read() -> dict[str, float]:
            names = [f"{name}_count" for name in HISTOGRAMS] + ["generation_tokens_total", "prompt_tokens_total"]
            values = {name: await api.metric(f"vllm:{name}") for name in names}
            return values | {"length": await api.metric("vllm:request_success_total", finished_reason="length")}

        await api.idle()
        before = await read()
        usage = (await api.chat(tokens=7))["usage"]
        await api.until(
            lambda: api.metric("vllm:request_success_total", finished_reason="length"),
            lambda value: value == before["length"] + 1,
        )
        grown = {name: value - before[name] for name, value in (await read()).items()}
        assert grown["generation_tokens_total"] == 7
        assert grown["prompt_tokens_total"] == usage["prompt_tokens"]
        assert grown["inter_token_latency_seconds_count"] == 6
        assert grown["iteration_tokens_total_count"] >= 7
        once = set(HISTOGRAMS) - {"inter_token_latency_seconds", "iteration_tokens_total"}
        assert {name: grown[f"{name}_count"] for name in once} == dict.fromkeys(once, 1.0)


class TestLoad:
    async def test_slots_queue_and_kv_cache_show(self, api: Engine) -> None:
        await api.idle()
        calls = [asyncio.ensure_future(api.chat(tokens=500)) for _ in range(MAX_NUM_SEQS + 3)]
        await api.until(api.running, lambda value: value == MAX_NUM_SEQS)
        await api.until(api.waiting, lambda value: value == 3)
        assert await api.metric("vllm:num_requests_waiting_by_reason", reason="capacity") == 3
        assert 0 < await api.metric("vllm:kv_cache_usage_perc") <= 1
        load = (await api.http.get("/load")).json()
        assert load in ({"server_load": MAX_NUM_SEQS + 3}, {"server_load": 0})
        await asyncio.gather(*calls)
        await api.idle()
        assert await api.metric("vllm:kv_cache_usage_perc") == 0

    async def test_priorities_order_the_queue(self, api: Engine) -> None:
        await api.idle()
        finished: list[int] = []

        async def one(priority: int) -> None:
            await api.chat(tokens=30, priority=priority)
            finished.append(priority)

        blockers = [asyncio.ensure_future(api.chat(tokens=900)) for _ in range(MAX_NUM_SEQS)]
        await api.until(api.running, lambda value: value == MAX_NUM_SEQS)
        waiting = [asyncio.ensure_future(one(priority)) for priority in [10] * 8 + [0] * 8 + [-10] * 8]
        await api.until(api.waiting, lambda value: value == len(waiting))
        await asyncio.gather(*blockers, *waiting)
        if finished[:8] == [10] * 8:
            pytest.skip("the engine schedules first come, first served")
        assert finished == sorted(finished)


class TestDisconnect:
    async def test_of_a_running_stream_frees_its_slot(self, api: Engine) -> None:
        await api.idle()
        async with api.open_stream(900) as lines:
            await anext(lines)
            assert await api.running() == 1
        await api.until(api.running, lambda value: value == 0, seconds=5)

    async def test_of_a_waiting_request_takes_it_out_of_the_queue(self, api: Engine) -> None:
        await api.idle()
        async with api.open_stream(900), api.open_stream(900), api.open_stream(900), api.open_stream(900):
            await api.until(api.running, lambda value: value == MAX_NUM_SEQS)
            async with api.open_stream(900):
                await api.until(api.waiting, lambda value: value == 1)
            await api.until(api.waiting, lambda value: value == 0, seconds=5)
            assert await api.running() == MAX_NUM_SEQS
        await api.idle()

    async def test_of_a_whole_answer_frees_its_slot(self, api: Engine) -> None:
        await api.idle()
        call = asyncio.ensure_future(api.chat(tokens=900))
        await api.until(api.running, lambda value: value == 1)
        call.cancel()
        await api.until(api.running, lambda value: value == 0, seconds=5)


class TestDevelopmentEndpoints:
    async def test_sleep_holds_requests_until_wake_up(self, api: Engine) -> None:
        api.needs_dev_mode()
        await api.idle()
        slept = await api.http.post("/sleep?level=1")
        assert (slept.status_code, slept.json()) == (200, {"status": "sleeping", "level": 1})
        assert (await api.http.get("/is_sleeping")).json() == {"is_sleeping": True}
        assert await api.metric("vllm:engine_sleep_state", sleep_state="awake") == 0
        assert await api.metric("vllm:engine_sleep_state", sleep_state="weights_offloaded") == 1
        call = asyncio.ensure_future(api.chat())
        await api.until(
            lambda: api.http.get("/load"), lambda response: response.json()["server_load"] in {0, 1}, seconds=1
        )
        assert (await api.http.get("/health")).status_code == 200
        assert (await api.http.get("/v1/models")).status_code == 200
        assert (await api.running(), await api.waiting()) == (0, 0)
        assert not call.done()
        woken = await api.http.post("/wake_up")
        assert (woken.status_code, woken.json()) == (200, {"status": "awake", "tags": None})
        assert (await call)["usage"]["completion_tokens"] == 4
        assert (await api.http.get("/is_sleeping")).json() == {"is_sleeping": False}

    async def test_an_engine_sleeps_until_every_part_is_awake(self, api: Engine) -> None:
        api.needs_dev_mode()
        await api.idle()
        await api.http.post("/sleep?level=1")
        part = await api.http.post("/wake_up?tags=weights")
        assert part.json() == {"status": "sleeping", "tags": ["weights"]}
        assert (await api.http.get("/is_sleeping")).json() == {"is_sleeping": True}
        assert await api.metric("vllm:engine_sleep_state", sleep_state="weights_offloaded") == 1
        rest = await api.http.post("/wake_up?tags=kv_cache")
        assert rest.json() == {"status": "awake", "tags": ["kv_cache"]}
        assert (await api.http.get("/is_sleeping")).json() == {"is_sleeping": False}
        assert (await api.chat())["usage"]["completion_tokens"] == 4

    async def test_level_0_only_stops_scheduling(self, api: Engine) -> None:
        api.needs_dev_mode()
        await api.idle()
        assert (await api.http.post("/sleep?level=0")).json() == {"status": "sleeping", "level": 0}
        assert (await api.http.get("/is_paused")).json() == {"is_paused": True}
        assert (await api.http.get("/is_sleeping")).json() == {"is_sleeping": True}
        assert await api.metric("vllm:engine_sleep_state") == 0, "neither awake nor in a deeper state"
        await api.http.post("/wake_up")
        assert await api.metric("vllm:engine_sleep_state", sleep_state="awake") == 1

    async def test_pause_and_resume(self, api: Engine) -> None:
        api.needs_dev_mode()
        await api.idle()
        assert (await api.http.post("/pause")).json() == {"status": "paused"}
        assert (await api.http.get("/is_paused")).json() == {"is_paused": True}
        assert (await api.http.get("/is_sleeping")).json() == {"is_sleeping": True}
        call = asyncio.ensure_future(api.chat())
        await asyncio.wait({call}, timeout=0.3)
        assert not call.done()
        assert (await api.http.post("/resume")).json() == {"status": "resumed"}
        assert (await call)["usage"]["completion_tokens"] == 4
        assert (await api.http.get("/is_paused")).json() == {"is_paused": False}

    async def test_abort_wants_the_id_of_the_answer(self, api: Engine) -> None:
        api.needs_dev_mode()
        await api.idle()
        options = {"include_usage": True}
        body = api.chat_body(tokens=900, stream_options=options)
        call = asyncio.ensure_future(api.stream("/v1/chat/completions", body, {"X-Request-Id": "gone"}))
        await api.until(api.running, lambda value: value == 1)
        other = await api.http.post("/abort_requests", json={"request_ids": ["gone"]})
        assert other.json() == {"status": "aborted", "aborted": 1}
        assert not call.done()
        aborted = await api.http.post("/abort_requests", json={"request_ids": ["chatcmpl-gone"]})
        assert aborted.json() == {"status": "aborted", "aborted": 1}
        *_, last, usage, done = await call
        assert done == "[DONE]"
        assert last["choices"][0]["finish_reason"] == "abort"
        assert 0 < usage["usage"]["completion_tokens"] < 900

    async def test_abort_of_a_whole_answer(self, api: Engine) -> None:
        api.needs_dev_mode()
        await api.idle()
        call = asyncio.ensure_future(api.chat(tokens=900, headers={"X-Request-Id": "whole"}))
        await api.until(api.running, lambda value: value == 1)
        await api.http.post("/abort_requests", json={"request_ids": ["chatcmpl-whole"]})
        answer = await call
        assert answer["choices"][0]["finish_reason"] == "abort"
        assert answer["usage"]["completion_tokens"] < 900

    async def test_abort_without_ids_ends_all(self, api: Engine) -> None:
        api.needs_dev_mode()
        await api.idle()
        calls = [asyncio.ensure_future(api.chat(tokens=900)) for _ in range(2)]
        await api.until(api.running, lambda value: value == 2)
        aborted = await api.http.post("/abort_requests", json={})
        assert aborted.json() == {"status": "aborted", "aborted": 2}
        reasons = [answer["choices"][0]["finish_reason"] for answer in await asyncio.gather(*calls)]
        assert reasons == ["abort", "abort"]

    async def test_reset_prefix_cache(self, api: Engine) -> None:
        api.needs_dev_mode()
        await api.idle()
        assert (await api.http.post("/reset_prefix_cache")).json() == {"success": True}
