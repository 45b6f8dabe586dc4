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
"""GAD in one process as a command: models, data file, settings and progress around ``gad_in_one_file.py``.

To train, and to see how it went::

    python examples/gad_command.py --student MODEL_FOLDER --data train.parquet --output RUN_FOLDER
    gad-verl report RUN_FOLDER
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from gad_in_one_file import Example, Gad, Settings
from torch import nn

from gad_verl.data.endings import cut_texts
from gad_verl.data.schema import check_file, teacher_texts
from gad_verl.data.tokens import EncodedResponse, SequenceBuilder, stop_token_ids
from gad_verl.errors import USER_ERRORS, GadConfigError
from gad_verl.record import RunRecord

logger = logging.getLogger(__name__)


def load_models(path: str, num_layers: int | None, seed: int) -> tuple[Any, nn.Module, Any, frozenset[int]]:
    """Student, discriminator (its weights, a fresh head), tokenizer and stop ids of a model folder."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from gad_verl.discriminator.model import load_discriminator, prepare_config

    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        student = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        config = AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise GadConfigError(f"--student {path}: no model that transformers can load: {reason}") from None
    prepare_config(config, num_layers)
    discriminator = load_discriminator(path, config, torch.float32, fresh_head=True, seed=seed)
    return student, discriminator, tokenizer, stop_token_ids(tokenizer, student.generation_config)


def load_examples(path: str, builder: SequenceBuilder, prompt_key: str, teacher_key: str) -> list[Example]:
    """Rows of a data file (docs/data.md), checked and encoded."""
    import pandas as pd

    check_file(path, prompt_key, teacher_key, ("--prompt-key", "--teacher-key"))
    suffix = Path(path).suffix
    # dtype: a column of answers that all look like numbers stays one of texts.
    lines = suffix == ".jsonl"
    frame = pd.read_parquet(path) if suffix == ".parquet" else pd.read_json(path, lines=lines, dtype=False)
    return [
        Example(
            index,
            builder.prompt(list(row[prompt_key])),
            encode_teacher(row, builder, teacher_key, f"{path}, row {index}"),
        )
        for index, row in enumerate(frame.to_dict("records"))
    ]


def encode_teacher(row: dict[str, Any], builder: SequenceBuilder, key: str, where: str) -> list[EncodedResponse]:
    """The teacher's texts of a row; one that was cut when it was written gets no end-of-text token."""
    texts = teacher_texts(row[key], where)
    cuts = cut_texts(row, len(texts), where)
    return [builder.response(text, not cut) for text, cut in zip(texts, cuts, strict=True)]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="GAD in one process, without verl", allow_abbrev=False)
    parser.add_argument("--student", required=True, help="folder or name of a causal model with a chat template")
    parser.add_argument("--data", required=True, help="training rows: parquet, json or jsonl (docs/data.md)")
    parser.add_argument("--output", required=True, help="new folder for metrics.jsonl, student/ and discriminator/")
    parser.add_argument("--prompt-key", default="prompt")
    parser.add_argument("--teacher-key", default="teacher_response")
    parser.add_argument("--max-prompt-length", type=int, default=256, help="in tokens")
    parser.add_argument("--discriminator-num-layers", type=int, help="D takes the first k layers of the student")
    for name, value in asdict(Settings()).items():
        option = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            parser.add_argument(option, default=value, action=argparse.BooleanOptionalAction)
        else:
            parser.add_argument(option, default=value, type=float if value is None else type(value), help=f"{value}")
    return parser


def train(options: argparse.Namespace) -> None:
    """The command: train and save."""
    from tqdm import tqdm

    settings = Settings(**{name: getattr(options, name) for name in asdict(Settings())})
    output = Path(options.output)
    if output.exists():
        raise GadConfigError(f"--output {output} exists; name a new folder")
    student, discriminator, tokenizer, stop_ids = load_models(
        options.student, options.discriminator_num_layers, settings.seed
    )
    builder = SequenceBuilder(tokenizer, options.max_prompt_length, settings.max_response_length, stop_ids)
    examples = load_examples(options.data, builder, options.prompt_key, options.teacher_key)
    gad = Gad(student, discriminator, examples, settings, stop_ids, builder.student_response)
    output.mkdir(parents=True)
    record = RunRecord.open(output, resume_step=None)
    record.write_run(vars(options), output / "metrics.jsonl")
    with tqdm(total=settings.total_steps, unit="step") as bar:

        def show(step: int, metrics: dict[str, float], _: Gad) -> None:
            names = ("gad/stage", "actor/loss", "disc/accuracy", "gad/length_ratio")
            bar.set_postfix({name: f"{metrics[name]:.2f}" for name in names if name in metrics}, refresh=False)
            bar.update(step - bar.n)
            if "disc/loss" in metrics:
                phase = gad.schedule.phase(step).name.lower()
                record.scores(step, phase, gad.scores[:, 0].tolist(), gad.scores[:, 1:].flatten().tolist())

        gad.run([show], output / "metrics.jsonl")
    for name, module in (("student", student), ("discriminator", discriminator)):
        module.save_pretrained(output / name)
        tokenizer.save_pretrained(output / name)
    record.finish()
    logger.info("student, discriminator and metrics.jsonl are in %s", output)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 2 for an error that the user can mend."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        train(build_parser().parse_args(argv))
    except (*USER_ERRORS, ValueError, FloatingPointError) as error:
        sys.stderr.write(f"gad_command: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
