"""Whole and streamed answers: order of chunks, usage, ids, lengths."""

import asyncio
import re
import time

import pytest

from tests.contract.engine.client import Engine, events

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"


async def test_a_whole_chat_answer(api: Engine) -> None:
    answer = await api.chat(tokens=6)
    assert set(answer) == {
        "id", "object", "created", "model", "choices", "service_tier", "system_fingerprint", "usage",
        "prompt_logprobs", "prompt_token_ids", "prompt_text", "kv_transfer_params", "ec_transfer_params", "metrics",
    }  # fmt: skip
    [choice] = answer["choices"]
    assert set(choice) == {
        "index", "message", "logprobs", "finish_reason", "stop_reason", "token_ids", "routed_experts",
    }  # fmt: skip
    assert set(choice["message"]) == {
        "role", "content", "refusal", "annotations", "audio", "function_call", "reasoning",
    }  # fmt: skip
    assert (answer["object"], answer["model"]) == ("chat.completion", api.facts.model)
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("length", None)
    usage = answer["usage"]
    assert usage["completion_tokens"] == 6
    assert usage["total_tokens"] == usage["prompt_tokens"] + 6
    assert re.fullmatch(r"chatcmpl-[0-9a-f]{16}", answer["id"])
    assert abs(answer["created"] - time.time()) < 60
    assert answer["system_fingerprint"].startswith("vllm-")


async def test_a_whole_text_answer(api: Engine) -> None:
    body = {"model": api.facts.model, "prompt": "hello", "max_tokens": 3, "ignore_eos": True, "temperature": 0}
    answer = (await api.http.post(TEXT, json=body)).json()
    assert set(answer) == {
        "id", "object", "created", "model", "choices", "service_tier", "system_fingerprint", "usage",
        "kv_transfer_params", "ec_transfer_params", "metrics",
    }  # fmt: skip
    [choice] = answer["choices"]
    assert set(choice) == {
        "index", "text", "logprobs", "finish_reason", "stop_reason", "token_ids", "prompt_logprobs",
        "prompt_token_ids", "routed_experts",
    }  # fmt: skip
    assert answer["object"] == "text_completion"
    assert answer["usage"]["completion_tokens"] == 3
    assert re.fullmatch(r"cmpl-[0-9a-f]{16}", answer["id"])


async def test_several_prompts_are_several_choices(api: Engine) -> None:
    body = {"prompt": ["a", "b"], "max_tokens": 2, "temperature": 0, "ignore_eos": True}
    answer = (await api.http.post(TEXT, json=body)).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert answer["usage"]["completion_tokens"] == 4


async def test_token_ids_are_a_prompt(api: Engine) -> None:
    body = {"prompt": [5, 6, 7, 8], "max_tokens": 3, "temperature": 0, "ignore_eos": True}
    answer = (await api.http.post(TEXT, json=body)).json()
    assert answer["usage"]["prompt_tokens"] == 4


async def test_echo_puts_the_prompt_first(api: Engine) -> None:
    body = {"prompt": "hello gateway", "max_tokens": 2, "temperature": 0, "ignore_eos": True, "echo": True}
    answer = (await api.http.post(TEXT, json=body)).json()
    assert answer["choices"][0]["text"].startswith("hello gateway")


async def test_order_of_a_chat_stream_with_usage(api: Engine) -> None:
    chunks = await api.stream(CHAT, api.chat_body(tokens=5, stream_options={"include_usage": True}))
    *parts, usage, done = chunks
    assert done == "[DONE]"
    first, *middle, last = parts
    assert first["choices"][0] == {
        "index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None,
    }  # fmt: skip
    assert first["prompt_token_ids"] is first["prompt_text"] is None
    for chunk in middle:
        assert set(chunk) == {"id", "object", "created", "model", "choices"}, "usage is absent, not null"
        assert set(chunk["choices"][0]) == {"index", "delta", "logprobs", "finish_reason", "token_ids"}
        assert chunk["choices"][0]["finish_reason"] is None
    assert (last["choices"][0]["finish_reason"], last["choices"][0]["stop_reason"]) == ("length", None)
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 5
    assert usage["usage"]["total_tokens"] == usage["usage"]["prompt_tokens"] + 5
    assert [chunk for chunk in parts if "system_fingerprint" in chunk] == []
    assert usage["system_fingerprint"].startswith("vllm-")
    assert {chunk["id"] for chunk in [*parts, usage]} == {first["id"]}
    assert {chunk["object"] for chunk in [*parts, usage]} == {"chat.completion.chunk"}


async def test_without_usage_the_last_chunk_has_the_fingerprint(api: Engine) -> None:
    *parts, last, done = await api.stream(CHAT, api.chat_body(tokens=3))
    assert done == "[DONE]"
    assert last["choices"][0]["finish_reason"] == "length"
    assert "system_fingerprint" in last
    assert not any("system_fingerprint" in chunk or "usage" in chunk for chunk in parts)


async def test_a_stream_has_the_text_of_the_whole_answer(api: Engine) -> None:
    chunks = await api.stream(CHAT, api.chat_body(tokens=12, text="the same"))
    streamed = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks[:-1])
    whole = await api.chat(tokens=12, text="the same")
    assert streamed == whole["choices"][0]["message"]["content"]


async def test_continuous_usage_counts_up(api: Engine) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    *parts, last, _ = await api.stream(CHAT, api.chat_body(tokens=6, stream_options=options))
    counts = [chunk["usage"]["completion_tokens"] for chunk in parts]
    assert counts[0] == 0
    assert counts == sorted(counts)
    assert counts[-1] == last["usage"]["completion_tokens"] == 6
    for chunk in parts:
        usage = chunk["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        assert usage["completion_tokens_details"] is None


@pytest.mark.parametrize("options", [{"continuous_usage_stats": True}, {"include_usage": False}, {}, None])
async def test_nothing_but_include_usage_gives_usage(api: Engine, options: object) -> None:
    chunks = await api.stream(CHAT, api.chat_body(stream_options=options))
    assert not any("usage" in chunk for chunk in chunks[:-1])


async def test_order_of_a_text_stream(api: Engine) -> None:
    body = {"prompt": "hello", "max_tokens": 3, "ignore_eos": True, "temperature": 0}
    options = {"include_usage": True, "continuous_usage_stats": True}
    *parts, last, done = await api.stream(TEXT, {**body, "stream_options": options})
    assert done == "[DONE]"
    keys = {"index", "text", "logprobs", "finish_reason", "stop_reason", "prompt_token_ids", "token_ids"}
    assert all(set(chunk["choices"][0]) == keys for chunk in parts)
    assert parts[-1]["choices"][0]["finish_reason"] == "length"
    assert set(parts[0]["usage"]) == {"prompt_tokens", "total_tokens", "completion_tokens"}
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 3)


@pytest.mark.parametrize(("path", "prefix"), [(CHAT, "chatcmpl-"), (TEXT, "cmpl-")])
async def test_the_request_id_header_becomes_the_id(api: Engine, path: str, prefix: str) -> None:
    body = {**api.chat_body(), "prompt": "x", "request_id": "from-body"}
    answer = await api.http.post(path, json=body, headers={"X-Request-Id": "from-header"})
    assert answer.json()["id"] == f"{prefix}from-header"
    if "x-request-id" in answer.headers:
        assert answer.headers["x-request-id"] == "from-header"


async def test_the_body_can_name_the_id(api: Engine) -> None:
    assert (await api.chat(request_id="from-body"))["id"] == "chatcmpl-from-body"


async def test_two_live_requests_with_one_id_are_both_served(api: Engine) -> None:
    calls = (api.chat(tokens=30, headers={"X-Request-Id": "twice"}) for _ in range(2))
    answers = await asyncio.gather(*calls)
    assert [answer["usage"]["completion_tokens"] for answer in answers] == [30, 30]


async def test_max_completion_tokens_wins(api: Engine) -> None:
    answer = await api.chat(tokens=9, max_completion_tokens=3)
    assert answer["usage"]["completion_tokens"] == 3


async def test_several_choices(api: Engine) -> None:
    answer = await api.chat(tokens=3, n=3, temperature=1.0)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert answer["usage"]["completion_tokens"] == 9


async def test_several_streamed_choices_each_end(api: Engine) -> None:
    body = api.chat_body(tokens=3, n=2, temperature=1.0, stream_options={"include_usage": True})
    chunks = await api.stream(CHAT, body)
    ends = [c["choices"][0]["index"] for c in chunks[:-2] if c["choices"][0]["finish_reason"]]
    assert sorted(ends) == [0, 1]
    assert chunks[-2]["usage"]["completion_tokens"] == 6


async def test_a_stop_string_ends_the_answer_and_is_not_shown(api: Engine) -> None:
    text = (await api.chat(tokens=30, text="stop here"))["choices"][0]["message"]["content"]
    stop = text[len(text) // 2 : len(text) // 2 + 3]
    answer = await api.chat(tokens=30, text="stop here", stop=[stop])
    [choice] = answer["choices"]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", stop)
    assert choice["message"]["content"] == text[: text.index(stop)]
    assert answer["usage"]["completion_tokens"] <= 30


async def test_a_stop_string_never_shows_in_a_stream(api: Engine) -> None:
    text = (await api.chat(tokens=30, text="stop here"))["choices"][0]["message"]["content"]
    stop = text[len(text) // 2 : len(text) // 2 + 3]
    chunks = await api.stream(CHAT, api.chat_body(tokens=30, text="stop here", stop=stop))
    streamed = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks[:-1])
    assert streamed == text[: text.index(stop)]
    assert chunks[-2]["choices"][0]["stop_reason"] == stop


async def test_min_tokens_holds_off_the_end(api: Engine) -> None:
    answer = await api.chat(tokens=40, ignore_eos=False, min_tokens=40)
    assert answer["usage"]["completion_tokens"] == 40


async def test_the_prefix_cache_shows_in_usage(api: Engine) -> None:
    words = api.facts.block_size * 4
    text = f"prefix {time.time_ns()} " + "go " * words
    first = (await api.chat(text=text))["usage"]
    second = (await api.chat(text=text))["usage"]
    if first["prompt_tokens_details"] is None:
        pytest.skip("the engine does not tell cached tokens")
    blocks = first["prompt_tokens"] // api.facts.block_size * api.facts.block_size
    assert first["prompt_tokens_details"]["created_cache_tokens"] == blocks
    assert second["prompt_tokens_details"] == {
        "cached_tokens": (first["prompt_tokens"] - 1) // api.facts.block_size * api.facts.block_size,
        "created_cache_tokens": 0,
        "multimodal_tokens": None,
    }
    salted = (await api.chat(text=text, cache_salt=str(time.time_ns())))["usage"]
    assert salted["prompt_tokens_details"]["cached_tokens"] == 0


async def test_headers_come_while_the_request_is_still_queued(api: Engine) -> None:
    await api.idle()
    async with api.open_stream(900), api.open_stream(900), api.open_stream(900), api.open_stream(900):
        await api.until(api.running, lambda value: value == 4)
        async with api.open_stream(2, priority=5) as lines:  # the status is here, before any token
            await api.until(api.waiting, lambda value: value == 1)
            assert (await anext(lines)).startswith("data: ")
    await api.idle()


def test_events_are_split() -> None:
    assert events('data: {"a": 1}\n\ndata: [DONE]\n\n') == [{"a": 1}, "[DONE]"]
