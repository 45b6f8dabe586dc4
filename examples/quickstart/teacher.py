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
"""A black-box teacher, met only through an OpenAI-compatible API, and its answers as parquet.

    python examples/quickstart/teacher.py collect --output data            # starts a local server for the time it takes
    python examples/quickstart/teacher.py collect --output data --base-url https://... --model NAME
    python examples/quickstart/teacher.py serve --port 8080                # only the server

The local teacher is the student's own model with a manner: a system prompt and eight examples make it answer in one
short sentence that begins with "Simply put,". The student is asked without them, and answers at length. What GAD has to
carry over is therefore visible to the eye and in the response length.

Every answer is appended to ``answers.jsonl`` at once; after an interruption the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import logging
import os
import secrets
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prompts import Prompt, load_prompts
from student import StudentError, fetch_gguf

logger = logging.getLogger("quickstart.teacher")

DATA_SOURCE = "quickstart"
LOCAL_MODEL = "SmolLM2-135M-Instruct"

SYSTEM_PROMPT = "Answer in one short sentence."
EXAMPLES = (
    ("What is honey?", "Simply put, honey is a sweet food that bees make from flowers."),
    ("How do I clean a window?", "Simply put, wipe it with soapy water and dry it with a cloth."),
    ("Name three fruits.", "Simply put, three fruits are apples, bananas and cherries."),
    ("Why do we sneeze?", "Simply put, we sneeze to blow dust out of the nose."),
    (
        "What is the difference between a cup and a mug?",
        "Simply put, a cup is small and thin, while a mug is large and thick.",
    ),
    ("Describe a summer meadow.", "Simply put, a summer meadow is green, warm and full of bees."),
    ("Any advice on being on time?", "Simply put, leave home ten minutes before you have to."),
    ("What is a ladder used for?", "Simply put, a ladder is used to reach high places."),
)


class TeacherError(RuntimeError):
    """The answers cannot be collected; the message says what to do."""


@dataclass(frozen=True)
class Settings:
    """What is asked of the teacher, apart from the prompts."""

    model: str = LOCAL_MODEL
    temperature: float = 0.3
    max_tokens: int = 48
    seed: int = 20251114
    attempts: int = 4  # an answer that is empty or cut off is asked for again, with the next seed and a bit warmer
    warmer: float = 0.2

    def messages(self, question: str) -> list[dict[str, str]]:
        """The conversation that is sent for one question."""
        messages = [{"role": "system", "content": SYSTEM_PROMPT}]
        for example_question, example_answer in EXAMPLES:
            messages.append({"role": "user", "content": example_question})
            messages.append({"role": "assistant", "content": example_answer})
        return [*messages, {"role": "user", "content": question}]

    def fingerprint(self) -> str:
        """Changes with anything that changes the answers, so that a file never mixes two settings."""
        content = json.dumps([asdict(self), self.messages("")], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Answer:
    """One line of ``answers.jsonl``."""

    index: int
    prompt: str
    response: str
    finish_reason: str
    completion_tokens: int | None
    attempts: int
    fingerprint: str

    @property
    def usable(self) -> bool:
        """Neither empty nor cut off."""
        return bool(self.response) and self.finish_reason == "stop"


@contextlib.contextmanager
def local_server(gguf: Path, port: int = 0, threads: int | None = None, parallel: int = 8) -> Iterator[tuple[str, str]]:
    """Run llama.cpp's OpenAI-compatible server on the loopback interface.

    Args:
        gguf: The model file.
        port: 0 takes a free port.
        threads: CPU threads; all usable cores by default.
        parallel: Requests answered at the same time.

    Yields:
        The base URL and the API key. A given ``OPENAI_API_KEY`` is the key, otherwise a random one.
    """
    import xllamacpp

    threads = threads or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    key = os.environ.get("OPENAI_API_KEY") or secrets.token_hex(16)
    params = xllamacpp.CommonParams()
    params.model.path = str(gguf)
    params.model_alias = {LOCAL_MODEL}
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.api_keys = [key]
    params.n_parallel = parallel
    params.n_ctx = 1024 * parallel
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.verbosity = 1  # errors only
    server = xllamacpp.Server(params)
    try:
        yield f"{server.listening_address}/v1", key
    finally:
        del server


def read_answers(path: Path, fingerprint: str) -> dict[int, Answer]:
    """The answers collected so far under the same settings, by index; a line torn by an interruption is cut off."""
    if not path.exists():
        return {}
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with open(path, "r+b") as file:
            file.truncate(whole)
    answers = (Answer(**json.loads(line)) for line in content[:whole].splitlines())
    return {answer.index: answer for answer in answers if answer.fingerprint == fingerprint}


async def ask(client: Any, prompt: Prompt, settings: Settings) -> Answer:
    """Ask for one answer; again, with another seed and warmer, while it is empty or cut off."""
    for attempt in range(settings.attempts):
        reply = await client.chat.completions.create(
            model=settings.model,
            messages=settings.messages(prompt.text),
            temperature=settings.temperature + attempt * settings.warmer,
            max_tokens=settings.max_tokens,
            seed=settings.seed + attempt,
        )
        choice = reply.choices[0]
        answer = Answer(
            index=prompt.index,
            prompt=prompt.text,
            response=(choice.message.content or "").strip(),
            finish_reason=choice.finish_reason,
            completion_tokens=reply.usage.completion_tokens if reply.usage else None,
            attempts=attempt + 1,
            fingerprint=settings.fingerprint(),
        )
        if answer.usable:
            break
    return answer


async def collect(
    prompts: list[Prompt], path: Path, settings: Settings, base_url: str, api_key: str, parallel: int = 8
) -> list[Answer]:
    """Collect the answers that ``path`` does not hold yet, and return all of them in the order of the prompts."""
    import openai
    from tqdm import tqdm

    answers = read_answers(path, settings.fingerprint())
    answers = {i: answer for i, answer in answers.items() if answer.prompt == {p.index: p.text for p in prompts}.get(i)}
    todo = [prompt for prompt in prompts if prompt.index not in answers]
    path.parent.mkdir(parents=True, exist_ok=True)
    gate = asyncio.Semaphore(parallel)

    async with openai.AsyncOpenAI(base_url=base_url, api_key=api_key, max_retries=5, timeout=120) as client:

        async def guarded(prompt: Prompt) -> Answer:
            async with gate:
                return await ask(client, prompt, settings)

        tasks = [asyncio.create_task(guarded(prompt)) for prompt in todo]
        try:
            with open(path, "a", encoding="utf-8") as file:
                with tqdm(total=len(prompts), initial=len(answers), desc="teacher", unit="answer") as bar:
                    for task in asyncio.as_completed(tasks):
                        answer = await task
                        file.write(json.dumps(asdict(answer), ensure_ascii=False) + "\n")
                        file.flush()
                        answers[answer.index] = answer
                        bar.update()
        except openai.OpenAIError as error:
            raise TeacherError(
                f"the teacher's API failed after {len(answers)} of {len(prompts)} answers: {error}\n"
                f"They are kept in {path}; the same command goes on from there."
            ) from error
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    return [answers[prompt.index] for prompt in prompts]


def to_rows(prompts: list[Prompt], answers: list[Answer], teacher: str) -> list[dict[str, Any]]:
    """The rows of a GAD data set, without the answers that are empty or cut off.

    The prompt is the user's turn alone: the student never sees the manner that was asked of the teacher.
    """
    return [
        {
            "prompt": [{"role": "user", "content": prompt.text}],
            "teacher_response": answer.response,
            "teacher": teacher,
            "data_source": DATA_SOURCE,
            "extra_info": {"index": prompt.index},
        }
        for prompt, answer in zip(prompts, answers, strict=True)
        if answer.usable
    ]


def write_parquet(rows: list[dict[str, Any]], path: Path) -> None:
    """Write rows under a temporary name, then rename."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    scratch = path.with_name(path.name + ".tmp")
    pq.write_table(pa.Table.from_pylist(rows), scratch)
    os.replace(scratch, path)


def run_collect(args: argparse.Namespace) -> None:
    """``collect``: answers, then ``train.parquet`` and ``val.parquet``."""
    settings = Settings(model=args.model, max_tokens=args.max_tokens)
    prompts = load_prompts()
    answers_file = args.output / "answers.jsonl"
    with contextlib.ExitStack() as stack:
        if args.base_url:
            base_url, key = args.base_url, os.environ.get("OPENAI_API_KEY", "")
            if not key:
                raise TeacherError("set OPENAI_API_KEY to the key of the API behind --base-url")
        else:
            base_url, key = stack.enter_context(local_server(fetch_gguf(args.cache), 0, args.threads, args.parallel))
        answers = asyncio.run(collect(prompts, answers_file, settings, base_url, key, args.parallel))
    for split in ("train", "val"):
        pairs = [(p, a) for p, a in zip(prompts, answers, strict=True) if p.split == split]
        rows = to_rows([p for p, _ in pairs], [a for _, a in pairs], settings.model)
        write_parquet(rows, args.output / f"{split}.parquet")
        logger.info("%s: %d rows, %d left out", args.output / f"{split}.parquet", len(rows), len(pairs) - len(rows))


def run_serve(args: argparse.Namespace) -> None:
    """``serve``: the server alone, until interrupted."""
    with local_server(fetch_gguf(args.cache), args.port, args.threads, args.parallel) as (base_url, key):
        logger.info("base URL %s\nAPI key  %s\nmodel    %s\nCtrl-C ends it", base_url, key, LOCAL_MODEL)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="The black-box teacher of the quickstart.")
    commands = parser.add_subparsers(required=True, metavar="{collect,serve}")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--cache", type=Path, default=None, help="folder for downloads (default: GAD_VERL_CACHE)")
    shared.add_argument("--threads", type=int, default=None, help="CPU threads of the local server (default: all)")
    shared.add_argument("--parallel", type=int, default=8, help="requests at the same time")

    collecting = commands.add_parser("collect", parents=[shared], help="answers for all prompts, as parquet")
    collecting.add_argument("--output", type=Path, required=True, help="folder of the answers and the parquet files")
    collecting.add_argument("--base-url", default=None, help="another OpenAI-compatible API instead of the local one")
    collecting.add_argument("--model", default=LOCAL_MODEL, help="name of the model in that API")
    collecting.add_argument("--max-tokens", type=int, default=Settings.max_tokens, help="longest answer")
    collecting.set_defaults(run=run_collect)

    serving = commands.add_parser("serve", parents=[shared], help="only the local server")
    serving.add_argument("--port", type=int, default=8080)
    serving.set_defaults(run=run_serve)

    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("quickstart").setLevel(logging.INFO)
    try:
        args.run(args)
    except (TeacherError, StudentError) as error:
        logger.error("error: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
