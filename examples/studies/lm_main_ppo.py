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
"""One seed of ``lm_language.py`` through the trainer on verl: SeqKD, GAD and the new objective by ``main_ppo``.

    python examples/studies/lm_main_ppo.py --work WORK       # interrupt it at any time

WORK is that of ``lm_language.py``, or a new folder: the student of the common start and GAD's discriminator are taken
from there, or made as they are there; the rates are from its rows of the choice. The discriminator that is trusted is
warmed up anew, as there: the trainer on verl holds out other prompts, and a discriminator that has seen them seems to
know more than it does. verl computes in float32 here, shuffles in its own way, and its rates do not rise at first; an f
that is new waits for 16 held-out prompts, so that the new objective begins with some steps of D alone.
"""

import logging
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from study_common import Row, Rows, arguments, table

# isort: split
from language import HELD_OUT, TRUST
from language_main_ppo import summary, train
from lm_lab import Corpus, Lab, judge, quiet_loading
from lm_language import CHOICE_ROWS, COLUMNS, DIFFERENCES, FIRST_SEED, Choice, choose
from lm_language import NAME as STUDY
from lm_model import Learner
from lm_training import DISCRIMINATOR_RATE, start, warm_opponent
from objective_language import GAD, NEW, SEQKD, TUNED
from objective_training import CLIP_GRAD, KL_COEF, WEIGHT_DECAY
from smollm_lab import differences_table
from student import StudentError, ensure_student
from study_common import RESULTS
from torch import Tensor

from gad_verl.data.schema import chat_id
from gad_verl.errors import USER_ERRORS, GadConfigError

NAME = "lm_main_ppo"
ARMS = (TUNED, NEW, GAD)
PAIRS = ((TUNED, NEW), (TUNED, GAD), (NEW, GAD))
ALONE = 10  # steps of D alone, in which 20 held-out prompts are seen
MAX_PROMPT = 48
MICRO_BATCH_TOKENS = 1024
SAVE_STEPS = 10
OPPONENTS = {NEW: "trusted", GAD: "plain"}


class ChatLab(Lab):
    """That of ``lm_language.py``, where prompts are held out as by ``gad_verl/trainer/trust.py``."""

    def corpus(self, seed: int) -> Corpus:
        """Of which other prompts are held out."""
        corpus = Corpus(self, seed)
        corpus.name([chat_id([{"role": "user", "content": row.prompt}]) for row in corpus.splits.train])
        return corpus

    def of_seed(self, seed: int, name: str) -> Path:
        """The discriminator that is trusted lies with the runs of main_ppo."""
        return super().of_seed(seed, f"main_ppo/{name}" if name.startswith("opponent-trusted") else name)


def folder_of(lab: Lab, name: str) -> Path:
    """Of a run of main_ppo, or of what all of them start from."""
    return lab.of_seed(FIRST_SEED, "main_ppo") / name.replace(",", "").replace(" ", "-")


def data_rows(corpus: Corpus) -> dict[str, pd.DataFrame]:
    """Data files of GAD: what is trained on, and what is validated on."""
    parts = {"train": corpus.splits.train, "val": corpus.splits.validation[:32]}
    return {
        name: pd.DataFrame(
            {
                "prompt": [{"role": "user", "content": row.prompt}],
                "teacher_response": row.teacher,
                "data_source": STUDY,
            }
            for row in rows
        )
        for name, rows in parts.items()
    }


def prepare(lab: Lab, arm: str) -> None:
    """Data, and the models from which an arm starts as folders, once."""
    begin = folder_of(lab, "begin")
    if not (begin / "student").is_dir():
        begin.mkdir(parents=True, exist_ok=True)
        begun = start(lab, FIRST_SEED)
        for name, rows in data_rows(begun.corpus).items():
            rows.to_parquet(begin / f"{name}.parquet")
        _save(lab, lab.student(), begun.masters, begin / "student")
    name = OPPONENTS.get(arm)
    if name is not None and not (begin / name).is_dir():
        # Where nothing is held out from D it is that of lm_language.py, in whose rows stands what it knew.
        own = lab if arm == NEW else Lab(lab.folder, lab.work, lab.sizes, lab.dtype)
        warm_opponent(own, arm == NEW, FIRST_SEED)
        saved = torch.load(own.of_seed(FIRST_SEED, f"opponent-{name}.pt"), weights_only=True)
        masters = saved["parts"]["discriminator"]["masters"]
        _save(lab, lab.discriminator(FIRST_SEED), masters, begin / name)


def prepare_in(work: Path, arm: str) -> None:
    """:func:`prepare` in a process of its own."""
    quiet_loading()
    torch.set_num_threads(1)
    prepare(ChatLab(work / "student", work), arm)


def _save(lab: Lab, learner: Learner, masters: Sequence[Tensor], folder: Path) -> None:
    """A model in float32 as a folder, which is there whole or not at all."""
    learner.module.float()
    learner.start_from(masters)
    fresh = folder.with_name(f"{folder.name}.new")
    learner.module.save_pretrained(fresh)
    lab.builder.tokenizer.save_pretrained(fresh)
    fresh.rename(folder)


def overrides(lab: Lab, arm: str, choice: Choice) -> list[str]:
    """Of ``gad_cpu``, for one arm."""
    sizes, begin = lab.sizes, folder_of(lab, "begin")
    alone = ALONE if arm == NEW else 0
    steps = sizes.steps + alone
    found = [
        # What the new objective changes is said below, one by one.
        "gad=paper",
        f"actor_rollout_ref.model.path={begin / 'student'}",
        f"data.train_files={begin / 'train.parquet'}",
        f"data.val_files={begin / 'val.parquet'}",
        f"data.seed={FIRST_SEED}",
        f"data.train_batch_size={sizes.batch}",
        f"data.max_prompt_length={MAX_PROMPT}",
        f"data.max_response_length={sizes.limit}",
        f"actor_rollout_ref.rollout.max_model_len={MAX_PROMPT + sizes.limit}",
        f"actor_rollout_ref.rollout.n={sizes.n}",
        "actor_rollout_ref.rollout.temperature=1.0",
        f"actor_rollout_ref.actor.optim.clip_grad={CLIP_GRAD}",
        f"actor_rollout_ref.actor.optim.weight_decay={WEIGHT_DECAY}",
        f"actor_rollout_ref.actor.kl_loss_coef={KL_COEF}",
        # With the batch in one piece the student's worker grew to 9 GB here: logits are over 49,152 tokens.
        f"actor_rollout_ref.actor.ppo_max_token_len_per_gpu={MICRO_BATCH_TOKENS}",
        f"discriminator.ppo_max_token_len_per_gpu={MICRO_BATCH_TOKENS}",
        "trainer.val_before_train=False",
        "trainer.test_freq=-1",
        "trainer.total_epochs=1000",
        f"trainer.total_training_steps={steps}",
        f"trainer.save_freq={SAVE_STEPS}",
        "gad.keep_checkpoints=1",
        "gad.watchdog.stage_timeout_s=900",
    ]
    if arm == TUNED:
        return [*found, "gad.stage=seqkd", f"gad.warmup.actor_lr={choice.seqkd}"]
    found += [
        f"gad.stage={'auto' if alone else 'gad'}",
        f"gad.warmup_steps={alone}",
        f"gad.discriminator_only_steps={alone}",
        f"actor_rollout_ref.actor.optim.lr={choice.gad}",
        f"discriminator.model.path={begin / OPPONENTS[arm]}",
        f"discriminator.optim.lr={DISCRIMINATOR_RATE}",
        f"discriminator.optim.clip_grad={CLIP_GRAD}",
        f"discriminator.optim.weight_decay={WEIGHT_DECAY}",
        "gad.discriminator_head=load",
    ]
    if arm == NEW:
        found += [
            "algorithm.norm_adv_by_std_in_grpo=False",
            f"gad.warmup.actor_lr={choice.seqkd}",
            f"gad.trust.held_out_fraction={HELD_OUT}",
            f"gad.trust.full_accuracy={TRUST.full_accuracy}",
            f"gad.trust.confidence={TRUST.confidence}",
            f"gad.trust.window={TRUST.window}",
            f"gad.trust.least_prompts={TRUST.least_prompts}",
            "gad.trust.otherwise=supervised",
        ]
    return found


def run(lab: Lab, arm: str, choice: Choice) -> dict[str, Any]:
    """One arm by main_ppo; its row."""
    from transformers import AutoModelForCausalLM

    folder = folder_of(lab, arm)
    metrics = train(folder, overrides(lab, arm, choice))
    student = AutoModelForCausalLM.from_pretrained(
        folder / "student", dtype=lab.dtype, attn_implementation="eager"
    ).eval()
    figures = judge(student, start(lab, FIRST_SEED).corpus, lab.sizes.limit)
    train_s = round(sum(step["timing_s/step"] for step in metrics), 1)
    return {"arm": arm, "seed": FIRST_SEED, **figures, **summary(metrics), "train_s": train_s}


def tables(rows: Sequence[Row]) -> list[str]:
    """For docs/studies.md: each arm by main_ppo, and what ``lm_language.py`` has of the same seed."""
    from lm_language import rival_rows

    other = Rows(RESULTS / f"{STUDY}.jsonl").all()
    other = [*other, *rival_rows(other, choose(Rows(CHOICE_ROWS).all()))]
    same = {row["arm"]: row for row in other if row["seed"] == FIRST_SEED}
    pairs = [(f"{SEQKD}, where all start", same.get(SEQKD))]
    for arm in ARMS:
        pairs.append((f"{arm}, one process", same.get(arm)))
        pairs.append((f"{arm}, main_ppo", next((row for row in rows if row["arm"] == arm), None)))
    lines = []
    for name, row in pairs:
        if row is not None:
            cells = [f"{column.scale * row[column.key]:.{column.digits}f}" for column in COLUMNS]
            lines.append([name, *cells, f"{row['train_s'] / 60:.0f}" if "train_s" in row else "–"])
    return [
        table(["arm", *(column.title for column in COLUMNS), "minutes"], lines),
        differences_table(rows, PAIRS, DIFFERENCES),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; 1 where the time is over, 2 for an error that the user can mend."""
    parser = arguments(__doc__, NAME, seeds=1)
    parser.add_argument("--work", type=Path, required=True, help="folder of lm_language.py, or a new one")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    quiet_loading()
    torch.set_num_threads(1)
    begin, rows = time.monotonic(), Rows(options.rows)
    try:
        work = options.work.resolve()
        choice = choose(Rows(CHOICE_ROWS).all())
        if choice is None:
            raise GadConfigError(f"{CHOICE_ROWS} is not complete: run lm_language.py first")
        lab = ChatLab(ensure_student(work / "student"), work)
        for arm in ARMS:
            if f"{arm}/seed={FIRST_SEED}" not in rows:
                if options.budget_s is not None and time.monotonic() - begin > options.budget_s:
                    return 1
                # Not here: what a warmup takes of the memory is needed by the run.
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as other:
                    other.submit(prepare_in, work, arm).result()
                rows.add(f"{arm}/seed={FIRST_SEED}", run(lab, arm, choice))
    except (StudentError, *USER_ERRORS) as error:
        sys.stderr.write(f"{NAME}: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
