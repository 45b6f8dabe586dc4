# Copyright 2026 The gad_verl Authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""An OpenAI-compatible server on loopback that answers at once and, on demand, wrongly.

    with FaultServer(faults=Faults(server_error=0.1, retry_after="0.05")) as server:
        ... Endpoint(server.base_url, server.model) ...
    server.received   # every request, in order of arrival

Which fault a request meets depends on the seed, on its content and on how often this content has come, not on the
order of arrival. As a script it serves until it is ended and writes its URL to standard output.
"""

import argparse
import asyncio
import json
import random
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, Self

from aiohttp import web

MODEL = "loopback"


@dataclass(frozen=True)
class Faults:
    """Shares of the requests that meet each fault, and how the faults look.

    ``timeout`` is silence for ``silence_s``; ``cut_body`` ends the connection in the middle of the answer;
    ``retry_after`` is the header's value, ``date`` stands for an HTTP date two seconds ahead, None leaves it out.
    """

    rate_limited: float = 0.0
    server_error: float = 0.0
    timeout: float = 0.0
    broken_json: float = 0.0
    cut_body: float = 0.0
    content_type: float = 0.0
    no_choices: float = 0.0
    retry_after: str | None = "0.02"
    silence_s: float = 30.0
    seed: int = 0

    @classmethod
    def evenly(cls, share: float, **more: Any) -> "Faults":
        """All six faults of the protocol, together ``share`` of the requests."""
        names = ("rate_limited", "server_error", "timeout", "broken_json", "cut_body", "content_type")
        return cls(**dict.fromkeys(names, share / len(names)), **more)

    def draw(self, content: str, occurrence: int) -> str | None:
        """Name of the fault that this request meets, or None."""
        dice = random.Random(f"{self.seed}/{occurrence}/{content}").random()
        for name in (
            "rate_limited",
            "server_error",
            "timeout",
            "broken_json",
            "cut_body",
            "content_type",
            "no_choices",
        ):
            dice -= getattr(self, name)
            if dice < 0:
                return name
        return None


@dataclass(frozen=True)
class Reply:
    """A whole response of another manner: body (JSON, or text as it is), status and headers."""

    body: Any
    status: int = 200
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)

    def response(self) -> web.Response:
        text = self.body if isinstance(self.body, str) else json.dumps(self.body)
        return web.Response(text=text, status=self.status, content_type=self.content_type, headers=self.headers)


@dataclass(frozen=True)
class Received:
    """One request to ``/chat/completions``: arrival in seconds (monotonic), body, and what it met (None: an answer)."""

    time: float
    body: dict[str, Any]
    fault: str | None

    @property
    def prompt(self) -> str:
        """Content of the last message."""
        return self.body["messages"][-1]["content"]


def echo(body: dict[str, Any]) -> tuple[str, str]:
    """The default answer, text and finish reason: names the question."""
    return f"Answer to: {body['messages'][-1]['content']}", "stop"


@dataclass
class FaultServer:
    """The server, in a thread of its own, from ``with`` to the end of the block.

    Attributes:
        answer: Makes text and finish reason from a request's body; an int instead is an HTTP status to refuse with, a
            Reply the whole response.
        faults: What goes wrong.
        key: The key to insist on; None takes every key.
        model: The one model that it has.
        latency_s: Time that every answer takes.
        hold_after: Requests after so many wait until this is None, so that a client cannot finish meanwhile.
        models_listed: Whether ``/models`` exists.
        models_reply: What ``/models`` says instead of the model.
        tls: Context of a server that speaks HTTPS.
        host, port: Where it listens; port 0 takes a free one.
    """

    answer: Callable[[dict[str, Any]], tuple[str, str] | int | Reply] = echo
    faults: Faults = field(default_factory=Faults)
    key: str | None = None
    model: str = MODEL
    latency_s: float = 0.0
    hold_after: int | None = None
    models_listed: bool = True
    models_reply: Reply | None = None
    tls: ssl.SSLContext | None = None
    host: str = "127.0.0.1"
    port: int = 0

    received: list[Received] = field(default_factory=list, init=False)
    most_in_flight: int = field(default=0, init=False)
    _in_flight: int = field(default=0, init=False)
    _seen: Counter[str] = field(default_factory=Counter, init=False)

    @property
    def base_url(self) -> str:
        """For the client, with the version."""
        return f"http{'s' if self.tls else ''}://{self.host}:{self.port}/v1"

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        if not ready.wait(10):
            raise RuntimeError("the loopback server did not start")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(10)

    def _run(self, ready: threading.Event) -> None:
        # asyncio.Runner ends the handlers that still keep silence.
        with asyncio.Runner() as runner:
            runner.run(self._serve(ready))

    async def _serve(self, ready: threading.Event) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=2**24)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        # A handler ends with its connection: clients that lose patience leave nothing behind.
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, self.host, self.port, backlog=1024, ssl_context=self.tls)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]
        ready.set()
        await self._stopped.wait()
        await runner.cleanup()

    def _unauthorised(self, request: web.Request) -> web.Response | None:
        sent = request.headers.get("Authorization", "")
        if self.key is None or sent == f"Bearer {self.key}":
            return None
        # As careless as some servers are: the key comes back in the message.
        return error_response(401, f"Incorrect API key provided: {sent.removeprefix('Bearer ')}")

    async def _models(self, request: web.Request) -> web.Response:
        if refused := self._unauthorised(request):
            return refused
        if self.models_reply is not None:
            return self.models_reply.response()
        if not self.models_listed:
            return web.Response(status=404, text="<html>not found</html>", content_type="text/html")
        return web.json_response({"object": "list", "data": [{"id": self.model, "object": "model"}]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        arrived = time.monotonic()
        body = await request.json()
        content = json.dumps(body, sort_keys=True)
        if refused := self._unauthorised(request):
            return refused
        fault = self.faults.draw(content, self._seen[content])
        self._seen[content] += 1
        self.received.append(Received(arrived, body, fault))
        number = len(self.received)
        self._in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self._in_flight)
        try:
            if self.latency_s:
                await asyncio.sleep(self.latency_s)
            while self.hold_after is not None and number > self.hold_after:
                await asyncio.sleep(0.01)
            return await self._respond(request, body, fault)
        finally:
            self._in_flight -= 1

    async def _respond(self, request: web.Request, body: dict[str, Any], fault: str | None) -> web.StreamResponse:
        if body.get("model") != self.model:
            return error_response(404, f"The model {body.get('model')!r} does not exist")
        if fault == "rate_limited":
            value = self.faults.retry_after
            value = formatdate(time.time() + 2, usegmt=True) if value == "date" else value
            return error_response(429, "Rate limit reached", {} if value is None else {"Retry-After": value})
        if fault == "server_error":
            return error_response(500, "The server had an error")
        if fault == "timeout":
            await asyncio.sleep(self.faults.silence_s)
        if fault == "content_type":
            return web.Response(text="<html>A proxy's page</html>", content_type="text/html")
        if fault == "no_choices":
            return web.json_response({"object": "chat.completion", "choices": []})
        outcome = self.answer(body)
        if isinstance(outcome, Reply):
            return outcome.response()
        if isinstance(outcome, int):
            return error_response(outcome, "This request cannot be processed")
        text, reason = outcome
        whole = json.dumps(completion(self.model, body, text, reason)).encode()
        if fault == "broken_json":
            return web.Response(body=whole[: len(whole) // 2], content_type="application/json")
        if fault == "cut_body":
            response = web.StreamResponse(
                headers={"Content-Type": "application/json", "Content-Length": str(len(whole))}
            )
            await response.prepare(request)
            await response.write(whole[: len(whole) // 2])
            request.transport.close()
            return response
        return web.Response(body=whole, content_type="application/json")


def usage(prompt: str, text: str) -> dict[str, int]:
    """Tokens, counted as words."""
    counts = len(prompt.split()), len(text.split())
    return {"prompt_tokens": counts[0], "completion_tokens": counts[1], "total_tokens": sum(counts)}


def completion(model: str, body: dict[str, Any], text: str, reason: str) -> dict[str, Any]:
    """A body of the protocol."""
    # Of messages with parts, their JSON: images count too.
    contents = [message["content"] for message in body["messages"]]
    prompt = " ".join(one if isinstance(one, str) else json.dumps(one) for one in contents)
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": usage(prompt, text),
    }


def error_response(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    """An error of the protocol."""
    return web.json_response({"error": {"message": message, "type": "error"}}, status=status, headers=headers)


def most_in_a_window(times: list[float], seconds: float) -> int:
    """The largest number of events in any window of so many seconds."""
    times, most, first = sorted(times), 0, 0
    for last, moment in enumerate(times):
        while moment - times[first] >= seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--latency-s", type=float, default=0.0)
    parser.add_argument("--faults", type=float, default=0.0, help="share of requests that meet a fault")
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    faults = Faults.evenly(arguments.faults, silence_s=2.0)
    with FaultServer(latency_s=arguments.latency_s, faults=faults, port=arguments.port) as server:
        sys.stdout.write(f"{server.base_url}\n")
        sys.stdout.flush()
        threading.Event().wait()


if __name__ == "__main__":
    main()
