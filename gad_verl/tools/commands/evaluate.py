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
"""``gad-verl evaluate``: responses of a checkpoint, compared with the teacher's texts, and judged."""

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from gad_verl.errors import GadConfigError
from gad_verl.tools.commands import chosen, file_path, positive, positive_number, template_options

if TYPE_CHECKING:
    from gad_verl.tools.evaluation.open_teacher import TeacherOptions
    from gad_verl.tools.evaluation.run import JudgeOptions
    from gad_verl.tools.evaluation.tool_turns import ToolOptions


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command and its options."""
    parser = commands.add_parser(
        "evaluate",
        help="generate from a checkpoint, compare with the teacher, ask a judge",
        description="Generates a response of the student to every held-out prompt, measures it against the teacher's "
        "text, and asks a judge if one is named. Interrupt it at any time: the same command goes on.",
    )
    parser.add_argument("--model", type=file_path, required=True, help="verl's global_step_N or a Hugging Face folder")
    parser.add_argument("--data", type=file_path, required=True, help="held-out prompts: parquet, JSON or JSONL")
    parser.add_argument("--output", type=file_path, required=True, help="folder of this evaluation")
    parser.add_argument("--prompt-key", default="prompt", help="column of the prompt (default: %(default)s)")
    parser.add_argument(
        "--teacher-key", default="teacher_response", help="column of the teacher's text (default: %(default)s)"
    )
    parser.add_argument(
        "--image-key", default="images", help="column of the images, where there are some (default: %(default)s)"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N prompts")
    parser.add_argument(
        "--checks",
        metavar="COLUMN",
        help="column of checks that an answer has to pass: rules, numbers, tests of code (docs/evaluation.md); "
        "instruction_id_list for rows of IFEval",
    )
    _add_generation(parser.add_argument_group("generation"))
    _add_tools(parser.add_argument_group("trajectories"))
    _add_measures(parser.add_argument_group("without a judge"))
    _add_teacher(parser.add_argument_group("open teacher"))
    _add_judge(parser.add_argument_group("judge"))
    parser.set_defaults(run=_run)


def _add_generation(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--engine", choices=("auto", "vllm", "hf"), default="auto", help="default: vllm where it runs")
    group.add_argument("--max-response-length", type=int, default=1536, help="tokens (default: %(default)s)")
    group.add_argument("--max-prompt-length", type=int, default=2048, help="tokens (default: %(default)s)")
    group.add_argument("--samples", type=int, default=1, help="responses per prompt (default: %(default)s)")
    group.add_argument("--temperature", type=float, default=0.0, help="default: 0, greedy")
    group.add_argument("--top-p", type=float, default=1.0)
    group.add_argument("--top-k", type=int, default=-1)
    group.add_argument("--seed", type=int, default=0, help="of the sampling (default: %(default)s)")
    group.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="precision to compute in (default: bfloat16 on a GPU, float32 on a CPU)",
    )
    group.add_argument(
        "--chat-template-kwargs",
        type=template_options,
        metavar="JSON",
        help="what the chat template is given, such as '{\"enable_thinking\": false}' (default: as in the student's "
        "training, from the record of its run or its export; '{}' for nothing)",
    )
    group.add_argument(
        "--thinking",
        choices=("none", "hidden"),
        help="hidden: of a response the answer behind its thoughts is looked at; none: all of it (default: as in the "
        "student's training)",
    )
    group.add_argument(
        "--mm-processor-kwargs",
        type=template_options,
        metavar="JSON",
        help="how images are read, such as '{\"max_pixels\": 1003520}' (default: as in the student's training)",
    )
    group.add_argument("--batch-size", type=positive, help="prompts at a time (default: hf 16, vllm 256)")
    group.add_argument("--tensor-parallel", type=int, default=1, help="GPUs per model, vllm (default: %(default)s)")
    group.add_argument(
        "--gpu-memory", dest="memory_share", type=float, default=0.9, help="share for vllm (default: %(default)s)"
    )
    group.add_argument("--trust-remote-code", action="store_true", help="run code from the checkpoint's folder")
    group.add_argument("--keep-export", action="store_true", help="keep the Hugging Face folder of a global_step_N")


def _add_tools(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--tools",
        type=file_path,
        metavar="FILE",
        help="function tools that the student may call, as multi_turn.function_tool_path names them; the column of the "
        "teacher holds messages then (docs/trajectories.md)",
    )
    group.add_argument("--tool-format", default="hermes", help="verl's parser of calls (default: %(default)s)")
    group.add_argument("--max-turns", type=positive, metavar="N", help="turns of the student (default: no limit)")
    group.add_argument("--max-parallel-calls", type=positive, default=1, help="in a turn (default: %(default)s)")
    group.add_argument(
        "--max-tool-response-length", type=positive, default=256, help="characters of a result (default: %(default)s)"
    )


def _add_measures(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--features-model",
        type=file_path,
        metavar="FOLDER",
        help="Hugging Face folder of any language model: two-sample test on its hidden states",
    )
    group.add_argument(
        "--two-sample-splits", type=positive, default=20, metavar="N", help="random halves (default: %(default)s)"
    )


def _add_teacher(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--teacher-model",
        type=file_path,
        metavar="FOLDER",
        help="Hugging Face folder of the teacher, if it is open: both KL divergences to it",
    )
    group.add_argument(
        "--teacher-context",
        type=file_path,
        metavar="FILE",
        help="what the teacher alone is told: a text, its system message; or .json, a list of messages",
    )
    group.add_argument(
        "--teacher-temperature", type=float, metavar="T", help="at which its texts were sampled (default: 1)"
    )
    group.add_argument(
        "--teacher-scratch", type=float, metavar="GIB", help="space for logits in the output folder (default: 8)"
    )


def _add_judge(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--judge-base-url", metavar="URL", help="OpenAI-compatible API, up to /v1")
    group.add_argument("--judge-model", metavar="NAME", help="its model")
    group.add_argument(
        "--judge-key-env",
        default="OPENAI_API_KEY",
        metavar="NAME",
        help="environment variable of the key (default: %(default)s)",
    )
    group.add_argument(
        "--against",
        nargs="+",
        default=["teacher"],
        metavar="WHO",
        help="opponents of the win rates: teacher, none, or [NAME=]FOLDER of another evaluation (default: teacher)",
    )
    group.add_argument("--judge-teacher", action="store_true", help="score the teacher's texts as well")
    group.add_argument(
        "--judge-store",
        type=file_path,
        metavar="FILE",
        help="replies; share it between checkpoints for the same references (default: OUTPUT/judge.sqlite)",
    )
    group.add_argument(
        "--judge-attempts", type=int, default=3, help="askings until a reply can be read (default: %(default)s)"
    )
    group.add_argument("--judge-rating-tokens", type=int, default=512, help="longest rating (default: %(default)s)")
    group.add_argument(
        "--judge-reference-tokens", type=int, default=1536, help="longest reference (default: %(default)s)"
    )
    group.add_argument(
        "--judge-option",
        action="append",
        default=[],
        metavar="KEY=JSON",
        help="field of the request, such as temperature=1; null removes it (repeatable)",
    )
    group.add_argument(
        "--judge-concurrency", type=positive, default=16, help="requests in flight (default: %(default)s)"
    )
    group.add_argument("--judge-requests-per-minute", type=positive_number)
    group.add_argument("--judge-tokens-per-minute", type=positive_number)
    group.add_argument("--judge-timeout", type=positive_number, default=120.0, help="seconds (default: %(default)s)")


def _run(arguments: argparse.Namespace) -> None:
    from gad_verl.tools.evaluation.generation import Compute, GenerationSettings
    from gad_verl.tools.evaluation.report import render
    from gad_verl.tools.evaluation.run import DataOptions, evaluate

    output = arguments.output
    if output.exists() and not output.is_dir():
        raise GadConfigError(f"--output {output} is a file: the name of a folder is needed")
    if not 0 < arguments.memory_share <= 1:
        raise GadConfigError(f"--gpu-memory {arguments.memory_share:g}: a share of the GPU, above 0 and at most 1")
    evaluation = evaluate(
        arguments.model,
        DataOptions(
            arguments.data,
            arguments.prompt_key,
            arguments.teacher_key,
            arguments.limit,
            arguments.checks,
            arguments.image_key,
        ),
        output,
        chosen(GenerationSettings, arguments, dtype=_dtype(arguments.dtype)),
        chosen(Compute, arguments),
        _judge(arguments),
        arguments.features_model,
        arguments.two_sample_splits,
        _teacher(arguments),
        _tools(arguments),
    )
    sys.stdout.write(render(evaluation))


def _tools(arguments: argparse.Namespace) -> "ToolOptions | None":
    if arguments.tools is None:
        return None
    from gad_verl.data.tools import ToolLimits
    from gad_verl.tools.evaluation.tool_turns import ToolOptions

    limits = ToolLimits(
        max_assistant_turns=arguments.max_turns,
        max_parallel_calls=arguments.max_parallel_calls,
        max_tool_response_length=arguments.max_tool_response_length,
    )
    return ToolOptions(arguments.tools, arguments.tool_format, limits)


def _dtype(name: str) -> str:
    if name != "auto":
        return name
    import torch

    return "bfloat16" if torch.cuda.is_available() else "float32"


def _teacher(arguments: argparse.Namespace) -> "TeacherOptions | None":
    from gad_verl.tools.evaluation.open_teacher import TeacherOptions

    options = {
        "context": arguments.teacher_context,
        "temperature": arguments.teacher_temperature,
        "scratch_gib": arguments.teacher_scratch,
    }
    given = {name: value for name, value in options.items() if value is not None}
    if arguments.teacher_model is None:
        if given:
            raise GadConfigError("--teacher-context, --teacher-temperature and --teacher-scratch need --teacher-model")
        return None
    return TeacherOptions(arguments.teacher_model, **given)


def _judge(arguments: argparse.Namespace) -> "JudgeOptions | None":
    if arguments.judge_base_url is None and arguments.judge_model is None:
        if arguments.judge_teacher or set(arguments.against) - {"teacher", "none"}:
            raise GadConfigError(
                "--against and --judge-teacher are for a judge: name it by --judge-base-url, --judge-model"
            )
        return None
    if arguments.judge_base_url is None or arguments.judge_model is None:
        raise GadConfigError("a judge needs both --judge-base-url and --judge-model")
    from gad_verl.tools.api import Endpoint
    from gad_verl.tools.evaluation.judge import JudgeSettings
    from gad_verl.tools.evaluation.run import JudgeOptions

    endpoint = Endpoint(
        arguments.judge_base_url,
        arguments.judge_model,
        api_key_env=arguments.judge_key_env,
        timeout_s=arguments.judge_timeout,
        max_concurrency=arguments.judge_concurrency,
        requests_per_minute=arguments.judge_requests_per_minute,
        tokens_per_minute=arguments.judge_tokens_per_minute,
    )
    settings = JudgeSettings(
        attempts=arguments.judge_attempts,
        rating_tokens=arguments.judge_rating_tokens,
        reference_tokens=arguments.judge_reference_tokens,
        options=dict(_option(text) for text in arguments.judge_option),
    )
    against = [name for name in arguments.against if name != "none"]
    return JudgeOptions(endpoint, settings, arguments.judge_store, against, arguments.judge_teacher)


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise GadConfigError(f"--judge-option {text!r} is not of the form KEY=JSON")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
