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
"""``gad-verl data``: teacher data from published files to training rows, and what to look at before a run."""

import argparse
import functools
import sys
from collections.abc import Callable
from pathlib import Path

from gad_verl.errors import GadConfigError, GadDataError
from gad_verl.tools.commands import chosen, file_path, positive, template_options

ABOVE_THRESHOLD = 1


def _add_keys(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prompt-key", default="prompt", help="column of the prompt (default: prompt)")
    parser.add_argument(
        "--teacher-key", default="teacher_response", help="column of the teacher's texts (default: teacher_response)"
    )


def _add_image_key(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--image-key", default="images", help="column of the images, where there are some (default: %(default)s)"
    )


def _add_overwrite(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--overwrite", action="store_true", help="replace output files that exist")


def _add_import(tools: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = tools.add_parser("import", help="turn a published layout into a parquet file of GAD's schema")
    parser.add_argument("input", help="parquet, JSON, JSONL or CSV file, or the name of a Hugging Face data set")
    parser.add_argument(
        "--output", type=file_path, required=True, help="parquet file to write; a card stands beside it"
    )
    parser.add_argument(
        "--layout",
        help="gad, lmsys, dolly, selfinst, alpaca, sharegpt, plain, preference or batch (default: by the columns), or "
        "trajectory (conversations with calls of tools)",
    )
    parser.add_argument(
        "--template", default="none", help="wrapper around instructions: none, alpaca, or a text file (default: none)"
    )
    parser.add_argument("--system-prompt", help="put before chats that have no system message")
    parser.add_argument("--teacher", help="name of the teacher, where a row does not say")
    parser.add_argument(
        "--data-source", help="name of the source, where a row does not say (default: the input's name)"
    )
    parser.add_argument(
        "--rename", action="append", default=[], metavar="OLD=NEW", help="rename a column first; may be repeated"
    )
    parser.add_argument(
        "--requests", type=file_path, metavar="FILE", help="for the output of a batch of an API: the file that was sent"
    )
    parser.add_argument("--split", default="train", help="split of a Hugging Face data set (default: train)")
    parser.add_argument("--config", help="configuration of a Hugging Face data set")
    parser.add_argument("--limit", type=positive, help="only so many rows of the input")
    parser.add_argument("--skip-invalid", action="store_true", help="leave broken rows out instead of ending there")
    parser.add_argument("--rejected", type=file_path, help="JSONL file to list the rows left out, with reasons")
    _add_overwrite(parser)
    _set_run(parser, _run_import)


def _add_split(tools: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = tools.add_parser("split", help="train, val and test without common or nearly common prompts")
    parser.add_argument("input", type=file_path, help="parquet, JSON or JSONL file of GAD's schema")
    parser.add_argument(
        "--output", type=file_path, required=True, help="folder for train.parquet, val.parquet, test.parquet"
    )
    parser.add_argument("--val", type=float, default=0.02, help="share (below 1) or number of rows (default: 0.02)")
    parser.add_argument("--test", type=float, default=0.0, help="share or number of rows (default: none)")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives another split (default: 0)")
    parser.add_argument(
        "--near-duplicates",
        type=float,
        default=0.8,
        metavar="SIMILARITY",
        help="Jaccard similarity from which prompts stay on one side; 1 for equal prompts only (default: 0.8)",
    )
    _add_image_key(parser)
    _add_keys(parser)
    _add_overwrite(parser)
    _set_run(parser, _run_split)


def _add_leaks(tools: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = tools.add_parser("leaks", help="what a discriminator could tell teacher from student by, without reading")
    parser.add_argument("teacher", type=file_path, help="file with the teacher's texts (parquet, JSON or JSONL)")
    parser.add_argument(
        "--student", type=file_path, help="file with the student's texts; without it, one-sided statistics"
    )
    parser.add_argument(
        "--student-key",
        help="column of the student's texts (default: response); without --student a column of the teacher's file",
    )
    _add_image_key(parser)
    _add_keys(parser)
    parser.add_argument("--max-texts", type=positive, default=5000, help="most texts of each side (default: 5000)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample, the halves and the interval (default: 0)")
    parser.add_argument("--json", type=file_path, help="write the report as JSON too")
    parser.add_argument(
        "--fail-above", type=float, metavar="ACCURACY", help="exit with code 1 if the held-out accuracy is above"
    )
    _add_overwrite(parser)
    _set_run(parser, _run_leaks)


def _add_normalize(tools: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = tools.add_parser("normalize", help="take marks off the teacher's texts that say nothing")
    parser.add_argument("input", type=file_path, help="parquet, JSON or JSONL file of GAD's schema")
    parser.add_argument("--output", type=file_path, help="parquet file to write; a card stands beside it")
    yes_or_no = functools.partial(parser.add_argument, action=argparse.BooleanOptionalAction)
    yes_or_no("--strip-whitespace", dest="whitespace", help="white space around the text, carriage returns")
    yes_or_no("--strip-thinking", dest="thinking", help="leading <think> blocks")
    yes_or_no("--strip-template", dest="template", help="special tokens and headings of chat templates at the ends")
    yes_or_no("--nfc", help="compose Unicode (NFC)")
    yes_or_no("--strip-line-ends", dest="line_ends", help="blanks before line ends, rows of empty lines")
    parser.set_defaults(whitespace=True, thinking=True, template=True, nfc=True, line_ends=False)
    parser.add_argument("--drop-refusals", action="store_true", help="leave refusals out (by their usual phrases)")
    parser.add_argument("--drop-duplicates", choices=("rows", "prompts"), help="leave out rows that came before")
    parser.add_argument("--min-chars", type=int, default=1, help="leave shorter texts out (default: 1)")
    parser.add_argument("--max-chars", type=int, help="leave longer texts out")
    parser.add_argument("--rejected", type=file_path, help="JSONL file to list the rows left out, with reasons")
    parser.add_argument("--dry-run", action="store_true", help="write nothing; count, and show examples of changes")
    _add_image_key(parser)
    _add_keys(parser)
    _add_overwrite(parser)
    _set_run(parser, _run_normalize)


def _add_stats(tools: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = tools.add_parser("stats", help="token counts, and the share that the limits cut")
    parser.add_argument("input", type=file_path, help="parquet, JSON or JSONL file of GAD's schema")
    parser.add_argument("--tokenizer", required=True, help="folder or name of the student's tokenizer")
    parser.add_argument(
        "--chat-template-kwargs",
        type=template_options,
        metavar="JSON",
        help="data.apply_chat_template_kwargs, such as '{\"enable_thinking\": false}'",
    )
    _add_image_key(parser)
    parser.add_argument(
        "--mm-processor-kwargs",
        type=template_options,
        metavar="JSON",
        help="data.mm_processor_kwargs, such as '{\"max_pixels\": 1003520}'",
    )
    parser.add_argument("--max-prompt-length", type=positive, help="data.max_prompt_length")
    parser.add_argument("--max-response-length", type=positive, help="data.max_response_length")
    parser.add_argument("--limit", type=positive, help="count only so many rows, evenly spread")
    parser.add_argument("--json", type=file_path, help="write the numbers as JSON too")
    _add_keys(parser)
    _add_overwrite(parser)
    _set_run(parser, _run_stats)


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command and its options."""
    parser = commands.add_parser("data", help="import, split, check and normalise teacher data")
    tools = parser.add_subparsers(required=True, metavar="TOOL")
    for add in (_add_import, _add_split, _add_leaks, _add_normalize, _add_stats):
        add(tools)


def _set_run(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int | None]) -> None:
    def guarded(arguments: argparse.Namespace) -> int | None:
        try:
            return run(arguments)
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("gad_verl"):
                raise
            raise GadConfigError(f"{error.name} is not installed: pip install 'gad-verl[data]'") from None
        except UnicodeDecodeError as error:
            raise GadDataError(f"a text column holds bytes that are not UTF-8: {error}") from None

    parser.set_defaults(run=guarded)


def _write_json(path: Path, content: object, overwrite: bool) -> None:
    from gad_verl.record.files import to_json
    from gad_verl.tools.data.writing import outputs

    with outputs(overwrite) as files:
        files.add(path).write_text(to_json(content), encoding="utf-8")


def _check_report(arguments: argparse.Namespace, read: dict[str, Path | None]) -> None:
    """Look at where a report is to go before anything is counted for it."""
    from gad_verl.record.files import check_apart

    check_apart({"--json": arguments.json}, read)
    if arguments.json is not None and arguments.json.exists() and not arguments.overwrite:
        raise FileExistsError(f"{arguments.json} exists: choose another name or add --overwrite")


def _counted(title: str, counts: dict[str, int]) -> str:
    return "".join(f"  {title}{name}: {count}\n" for name, count in sorted(counts.items(), key=lambda item: -item[1]))


def _run_import(arguments: argparse.Namespace) -> None:
    from gad_verl.record.files import check_apart
    from gad_verl.tools.data.importing import ImportOptions, import_file
    from gad_verl.tools.data.templates import load_template

    check_apart({"--rejected": arguments.rejected}, {"--template": arguments.template})
    rename = {}
    for pair in arguments.rename:
        old, separator, new = pair.partition("=")
        if not (old and separator and new):
            raise GadConfigError(f"--rename {pair}: write OLD=NEW")
        rename[old] = new
    options = chosen(ImportOptions, arguments, template=load_template(arguments.template), rename=rename)
    result = import_file(arguments.input, arguments.output, options, arguments.rejected, arguments.overwrite)
    sys.stdout.write(
        f"{arguments.output}: {result.written} rows from {result.read} rows of the layout {result.layout}\n"
        + _counted("left out, ", result.rejected)
    )
    if result.unused_columns:
        sys.stdout.write(f"  columns left behind: {', '.join(result.unused_columns)}\n")
    if result.all_are_written_lists:
        sys.stdout.write(
            "  warning: every text of the teacher is a list written as text, such as ['...', '...']: save lists as "
            "parquet or JSONL, not as CSV\n"
        )


def _run_split(arguments: argparse.Namespace) -> None:
    from gad_verl.tools.data.splitting import SplitOptions, split_file

    options = chosen(SplitOptions, arguments, threshold=arguments.near_duplicates)
    result = split_file(arguments.input, arguments.output, options, arguments.overwrite)
    sides = ", ".join(f"{name} {rows}" for name, rows in result.rows.items() if rows)
    sys.stdout.write(
        f"{arguments.output}: {sides} rows\n"
        f"  {result.prompts} distinct prompts in {result.groups} groups that stay together, the largest has "
        f"{result.largest_group} rows\n"
    )
    for name, wanted in result.wanted.items():
        if result.rows[name] < wanted:
            sys.stdout.write(f"  {name} has {result.rows[name]} rows, not {wanted}: no group fits the rest\n")
    if result.unchecked:
        sys.stdout.write(
            f"  {result.unchecked} very large buckets of similar prompts were kept together unchecked; do the prompts "
            "share a wrapper?\n"
        )


def _run_leaks(arguments: argparse.Namespace) -> int:
    from gad_verl.tools.data.leaks import LeakOptions, render, run

    if arguments.fail_above is not None and not 0 <= arguments.fail_above <= 1:
        raise GadConfigError(f"--fail-above {arguments.fail_above:g}: an accuracy lies between 0 and 1")
    _check_report(arguments, {"the teacher's file": arguments.teacher, "--student": arguments.student})
    report = run(chosen(LeakOptions, arguments))
    if arguments.fail_above is not None and report.accuracy is None:
        raise GadConfigError("--fail-above needs student texts: name them by --student or --student-key")
    if arguments.json is not None:
        _write_json(arguments.json, report, arguments.overwrite)
    sys.stdout.write(render(report) + "\n")
    if arguments.fail_above is not None and report.accuracy.value > arguments.fail_above:
        sys.stderr.write(f"gad-verl: accuracy {report.accuracy.value:.3f} is above {arguments.fail_above:g}\n")
        return ABOVE_THRESHOLD
    return 0


def _run_normalize(arguments: argparse.Namespace) -> None:
    from gad_verl.tools.data.cleaning import STEPS
    from gad_verl.tools.data.normalizing import NormalizeOptions, normalize_file, show_change

    if arguments.dry_run == (arguments.output is not None):
        raise GadConfigError("give either --output FILE.parquet or --dry-run")
    steps = tuple(name for name in STEPS if getattr(arguments, name))
    options = chosen(NormalizeOptions, arguments, steps=steps, duplicates=arguments.drop_duplicates or "keep")
    shown = 5 if arguments.dry_run else 0
    result = normalize_file(arguments.input, arguments.output, options, arguments.rejected, arguments.overwrite, shown)
    sys.stdout.write(
        f"{arguments.output or 'dry run'}: {result.written} of {result.read} rows, "
        f"{result.texts_changed} texts changed\n"
        + _counted("changed by ", result.changed)
        + _counted("texts left out, ", result.dropped_texts)
        + _counted("rows left out, ", result.dropped_rows)
    )
    if result.markers_inside:
        sys.stdout.write(f"  special tokens inside of {result.markers_inside} texts were left alone\n")
    sys.stdout.writelines(f"{show_change(change)}\n" for change in result.examples)


def _run_stats(arguments: argparse.Namespace) -> None:
    from gad_verl.data.reading import check_path
    from gad_verl.tools.data.token_stats import count_tokens, load_builder, load_images, summarize

    # A file that is not there is told of before a tokenizer is loaded.
    check_path(arguments.input)
    _check_report(arguments, {"the input": arguments.input})
    builder = load_builder(arguments.tokenizer, arguments.chat_template_kwargs)
    lengths = count_tokens(
        arguments.input,
        builder,
        arguments.prompt_key,
        arguments.teacher_key,
        arguments.limit,
        functools.partial(load_images, arguments.tokenizer, builder, arguments.mm_processor_kwargs),
        arguments.image_key,
    )
    sides = {
        "prompt": (lengths.prompts, arguments.max_prompt_length, "data.max_prompt_length"),
        "response": (lengths.responses, arguments.max_response_length, "data.max_response_length"),
    }
    report = {name: summarize(values, limit) for name, (values, limit, _) in sides.items()}
    if arguments.json is not None:
        _write_json(arguments.json, report, arguments.overwrite)
    for name, (_, limit, key) in sides.items():
        found = report[name]
        quantiles = "  ".join(f"{float(q):.0%} {value}" for q, value in found["quantiles"].items())
        sys.stdout.write(f"{name}: {found['texts']} texts, mean {found['mean']:.1f} tokens\n  {quantiles}\n")
        if limit is not None:
            sys.stdout.write(
                f"  {key}={limit} cuts {found['cut_texts']} texts ({found['cut_share']:.2%}) and "
                f"{found['cut_tokens_share']:.2%} of all tokens\n"
            )
        sys.stdout.write(f"  suggested: {key}={found['suggested_limit']}, cuts {found['suggested_limit_cuts']:.2%}\n")
