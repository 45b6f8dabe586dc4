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

The collecting is ``gad-verl teacher collect``, called from Python: every answer is on disk at once, and after an
interruption the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import secrets
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from prompts import Split, load_prompts
from student import StudentError, fetch_gguf

from gad_verl.data.reading import Source
from gad_verl.errors import USER_ERRORS
from gad_verl.record.files import write_atomically
from gad_verl.tools.api import Endpoint
from gad_verl.tools.teacher.collect import collect
from gad_verl.tools.teacher.plan import Plan
from gad_verl.tools.teacher.prompts import Framing, Prompts
from gad_verl.tools.teacher.settings import CollectSettings, Teacher

logger = logging.getLogger("quickstart.teacher")

DATA_SOURCE = "quickstart"
LOCAL_MODEL = "SmolLM2-135M-Instruct"
SPLITS: tuple[Split, ...] = ("train", "val")

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


def examples() -> list[dict[str, str]]:
    """The examples as messages."""
    return [
        {"role": role, "content": text}
        for pair in EXAMPLES
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]


def settings(base_url: str, model: str = LOCAL_MODEL, max_tokens: int = 48, parallel: int = 8) -> CollectSettings:
    """What is asked of the teacher, apart from the prompts.

    An answer that is empty or cut off is asked for again, with another seed and a bit warmer, and left out in the end.
    The student gets the prompt alone: it never sees the manner that was asked of the teacher.
    """
    sampling = {"temperature": 0.3, "max_tokens": max_tokens, "seed": 20251114}
    return CollectSettings(
        teachers=(Teacher(model, Endpoint(base_url, model, max_concurrency=parallel), sampling),),
        framing=Framing(system=SYSTEM_PROMPT, examples=tuple(examples())),
        student_prompt="given",
        ask_again=("empty", "length"),
        ask_again_times=3,
        ask_again_warmer=0.2,
        drop=("length",),
    )


def prompts_of(split: Split) -> Prompts:
    """The prompts of one side; the number of a prompt is its ``id``."""
    rows = [{"prompt": prompt.text, "id": prompt.index} for prompt in load_prompts(split)]
    return Prompts(Source("quickstart", ["prompt", "id"], len(rows), lambda: iter(rows)), data_source=DATA_SOURCE)


def run_collect(args: argparse.Namespace) -> None:
    """``collect``: ``train.parquet`` and ``val.parquet``, each with its answers and a card beside it.

    ``context.json`` is what the teacher alone is told: the evaluation may know it, the training never does.
    """
    with contextlib.ExitStack() as stack:
        base_url = args.base_url
        if not base_url:
            gguf = fetch_gguf(args.cache)
            base_url, key = stack.enter_context(local_server(gguf, 0, args.threads, args.parallel))
            os.environ["OPENAI_API_KEY"] = key
        for split in SPLITS:
            plan = Plan(prompts_of(split), settings(base_url, args.model, args.max_tokens, args.parallel))
            output = args.output / f"{split}.parquet"
            answers = collect(plan, output)["answers"]
            logger.info("%s: %d rows, %d left out", output, answers["kept"], answers["wanted"] - answers["kept"])
    context = [{"role": "system", "content": SYSTEM_PROMPT}, *examples()]
    write_atomically(args.output / "context.json", json.dumps(context, indent=2) + "\n")


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
    collecting.add_argument("--max-tokens", type=int, default=48, help="longest answer")
    collecting.set_defaults(run=run_collect)

    serving = commands.add_parser("serve", parents=[shared], help="only the local server")
    serving.add_argument("--port", type=int, default=8080)
    serving.set_defaults(run=run_serve)

    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("quickstart").setLevel(logging.INFO)
    try:
        args.run(args)
    except (StudentError, *USER_ERRORS) as error:
        logger.error("error: %s", error)
        return 1
    except KeyboardInterrupt:
        logger.error("interrupted; the same command goes on where it stopped")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
