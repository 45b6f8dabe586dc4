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
"""What our client costs: its wall time over that of the bare server.

    python benchmarks/client.py                        # writes benchmarks/results/client.json and prints the table

The same requests go to the loopback server of the tests (a process of its own, without faults, with a fixed time per
answer): through ``gad_verl.tools.api`` with its store on disk, and through a plain closed loop of as many workers with
``aiohttp`` that keeps nothing. A ratio of 1 means that asking takes as long as the server does.
"""

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from common import Ratio, alternate, arguments, machine, table, write
from device import measure_the_cpu

from gad_verl.tools.api import AnswerStore, ChatRequest, Endpoint, answer_all_sync

SERVER = Path(__file__).resolve().parents[1] / "tests" / "tools" / "fault_server.py"
MODEL = "loopback"
SAMPLING = {"temperature": 0.7, "max_tokens": 256}


@dataclass(frozen=True)
class Case:
    """Requests, how many of them at the same time, and seconds that the server takes for each."""

    requests: int
    concurrency: int
    latency_s: float


# A server that answers at once, which none does: what is left is the client. Then two like those that one pays for.
CASES = (Case(400, 16, 0.0), Case(320, 16, 0.2), Case(320, 32, 1.0))
QUICK = (Case(20, 4, 0.0), Case(20, 4, 0.01))

COLUMNS = {
    "latency_s": "server's time, s",
    "concurrency": "at the same time",
    "requests": "requests",
    "over_bare": "time over bare server",
    "own_ms": "client's own time per request, ms",
}


@contextmanager
def server(latency_s: float) -> Iterator[str]:
    """The loopback server in a process of its own; gives its base URL."""
    command = [sys.executable, str(SERVER), "--latency-s", str(latency_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def chats(count: int) -> Iterator[ChatRequest]:
    """So many different requests."""
    for i in range(count):
        yield ChatRequest(str(i), ({"role": "user", "content": f"question {i}: " + "some words " * 40},), SAMPLING)


def ours(base_url: str, case: Case, folder: Path) -> None:
    """Every answer through the client and into a new store."""
    endpoint = Endpoint(base_url, MODEL, max_concurrency=case.concurrency)
    with tempfile.TemporaryDirectory(dir=folder) as place, AnswerStore(Path(place) / "answers.sqlite") as store:
        summary = answer_all_sync(endpoint, chats(case.requests), store)
    if summary.answered != case.requests or summary.retries:
        raise RuntimeError(f"the run is not what is measured: {summary}")


def bare(base_url: str, case: Case) -> None:
    """The same requests from a plain loop; answers are parsed and forgotten."""

    async def everything() -> None:
        waiting = chats(case.requests)

        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def work() -> None:
                for chat in waiting:
                    body = {"model": MODEL, "messages": list(chat.messages), **chat.sampling}
                    async with session.post(f"{base_url}/chat/completions", json=body) as response:
                        response.raise_for_status()
                        (await response.json())["choices"][0]["message"]["content"]

            await asyncio.gather(*(work() for _ in range(case.concurrency)))

    asyncio.run(everything())


def measure(case: Case, repeats: int, folder: Path) -> dict[str, Any]:
    """One row of the table."""
    with server(case.latency_s) as base_url:
        seconds = alternate(
            {"bare": lambda: bare(base_url, case), "ours": lambda: ours(base_url, case, folder)},
            repeats,
            f"{case.requests} requests of {case.latency_s:g} s",
        )
    own = [1000 * (a - b) / case.requests for a, b in zip(seconds["ours"], seconds["bare"], strict=True)]
    return {
        "requests": case.requests,
        "concurrency": case.concurrency,
        "latency_s": case.latency_s,
        "over_bare": Ratio.of(seconds["ours"], seconds["bare"]),
        "own_ms": Ratio.of(own, [1.0] * len(own)),
        "seconds_ours": seconds["ours"],
        "seconds_bare": seconds["bare"],
    }


def main() -> None:
    """Measure every case."""
    # Processes of this machine alone, whatever else it has.
    measure_the_cpu()
    options = arguments(__doc__.partition("\n")[0], "client.json").parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(case, options.repeats, Path(folder)) for case in (QUICK if options.quick else CASES)]
    write(options.output, rows, machine(options.threads) | {"repeats": options.repeats, "quick": options.quick})
    sys.stdout.write(table(rows, COLUMNS))


if __name__ == "__main__":
    main()
