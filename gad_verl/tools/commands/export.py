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
"""``gad-verl export``: models of a checkpoint as Hugging Face folders."""

import argparse
import sys

from gad_verl.tools.commands import chosen, file_path


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command and its options."""
    parser = commands.add_parser(
        "export", help="write student and discriminator of a checkpoint as Hugging Face folders"
    )
    parser.add_argument("checkpoint", type=file_path, help="a folder global_step_N")
    parser.add_argument("--output", type=file_path, required=True, help="folder to write")
    parser.add_argument(
        "--part",
        choices=("student", "discriminator", "both"),
        default="student",
        help="which model; both writes OUTPUT/student and OUTPUT/discriminator (default: student)",
    )
    parser.add_argument(
        "--dtype",
        choices=("keep", "float32", "bfloat16", "float16"),
        default="keep",
        help="precision to write (default: as in the checkpoint)",
    )
    parser.add_argument(
        "--adapter",
        action="store_true",
        help="write the adapter of LoRA alone, in the format of PEFT (default: merged into its base)",
    )
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="run code that the model brings; it may do anything that you may",
    )
    card = parser.add_argument_group(
        "model card (README.md)",
        "Filled from the record of the run, the cards of its data and its evaluations; the rest is said to be unknown.",
    )
    card.add_argument("--no-card", action="store_true", help="write no card")
    card.add_argument("--license", help="license of the exported model, as the Hub names it (default: left out)")
    card.add_argument("--base-model", metavar="ORG/NAME", help="name on the Hub of what the training began with")
    card.add_argument(
        "--dataset",
        dest="datasets",
        action="append",
        default=[],
        metavar="ORG/NAME",
        help="name on the Hub of the data; may be repeated",
    )
    card.add_argument("--teacher", help="name of the teacher (default: as data cards say)")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    import torch

    from gad_verl.tools.export.card.request import CardRequest
    from gad_verl.tools.export.weights import PARTS, check_request, export_part

    card = None if arguments.no_card else chosen(CardRequest, arguments)
    dtype = None if arguments.dtype == "keep" else getattr(torch, arguments.dtype)
    both = {part: arguments.output / part for part in PARTS}
    targets = both if arguments.part == "both" else {arguments.part: arguments.output}
    # Of all parts, before the first one is written.
    for part, target in targets.items():
        check_request(arguments.checkpoint, part, target, arguments.adapter, arguments.trust_remote_code)
    for part, target in targets.items():
        export_part(
            arguments.checkpoint,
            part,
            target,
            dtype,
            adapter_only=arguments.adapter,
            card=card,
            trust_remote_code=arguments.trust_remote_code,
        )
        sys.stdout.write(f"{target}\n")
