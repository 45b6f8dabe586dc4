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
"""``gad-verl teacher collect``: a teacher's answers to a file of prompts, over any OpenAI-compatible API."""

import argparse
import json
import sys
from typing import Any

from gad_verl.errors import GadConfigError
from gad_verl.tools.commands import chosen, file_path, positive, positive_number
from gad_verl.tools.teacher.marks import MARKS
from gad_verl.tools.teacher.settings import DROPPABLE

# Of the endpoint: for teachers of the settings file that set none.
_LIMITS = (
    "api_key_env",
    "timeout_s",
    "max_concurrency",
    "requests_per_minute",
    "tokens_per_minute",
    "attempts",
    "stream",
)


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command and its options."""
    teacher = commands.add_parser("teacher", help="collect a teacher's answers over an OpenAI-compatible API")
    actions = teacher.add_subparsers(required=True, metavar="ACTION")
    parser = actions.add_parser(
        "collect",
        help="answers to a file of prompts, as parquet",
        description="Asks an OpenAI-compatible API for answers to prompts. Every answer is on disk at once, beside the "
        "output; after an interruption the same command asks only for what is missing. The API key comes from the "
        "environment and is written nowhere.",
    )
    _add_input(parser)
    _add_teacher(parser)
    _add_sampling(parser)
    _add_limits(parser)
    _add_output(parser)
    parser.set_defaults(run=_run)


def _add_input(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("prompts")
    group.add_argument("--prompts", required=True, help="parquet, JSONL, JSON or CSV file, or a Hugging Face data set")
    group.add_argument("--prompt-key", default="prompt", help="column: text or chat messages (default: prompt)")
    group.add_argument("--context-key", help="column with an input to the instruction")
    group.add_argument(
        "--image-key", default="images", help="column of the images, where there are some (default: %(default)s)"
    )
    group.add_argument("--split", default="train", help="split of a Hugging Face data set (default: train)")
    group.add_argument("--config", help="configuration of a Hugging Face data set")
    group.add_argument("--limit", type=positive, help="only the first N rows")
    group.add_argument("--system", help="system message, for chats that have none")
    group.add_argument(
        "--template", default="none", help="wrapper around the prompt: alpaca, or a text file with {instruction}"
    )


def _add_teacher(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("teacher")
    group.add_argument("--base-url", help="of the API, such as https://host/v1")
    group.add_argument("--model", help="name of the model in that API")
    group.add_argument("--name", help="value of the column teacher (default: the model)")
    group.add_argument("--api-key-env", default="OPENAI_API_KEY", help="variable with the key (default: %(default)s)")
    group.add_argument("--settings", type=file_path, help="YAML file with several teachers (docs/teacher.md)")
    group.add_argument(
        "--tools",
        type=file_path,
        metavar="FILE",
        help="function tools that the teacher may call; they are run here (docs/trajectories.md)",
    )
    group.add_argument(
        "--max-turns", type=positive, default=10, help="with --tools: turns until it must answer (default: %(default)s)"
    )
    group.add_argument("--price", type=float, nargs=2, metavar=("PROMPT", "COMPLETION"), help="per million tokens")


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("sampling (what is not set is left to the API)")
    group.add_argument("--samples", type=positive, default=1, help="answers per prompt and teacher (default: 1)")
    group.add_argument("--temperature", type=float)
    group.add_argument("--top-p", type=float)
    group.add_argument("--max-tokens", type=int, help="longest answer (default: 1536)")
    group.add_argument("--seed", type=int, help="differs between samples and attempts by itself")
    group.add_argument("--stop", action="append", help="text that ends an answer; may be given again")
    group.add_argument("--extra-body", default="{}", metavar="JSON", help="anything else for the request's body")
    group.add_argument(
        "--ask-again",
        nargs="*",
        choices=MARKS,
        default=["empty"],
        help="answers that are asked for again (default: empty)",
    )
    group.add_argument("--ask-again-times", type=int, default=2, help="how often at most (default: 2)")
    group.add_argument(
        "--ask-again-warmer", type=float, default=0.0, help="added to a set temperature each time (default: 0)"
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("limits")
    group.add_argument(
        "--concurrency", dest="max_concurrency", type=positive, default=16, help="requests at a time (default: 16)"
    )
    group.add_argument("--requests-per-minute", type=positive_number)
    group.add_argument("--tokens-per-minute", type=positive_number, help="prompts and answers together")
    group.add_argument(
        "--timeout", dest="timeout_s", type=positive_number, default=120, help="seconds per request (default: 120)"
    )
    group.add_argument(
        "--stream", action="store_true", help="ask for streams (found out where an API gives nothing else)"
    )
    group.add_argument("--attempts", type=positive, default=8, help="before a request counts as failed (default: 8)")


def _add_output(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument("--output", type=file_path, required=True, help="parquet file to write")
    group.add_argument("--data-source", help="value of that column (default: the rows', or the file's)")
    group.add_argument(
        "--student-prompt",
        choices=("asked", "given"),
        default="asked",
        help="what the student gets: what the teacher was asked, or the prompt alone (default: asked)",
    )
    group.add_argument(
        "--drop",
        nargs="*",
        choices=DROPPABLE,
        default=["duplicate-prompt"],
        help="what is left out, besides empty and filtered answers (default: duplicate-prompt)",
    )
    group.add_argument("--allow-missing", action="store_true", help="write the file even if answers are missing")
    group.add_argument("--overwrite", action="store_true", help="replace a file that was not collected here")
    group.add_argument("--dry-run", action="store_true", help="count, estimate tokens and cost, ask nothing")


def _run(arguments: argparse.Namespace) -> None:
    from gad_verl.record.files import check_apart
    from gad_verl.tools.data.hub import open_source
    from gad_verl.tools.data.writing import card_path
    from gad_verl.tools.teacher.collect import check_output, collect, dry_run, store_path
    from gad_verl.tools.teacher.plan import Plan
    from gad_verl.tools.teacher.prompts import Prompts

    output = arguments.output
    check_apart(
        {"--output": output, "the card": card_path(output), "the store of answers": store_path(output)},
        {f"--{name}": getattr(arguments, name) for name in ("prompts", "settings", "tools", "template")},
    )
    check_output(output, arguments.overwrite)
    settings = _settings(arguments)
    prompts = Prompts(
        open_source(arguments.prompts, arguments.split, arguments.config),
        arguments.prompt_key,
        arguments.context_key,
        arguments.data_source,
        arguments.limit,
        arguments.image_key,
    )
    plan = Plan(prompts, settings)
    if arguments.tools is not None:
        _run_tools(arguments, plan)
        return
    if arguments.dry_run:
        sys.stdout.write(dry_run(plan, arguments.output) + "\n")
        return
    card = collect(plan, arguments.output, overwrite=arguments.overwrite, allow_missing=arguments.allow_missing)
    answers, marked = card["answers"], card["answers"]["marked"]
    sys.stdout.write(
        f"{arguments.output}: {card['output']['rows']} rows, {answers['kept']} answers of {answers['wanted']}; "
        f"{marked['length']} stopped by length, {marked['filtered']} by a filter, {marked['refusal']} refusals, "
        f"{marked['empty']} empty, {marked['duplicate-answer']} duplicates, {answers['rejected']} rejected by the API, "
        f"{answers['missing']} missing\n"
        f"{card_path(arguments.output)}: counts, settings, checksum\n"
        f"{store_path(arguments.output)}: all answers as they came\n"
    )


def _run_tools(arguments: argparse.Namespace, plan: Any) -> None:
    from gad_verl.tools.data.writing import card_path
    from gad_verl.tools.teacher.tool_collect import ToolCollection

    if arguments.dry_run:
        raise GadConfigError(
            "--tools with --dry-run: how many turns a teacher takes is not known before; leave one out"
        )
    collection = ToolCollection(plan, arguments.tools, arguments.max_turns)
    card = collection.collect(arguments.output, overwrite=arguments.overwrite, allow_missing=arguments.allow_missing)
    ended = ", ".join(f"{name} {number}" for name, number in card["trajectories"]["ended"].items())
    sys.stdout.write(
        f"{arguments.output}: {card['output']['rows']} trajectories of {card['trajectories']['wanted']} ({ended}), "
        f"{card['turns']:.2f} turns and {card['calls']:.2f} calls each\n"
        f"{card_path(arguments.output)}: counts, settings, checksum\n"
    )


def _settings(arguments: argparse.Namespace) -> Any:
    from gad_verl.tools.api.endpoint import Endpoint
    from gad_verl.tools.data.templates import load_template
    from gad_verl.tools.teacher.prompts import Framing
    from gad_verl.tools.teacher.settings import (
        CollectSettings,
        Teacher,
        check_price,
        merged_sampling,
        read_settings_file,
        teachers_of,
    )

    content: dict[str, Any] = {}
    sampling = _sampling(arguments)
    if arguments.settings is not None:
        for name in ("base_url", "model", "name", "price"):
            if getattr(arguments, name) is not None:
                raise GadConfigError(f"--{name.replace('_', '-')} stands in the settings file; give one of the two")
        content = read_settings_file(arguments.settings)
        teachers = teachers_of(content, sampling, **{name: getattr(arguments, name) for name in _LIMITS})
    elif arguments.base_url is None or arguments.model is None:
        raise GadConfigError("name a teacher: --base-url and --model, or --settings with several")
    else:
        price = None if arguments.price is None else check_price(arguments.price)
        name, endpoint = arguments.name or arguments.model, chosen(Endpoint, arguments)
        teachers = (Teacher(name, endpoint, merged_sampling(sampling), price=price),)
    examples = tuple(content.get("examples") or ())
    framing = Framing(arguments.system, load_template(arguments.template), examples)
    return chosen(CollectSettings, arguments, teachers=teachers, assign=content.get("assign", "split"), framing=framing)


def _sampling(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the command line says of sampling; it goes before the settings file."""
    names = ("temperature", "top_p", "max_tokens", "seed", "stop")
    sampling = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    try:
        return sampling | json.loads(arguments.extra_body)
    except (ValueError, TypeError):
        raise GadConfigError("--extra-body must be a JSON object, such as '{\"top_k\": 20}'") from None
