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
"""Study 4 through the trainer on verl: SeqKD, GAD as published, and ``gad=recommended``.

    python examples/studies/smollm_main_ppo.py --data teacher.parquet --work WORK      # interrupt it at any time

Rows, student, size of the discriminator, rates and judge are those of ``smollm.py``. Each arm is one run, as a user
has it: warmup and adversarial stage, or as many steps of SeqKD. ``--config-name gad_trainer`` runs it on GPUs; what
stands behind ``--`` is given to every run, so that larger batches can be taken there:

    python examples/studies/smollm_main_ppo.py --data teacher.parquet --work GPU_WORK --config-name gad_trainer \\
        --rows gpu_rows.jsonl -- data.train_batch_size=64 actor_rollout_ref.rollout.n=8
"""

import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from study_common import RESULTS, Row, Rows, keep_settings, table

# isort: split
from language_main_ppo import export, train
from smollm import NAME as STUDY
from smollm import SHARED
from smollm_lab import (
    ALONE,
    BASE,
    COLUMNS,
    FIRST_SEED,
    GAD,
    LAYERS_OF_D,
    MAX_PROMPT,
    MAX_RESPONSE,
    SEQKD,
    TEMPERATURE,
    WARMED,
    SmolLab,
    check_steps,
    differences_table,
    of_metrics,
    study_arguments,
)
from student import StudentError, ensure_student

from gad_verl.errors import USER_ERRORS

NAME = "smollm_main_ppo"
NEW = "gad=recommended"
RUNS = (GAD, SEQKD, NEW)
ARMS = (BASE, WARMED, *RUNS)
# One prompt of a step of four: with the preset's one in twenty the 16 that f waits for are seen after 80 steps.
HELD_OUT = 0.25
SAVE_MINUTES = 15
FACTOR = "gad/trust_factor"


class MainPpo(SmolLab):
    """Runs of ``main_ppo`` on the rows of the study.

    Args:
        data, work, student: See :class:`SmolLab`.
        warmup: Steps of the warmup.
        steps: Steps after it.
        config_name: Of the configuration.
        more: Overrides that every run gets.

    Raises:
        GadConfigError: If the runs of the work folder have other settings.
    """

    def __init__(
        self,
        data: Path,
        work: Path,
        student: Path,
        warmup: int = 40,
        steps: int = 40,
        config_name: str = "gad_cpu",
        more: Sequence[str] = (),
    ) -> None:
        super().__init__(data, work, student, SHARED.batch_size)
        self.warmup, self.steps, self.config_name, self.more = warmup, steps, config_name, list(more)
        common = {"warmup": warmup, "steps": steps, "config": config_name, "more": self.more}
        keep_settings(work / "main_ppo" / "settings.json", common)

    def answers(self, arm: str, seed: int) -> str:
        """Name of the folder of an arm's texts."""
        return f"main_ppo-{arm.replace('=', '-')}-{seed}"

    def folder(self, arm: str, seed: int) -> Path:
        """Of a run; without ``=``, which Hydra would read."""
        return self.work / "main_ppo" / f"{arm.replace('=', '-')}-{seed}"

    def files(self) -> dict[str, Path]:
        """Data files of GAD: what is trained on, and what is validated on; written once."""
        parts = {"train": list(self.numbered.values()), "val": self.test[:32]}
        found = {}
        for name, rows in parts.items():
            path = found[name] = self.work / "main_ppo" / f"{name}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_file():
                pd.DataFrame(
                    {"prompt": list(row.messages), "teacher_response": row.teacher, "data_source": "smollm"}
                    for row in rows
                ).to_parquet(path)
        return found

    def overrides(self, arm: str, seed: int) -> list[str]:
        """Of the configuration, for one run."""
        files = self.files()
        rate, supervised = SHARED.actor_lr, 2 * SHARED.actor_lr
        found = [
            f"gad={'recommended' if arm == NEW else 'paper'}",
            f"actor_rollout_ref.model.path={self.student}",
            f"data.train_files={files['train']}",
            f"data.val_files={files['val']}",
            f"data.seed={seed}",
            f"data.train_batch_size={SHARED.batch_size}",
            f"data.max_prompt_length={MAX_PROMPT}",
            f"data.max_response_length={MAX_RESPONSE}",
            f"actor_rollout_ref.rollout.max_model_len={MAX_PROMPT + MAX_RESPONSE}",
            f"actor_rollout_ref.rollout.n={SHARED.n}",
            f"actor_rollout_ref.rollout.temperature={TEMPERATURE}",
            f"actor_rollout_ref.actor.optim.clip_grad={SHARED.clip_grad}",
            f"gad.warmup.actor_lr={supervised}",
            "trainer.val_before_train=False",
            "trainer.test_freq=-1",
            "trainer.total_epochs=1000",
            f"trainer.total_training_steps={self.warmup + self.steps}",
            # The student of the warmup is judged too.
            f"trainer.save_freq={self.warmup}",
            f"gad.save_minutes={SAVE_MINUTES}",
            "gad.watchdog.stage_timeout_s=900",
        ]
        if arm == SEQKD:
            return [*found, "gad.stage=seqkd", *self.more]
        found += [
            f"gad.warmup_steps={self.warmup}",
            f"gad.discriminator_only_steps={ALONE}",
            f"gad.adversarial.actor_lr={rate}",
            f"gad.discriminator_num_layers={LAYERS_OF_D}",
            f"discriminator.optim.lr={SHARED.discriminator_lr}",
            f"discriminator.optim.clip_grad={SHARED.clip_grad}",
        ]
        if arm == NEW:
            found.append(f"gad.trust.held_out_fraction={HELD_OUT}")
        return [*found, *self.more]

    def row(self, arm: str, seed: int) -> dict[str, Any]:
        """Train an arm and judge it; its row."""
        answers = self.answers(arm, seed)
        if arm == BASE:
            return self.judge(self.student, answers, seed)
        run = GAD if arm == WARMED else arm
        folder = self.folder(run, seed)
        metrics = train(folder, self.overrides(run, seed), self.config_name)
        trained, model = (metrics, folder / "student") if arm != WARMED else (metrics[: self.warmup], folder / WARMED)
        if not model.is_dir():
            export(folder, self.warmup, model)
        row = self.judge(model, answers, seed) | of_metrics(trained)
        if arm == NEW:
            row["factor"] = float(np.mean([step[FACTOR] for step in metrics[self.warmup :]]))
        return row


def run(lab: MainPpo, rows: Rows, seeds: Sequence[int], budget_s: float | None = None) -> bool:
    """Do what is missing; whether all is done."""
    begin = time.monotonic()
    common = {"warmup": lab.warmup, "steps": lab.steps, "train_rows": len(lab.numbered), "config": lab.config_name}
    for seed in seeds:
        for arm in ARMS:
            key = f"{arm}/seed={seed}"
            if key in rows:
                continue
            if budget_s is not None and time.monotonic() - begin > budget_s:
                return False
            rows.add(key, {"arm": arm, "seed": seed, **common, "more": lab.more, **lab.row(arm, seed)})
        lab.samples(lab.work / f"samples-main_ppo-{seed}.md", {arm: lab.answers(arm, seed) for arm in ARMS})
    return True


# ------------------------------------------------------ tables ------------------------------------------------------


def tables(rows: Sequence[Row]) -> list[str]:
    """For docs/studies.md: each arm by main_ppo, and beside it that of ``smollm.py``; then what tells arms apart."""
    other = {(row["arm"], row["seed"]): row for row in Rows(RESULTS / f"{STUDY}.jsonl").all()}
    lines = []
    for seed in sorted({row["seed"] for row in rows}):
        for arm in ARMS:
            mine = next((row for row in rows if (row["arm"], row["seed"]) == (arm, seed)), None)
            for name, row in ((f"{arm}, one file", other.get((arm, seed))), (f"{arm}, main_ppo", mine)):
                if row is not None:
                    cells = [f"{column.scale * row[column.key]:.{column.digits}f}" for column in COLUMNS]
                    minutes = f"{row['train_s'] / 60:.0f}" if "train_s" in row else "–"
                    lines.append([name, *cells, minutes])
    factors = [row["factor"] for row in rows if "factor" in row]
    note = f"Mean f after the warmup: {' / '.join(f'{factor:.2f}' for factor in factors)}.\n" if factors else ""
    heads = ["arm and trainer", *(column.title for column in COLUMNS), "minutes of training"]
    pairs = [(WARMED, SEQKD), (SEQKD, GAD), (SEQKD, NEW), (GAD, NEW)]
    return [table(heads, lines) + "\n" + note, differences_table(rows, pairs)]


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; 1 where the time is over, 2 for an error that the user can mend."""
    parser = study_arguments(__doc__, NAME, seeds=1)
    parser.add_argument("--config-name", default="gad_cpu", help="configuration of main_ppo (default: gad_cpu)")
    parser.add_argument("overrides", nargs="*", help="given to every run, behind --")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    torch.set_num_threads(1)
    try:
        check_steps(options.warmup, options.steps)
        work = options.work.resolve()
        work.mkdir(parents=True, exist_ok=True)
        student = options.student.resolve() if options.student else ensure_student(work / "student")
        lab = MainPpo(
            options.data, work, student, options.warmup, options.steps, options.config_name, options.overrides
        )
        seeds = range(FIRST_SEED, FIRST_SEED + options.seeds)
        done = run(lab, Rows(options.rows), seeds, options.budget_s)
    except (StudentError, *USER_ERRORS) as error:
        sys.stderr.write(f"{NAME}: {error}\n")
        return 2
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main())
