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
"""Study 2 through the trainer on verl: one seed of SeqKD, of GAD and of GAD with trust, beside the one-file trainer.

    python examples/studies/language_main_ppo.py --work WORK     # goes on where it was interrupted, run by run

The language, its oracle and the settings are those of the regime ``good student`` of ``language.py``; student and
discriminator are small models of transformers here, because verl trains such models. Both trainers start from the same
weights and see the same teacher texts, each in its own order. Models and logs stay in WORK.
"""

import copy
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from study_common import Row, Rows, arguments, table

# isort: split
from gad_in_one_file import Example, Gad, Settings
from language import GAD, REGIMES, SAMPLES, SEQKD, TEST_PROMPTS, TRUST, TRUSTED, VALIDATION_TEXTS
from language import HELD_OUT as HELD_OUT_FRACTION
from oracle_language import END, LETTERS, STOP_IDS, VOCABULARY, Corpus, judge, longest_answer, make_corpus

logger = logging.getLogger("studies.language_main_ppo")

NAME = "language_main_ppo"
SEED = 300
ONE_FILE, MAIN_PPO = "one file", "main_ppo"
REGIME = REGIMES["good student"]
SEQKD_BATCH, BATCH, N, SEQKD_LR, DISCRIMINATOR_LR = 64, 32, 4, 3e-3, 1e-3
LETTERS_AS_TEXT = "abcdefghHME>"  # token ids 0 to 11 of oracle_language
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}{% if add_generation_prompt %}>{% endif %}"


def as_text(ids: Sequence[int]) -> str:
    """Tokens of the language as letters; the end token has none."""
    return "".join(LETTERS_AS_TEXT[token] for token in ids if token != END)


def build_tokenizer() -> Any:
    """One token for each letter, with the ids of ``oracle_language``; any other character is padding."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {letter: number for number, letter in enumerate(LETTERS_AS_TEXT)} | {"<end>": END, "<pad>": VOCABULARY}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>", unk_token="<pad>")
    fast.chat_template = TEMPLATE
    return fast


def build_model(folder: Path, width: int, layers: int, heads: int, seed: int) -> None:
    """Write a random Llama with the tokenizer of the language."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY + 1,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=64,
        initializer_range=width**-0.5,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=END,
        pad_token_id=VOCABULARY,
    )
    model = LlamaForCausalLM(config)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = END, VOCABULARY
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)


def write_rows(examples: Sequence[Example], path: Path) -> None:
    """The corpus as a data file of GAD."""
    rows = [
        {
            "prompt": [{"role": "user", "content": as_text(token for token in example.prompt_ids if token < LETTERS)}],
            "teacher_response": as_text(example.teachers[0].token_ids),
            "data_source": "oracle_language",
        }
        for example in examples
    ]
    pd.DataFrame(rows).to_parquet(path)


def prepare(work: Path) -> Corpus:
    """Data, a student and a discriminator below ``work``, made once."""
    corpus = make_corpus(REGIME.length, REGIME.texts, VALIDATION_TEXTS, TEST_PROMPTS, SEED)
    if not (work / "prepared").is_file():
        build_model(work / "student", 32, 2, 4, SEED)
        build_model(work / "discriminator", REGIME.discriminator_width, 2, 2, SEED + 1)
        write_rows(corpus.train, work / "train.parquet")
        write_rows(corpus.validation[:32], work / "val.parquet")
        (work / "prepared").touch()
    return corpus


# ------------------------------------------------ the trainer on verl ------------------------------------------------


def folder_of(work: Path, arm: str) -> Path:
    """Of the run of main_ppo; without a comma, which Hydra would read as a list."""
    return work / MAIN_PPO / arm.replace(", ", "-")


def overrides(work: Path, arm: str) -> list[str]:
    """Of ``gad_cpu``, for one arm."""
    student = work / "student" if arm == SEQKD else folder_of(work, SEQKD) / "student"
    common = [
        "gad=paper",
        f"actor_rollout_ref.model.path={student}",
        f"data.train_files={work / 'train.parquet'}",
        f"data.val_files={work / 'val.parquet'}",
        f"data.seed={SEED}",
        "data.max_prompt_length=16",
        "data.max_response_length=8",
        "actor_rollout_ref.rollout.max_model_len=24",
        "actor_rollout_ref.actor.optim.clip_grad=1.0",
        "actor_rollout_ref.rollout.temperature=1.0",
        f"actor_rollout_ref.rollout.n={N}",
        "actor_rollout_ref.actor.kl_loss_coef=0.001",
        "trainer.val_before_train=False",
        "trainer.test_freq=-1",
        "trainer.total_epochs=1000",
        "gad.watchdog.stage_timeout_s=600",
    ]
    if arm == SEQKD:
        steps, batch = REGIME.seqkd_steps, SEQKD_BATCH
        common += ["gad.stage=seqkd", f"gad.warmup.actor_lr={SEQKD_LR}"]
    else:
        steps, batch = REGIME.warmup + REGIME.adversarial, BATCH
        common += [
            f"gad.warmup_steps={REGIME.warmup}",
            f"gad.discriminator_only_steps={REGIME.warmup}",
            f"actor_rollout_ref.actor.optim.lr={REGIME.actor_lr}",
            f"discriminator.model.path={work / 'discriminator'}",
            f"discriminator.optim.lr={DISCRIMINATOR_LR}",
            "discriminator.optim.clip_grad=1.0",
            "gad.discriminator_head=fresh",
        ]
    if arm == TRUSTED:
        common += [
            f"gad.trust.held_out_fraction={HELD_OUT_FRACTION}",
            f"gad.trust.full_accuracy={TRUST.full_accuracy}",
            f"gad.trust.confidence={TRUST.confidence}",
            f"gad.trust.window={TRUST.window}",
            f"gad.trust.least_prompts={TRUST.least_prompts}",
        ]
    common += [f"data.train_batch_size={batch}", f"trainer.total_training_steps={steps}", f"trainer.save_freq={steps}"]
    return common


def train(folder: Path, settings: Sequence[str], config_name: str = "gad_cpu") -> list[dict[str, float]]:
    """Train by ``python -m verl.trainer.main_ppo`` and export to ``folder / "student"``, if that is not there; the
    metrics of the steps. A run that was cut off goes on at its last checkpoint.

    Args:
        folder: Of the run.
        settings: Overrides.
        config_name: What they are of.

    Raises:
        RuntimeError: If the run or the export fails; names the log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log, metrics_file, exported = folder / "log.txt", folder / "metrics.jsonl", folder / "student"
    if not exported.is_dir():
        if metrics_file.is_file():
            # verl's file logger begins its file anew.
            metrics_file.rename(folder / f"metrics-{len(_earlier(folder))}.jsonl")
        settings = [
            *settings,
            f"trainer.default_local_dir={folder / 'checkpoints'}",
            'trainer.logger=["file"]',
            "trainer.resume_mode=auto",
        ]
        command = [sys.executable, "-m", "verl.trainer.main_ppo", "--config-name", config_name, *settings]
        environment = {**os.environ, "VERL_FILE_LOGGER_PATH": str(metrics_file), "HF_HUB_OFFLINE": "1"}
        with log.open("a", encoding="utf-8") as output:
            done = subprocess.run(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
        if done.returncode:
            raise RuntimeError(f"main_ppo ended with {done.returncode}; see {log}")
        step = (folder / "checkpoints" / "latest_checkpointed_iteration.txt").read_text().strip()
        export(folder, int(step), exported)
    # Steps behind the checkpoint at which a run went on were made twice: the later ones count.
    lines = [line for part in (*_earlier(folder), metrics_file) for line in part.read_text("utf-8").splitlines()]
    steps = {row["step"]: row["data"] for row in map(json.loads, lines)}
    return [steps[step] for step in sorted(steps)]


def export(folder: Path, step: int, output: Path) -> None:
    """The student of a checkpoint of a run, as a folder; what is said goes to the run's log.

    Raises:
        RuntimeError: If it fails; names the log.
    """
    checkpoint, log = folder / "checkpoints" / f"global_step_{step}", folder / "log.txt"
    command = [sys.executable, "-m", "gad_verl.cli", "export", str(checkpoint), "--output", str(output)]
    with log.open("a", encoding="utf-8") as said:
        if subprocess.run(command, stdout=said, stderr=subprocess.STDOUT).returncode:
            raise RuntimeError(f"the export failed; see {log}")


def _earlier(folder: Path) -> list[Path]:
    """Metrics of what ran before a run was cut off, the oldest first."""
    return sorted(folder.glob("metrics-*.jsonl"), key=lambda path: int(path.stem.rpartition("-")[2]))


def by_main_ppo(work: Path, arm: str) -> tuple[Any, dict[str, Any]]:
    """One arm by the trainer on verl; the student and what the metrics say."""
    from transformers import AutoModelForCausalLM

    folder = folder_of(work, arm)
    found = summary(train(folder, overrides(work, arm)))
    return AutoModelForCausalLM.from_pretrained(folder / "student", dtype=torch.float32).eval(), found


# ---------------------------------------------- the trainer in one file ----------------------------------------------


def by_one_file(work: Path, arm: str, corpus: Corpus) -> tuple[Any, dict[str, Any]]:
    """The same by ``gad_in_one_file``; SeqKD's student is kept for the arms after it."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from gad_verl.discriminator.model import load_discriminator, prepare_config

    trained = work / ONE_FILE / SEQKD
    start = work / "student" if arm == SEQKD else trained
    student = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32)
    common = {"clip_grad": 1.0, "seed": SEED, "max_response_length": longest_answer(REGIME.length), "temperature": 1.0}
    metrics: list[dict[str, float]] = []
    if arm == SEQKD:
        settings = Settings(
            stage="seqkd", total_steps=REGIME.seqkd_steps, batch_size=SEQKD_BATCH, actor_lr=SEQKD_LR, **common
        )
        gad = Gad(student, torch.nn.Linear(1, 1), corpus.train, settings, STOP_IDS)
    else:
        settings = Settings(
            total_steps=REGIME.warmup + REGIME.adversarial,
            warmup_steps=REGIME.warmup,
            discriminator_only_steps=REGIME.warmup,
            batch_size=BATCH,
            n=N,
            actor_lr=REGIME.actor_lr,
            discriminator_lr=DISCRIMINATOR_LR,
            held_out_fraction=HELD_OUT_FRACTION if arm == TRUSTED else 0.0,
            **common,
        )
        config = AutoConfig.from_pretrained(work / "discriminator")
        prepare_config(config, None)
        discriminator = load_discriminator(
            str(work / "discriminator"), config, torch.float32, fresh_head=True, seed=SEED
        )
        gad = Gad(student, discriminator, corpus.train, settings, STOP_IDS)
    gad.run([lambda step, of_step, gad: metrics.append(copy.copy(of_step))])
    if arm == SEQKD:
        student.save_pretrained(trained)
    return student.eval(), summary(metrics)


def summary(metrics: Sequence[dict[str, float]]) -> dict[str, Any]:
    """What is kept of the metrics of a run: D's accuracy and the factor of the rate, as means of 25 steps."""
    found = {}
    for name in ("disc/accuracy", "gad/trust_factor", "gad/trust_accuracy", "timing_s/step"):
        values = [line[name] for line in metrics if name in line and line[name] == line[name]]
        if values:
            parts = [values[begin : begin + 25] for begin in range(0, len(values), 25)]
            found[name.replace("/", "_")] = [sum(part) / len(part) for part in parts]
    return found


def run(work: Path, rows: Rows, budget_s: float | None = None) -> bool:
    """Do what is missing; whether all is done."""
    begin = time.monotonic()
    corpus = prepare(work)
    for arm in (SEQKD, GAD, TRUSTED):
        for trainer in (ONE_FILE, MAIN_PPO):
            key = f"{trainer}/{arm}/seed={SEED}"
            if key in rows:
                continue
            if budget_s is not None and time.monotonic() - begin > budget_s:
                return False
            start = time.monotonic()
            student, found = by_main_ppo(work, arm) if trainer == MAIN_PPO else by_one_file(work, arm, corpus)
            torch.manual_seed(SEED)
            outcome = judge(student, corpus.test, SAMPLES)
            logger.info("%s: %.1f %% valid", key, 100 * outcome["valid"])
            row = {"trainer": trainer, "arm": arm, "seed": SEED, **outcome, **found}
            rows.add(key, row | {"wall_s": round(time.monotonic() - start, 1)})
    return True


def tables(rows: Sequence[Row]) -> list[str]:
    """For docs/studies.md: the arms of both trainers side by side."""
    lines = []
    for arm in (SEQKD, GAD, TRUSTED):
        for row in rows:
            if row["arm"] != arm:
                continue
            accuracy, factor = row.get("disc_accuracy"), row.get("gad_trust_factor")
            lines.append(
                [
                    f"{arm}, {row['trainer']}",
                    *(f"{100 * row[name]:.1f}" for name in ("valid", "greedy")),
                    f"{row['covered']:.2f}",
                    f"{row['length']:.1f}",
                    f"{accuracy[-1]:.2f}" if accuracy else "–",
                    f"{max(factor):.2f}" if factor else "–",
                    f"{row['wall_s'] / 60:.1f}",
                ]
            )
    heads = ["arm and trainer", "valid, %", "greedy, %", "covered, of 3", "length", "accuracy of D, last steps"]
    return [table([*heads, "largest mean factor of the rate, 25 steps", "minutes"], lines)]


def main() -> int:
    parser = arguments(__doc__, NAME, seeds=1)
    parser.add_argument("--work", type=Path, required=True, help="folder of models, checkpoints and logs")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    return 0 if run(work, Rows(options.rows), options.budget_s) else 1


if __name__ == "__main__":
    sys.exit(main())
