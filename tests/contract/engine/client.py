"""A client of one engine, and what the tests must know about it."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import httpx2
import pytest

MAX_NUM_SEQS = 4


@dataclass(frozen=True)
class Facts:
    """What differs between engines."""

    model: str
    max_model_len: int
    block_size: int
    dev_mode: bool

    @classmethod
    def of(cls, url: str) -> Self:
        with httpx2.Client(base_url=url, timeout=30) as client:
            card = client.get("/v1/models").raise_for_status().json()["data"][0]
            found = re.search(r'vllm:cache_config_info\{[^}]*\bblock_size="(\d+)"', client.get("/metrics").text)
            assert found, "the engine does not tell its block size"
            dev_mode = client.get("/is_sleeping").status_code == 200
            return cls(card["id"], card["max_model_len"], int(found[1]), dev_mode)


def events(text: str) -> list[Any]:
    """The parsed events of a stream; `[DONE]` stays a string."""
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


class Engine:
    """Calls that several tests make."""

    def __init__(self, http: httpx2.AsyncClient, facts: Facts) -> None:
        self.http = http
        self.facts = facts

    def chat_body(self, *, text: str = "hello gateway", tokens: int = 4, **fields: Any) -> dict[str, Any]:
        """A chat request whose answer has exactly `tokens` tokens; a field set to `...` is left out."""
        body = {
            "model": self.facts.model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": tokens,
            "ignore_eos": True,
            "temperature": 0,
            **fields,
        }
        return {name: value for name, value in body.items() if value is not ...}

    async def chat(self, *, headers: dict[str, str] | None = None, **fields: Any) -> dict[str, Any]:
        """A whole answer."""
        response = await self.http.post("/v1/chat/completions", json=self.chat_body(**fields), headers=headers)
        assert response.status_code == 200, response.text
        return response.json()  # type: ignore[no-any-return]

    async def stream(self, path: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> list[Any]:
        """All events of a streamed answer."""
        response = await self.http.post(path, json={**body, "stream": True}, headers=headers)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        return events(response.text)

    @asynccontextmanager
    async def open_stream(self, tokens: int, **fields: Any) -> AsyncIterator[AsyncIterator[str]]:
        """A stream that is left early, by leaving the block."""
        body = self.chat_body(tokens=tokens, stream=True, **fields)
        async with self.http.stream("POST", "/v1/chat/completions", json=body) as response:
            assert response.status_code == 200
            yield response.aiter_lines()

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels; 0 if there is none."""
        text = (await self.http.get("/metrics")).text
        samples = re.findall(rf"^{re.escape(name)}\{{(.*)\}} (\S+)$", text, re.MULTILINE)
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(float(value) for found, value in samples if all(label in found for label in wanted))

    async def running(self) -> float:
        return await self.metric("vllm:num_requests_running")

    async def waiting(self) -> float:
        return await self.metric("vllm:num_requests_waiting")

    async def until(self, read: Callable[[], Any], want: Callable[[Any], bool], seconds: float = 10) -> Any:
        """Poll until the value is as wanted."""
        deadline = time.monotonic() + seconds
        while True:
            value = await read()
            if want(value):
                return value
            if time.monotonic() > deadline:
                pytest.fail(f"still {value!r} after {seconds} s")
            await asyncio.sleep(0.01)

    async def idle(self) -> None:
        """Wait until nothing runs or waits."""
        await self.until(self.running, lambda value: value == 0)
        await self.until(self.waiting, lambda value: value == 0)

    def needs_dev_mode(self) -> None:
        if not self.facts.dev_mode:
            pytest.skip("the engine serves no development endpoints")
