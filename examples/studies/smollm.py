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
"""Study 4: SmolLM2-135M-Instruct imitates the texts of a real teacher: base, SeqKD and GAD from one warmup.

    gad-verl data import answers.jsonl --output teacher.parquet
    python examples/studies/smollm.py --data teacher.parquet --work WORK

Both arms of a seed start from the student of the same warmup, and take as many steps on the same rows in the same
order. The study runs in slices: interrupt it at any time, or let --budget-s end it; the same command goes on. Weights
and texts stay in WORK; only figures go to the rows. Training is ``examples/gad_in_one_file.py``.
"""

import json
import logging
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from study_common import Row, Rows, save_tensors

# isort: split
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "quickstart"))
from gad_command import load_models
from gad_in_one_file import Example, Gad, Settings
from smollm_lab import (
    ALONE,
    BASE,
    FIRST_SEED,
    GAD,
    LAYERS_OF_D,
    MAX_RESPONSE,
    SEQKD,
    SERIES,
    TEMPERATURE,
    WARMED,
    SmolLab,
    arms_table,
    check_steps,
    differences_table,
    of_metrics,
    study_arguments,
)
from student import ensure_student
from torch import nn

from gad_verl.core import intervals
from gad_verl.errors import USER_ERRORS
from gad_verl.record.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger("studies.smollm")

NAME = "smollm"
ARMS = (BASE, WARMED, SEQKD, GAD)
SAVE_EVERY = 5  # steps
COLORS = ("tab:blue", "tab:orange", "tab:green", "tab:red")
SHARED = Settings(
    batch_size=4,
    n=4,
    max_response_length=MAX_RESPONSE,
    temperature=TEMPERATURE,
    actor_lr=1e-5,
    discriminator_lr=3e-5,
    clip_grad=1.0,
    kl_reference="initial",
    micro_batch=8,
)


class ResumableGad(Gad):
    """GAD of one stage that goes on from a saved state as if it had not been interrupted.

    It is built from the models that the stage started from: the KL reference is the first student.
    """

    _SAVED = ("student", "discriminator", "student_optimizer", "discriminator_optimizer")

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizers, the place in the rows and the random numbers."""
        parts: dict[str, Any] = {name: getattr(self, name).state_dict() for name in self._SAVED}
        return parts | {"steps_done": self.steps_done, "rng": torch.get_rng_state()}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take up a state of :meth:`state_dict`."""
        for name in self._SAVED:
            getattr(self, name).load_state_dict(saved[name])
        # The order of the rows depends on the seed alone.
        for _ in range(saved["steps_done"]):
            next(self._batches)
        self.steps_done = saved["steps_done"]
        # The stage was entered already: its optimizer keeps its moments.
        self._adversarial = self.settings.stage == "gad"
        torch.set_rng_state(saved["rng"])


class Slice:
    """A phase of training that goes on where it was interrupted.

    Args:
        gad: As it starts.
        folder: Of the saved state and the metrics.
    """

    def __init__(self, gad: ResumableGad, folder: Path) -> None:
        self.gad, self.folder = gad, folder
        self.metrics: list[dict[str, float]] = []
        self.state = folder / "state.pt"
        folder.mkdir(parents=True, exist_ok=True)
        if self.state.is_file():
            saved = torch.load(self.state, weights_only=True)
            self.metrics = saved["metrics"]
            gad.load_state_dict(saved)

    def _save(self) -> None:
        # Plain numbers: with anything else the file could not be read as data alone.
        metrics = [{name: float(value) for name, value in one.items()} for one in self.metrics]
        save_tensors(self.gad.state_dict() | {"metrics": metrics}, self.state)

    def run(self, deadline: float) -> bool:
        """Go on until the end, or until ``deadline`` (of time.monotonic); whether it is the end."""
        total = self.gad.settings.total_steps
        while self.gad.steps_done < total:
            if time.monotonic() > deadline:
                return False
            self.metrics.append(self.gad.step())
            step, last = self.gad.steps_done, self.metrics[-1]
            shown = {name: round(last[name], 3) for name in ("actor/loss", "disc/accuracy") if name in last}
            logger.info("%s: step %d of %d, %.0f s, %s", self.folder, step, total, last["timing_s/step"], shown)
            if step % SAVE_EVERY == 0 or step == total:
                self._save()
        return True


class Study(SmolLab):
    """All that the runs share.

    Args:
        data: Teacher rows, from ``gad-verl data import``.
        work: Folder of weights, states and texts.
        student: Folder of the student; None makes SmolLM2-135M-Instruct.
        warmup: Steps of the warmup.
        steps: Steps of each arm after it.

    Raises:
        GadDataError: If too few rows are short enough.
    """

    def __init__(self, data: Path, work: Path, student: Path | None, warmup: int, steps: int) -> None:
        self.warmup, self.steps = warmup, steps
        work.mkdir(parents=True, exist_ok=True)
        super().__init__(data, work, student or ensure_student(work / "student"), SHARED.batch_size)
        self.train = [
            Example(number, self.builder.prompt(list(row.messages)), [self.builder.response(row.teacher)])
            for number, row in self.numbered.items()
        ]

    def settings(self, stage: str, steps: int, seed: int) -> Settings:
        """Settings of a phase; the supervised ones learn twice as fast, as in the quickstart."""
        rate = SHARED.actor_lr * (1 if stage == "gad" else 2)
        # Another seed for the arms than for the warmup: they go on with other rows.
        shift = 0 if stage == "warmup" else 1000
        return replace(
            SHARED,
            stage=stage,
            total_steps=steps,
            warmup_steps=steps,
            discriminator_only_steps=ALONE if stage == "warmup" else 0,
            actor_lr=rate,
            seed=seed + shift,
        )

    def models(self, seed: int, folder: Path | None) -> tuple[nn.Module, nn.Module]:
        """Student and discriminator: of the warmup in ``folder``, or as they start."""
        student, discriminator, _, _ = load_models(str(self.student), LAYERS_OF_D, seed)
        if folder is not None:
            saved = torch.load(folder / "state.pt", weights_only=True)
            student.load_state_dict(saved["student"])
            discriminator.load_state_dict(saved["discriminator"])
        return student, discriminator

    def train_arm(self, arm: str, seed: int, deadline: float) -> bool:
        """Warmup or one of the arms after it, as far as time allows; whether it is done."""
        folder, warmed = self.work / f"{arm}-{seed}", self.work / f"{WARMED}-{seed}"
        if (folder / "model.safetensors").is_file():
            return True
        stage, steps = {WARMED: ("warmup", self.warmup), SEQKD: ("seqkd", self.steps), GAD: ("gad", self.steps)}[arm]
        student, discriminator = self.models(seed, None if arm == WARMED else warmed)
        stop_ids = self.builder.stop_ids
        gad = ResumableGad(
            student,
            discriminator,
            self.train,
            self.settings(stage, steps, seed),
            stop_ids,
            self.builder.student_response,
        )
        part = Slice(gad, folder)
        if not part.run(deadline):
            return False
        write_atomically(folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in part.metrics))
        self.builder.tokenizer.save_pretrained(folder)
        student.save_pretrained(folder)
        return True

    def row(self, arm: str, seed: int) -> dict[str, Any]:
        """Figures of an arm on the test prompts; its texts stay in the work folder."""
        # By seed, the base too: it is the seed of sampling as well.
        answers = f"{arm}-{seed}"
        if arm == BASE:
            return self.judge(self.student, answers, seed)
        lines = (self.work / answers / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return self.judge(self.work / answers, answers, seed) | of_metrics([json.loads(line) for line in lines])


def run(study: Study, rows: Rows, seeds: Sequence[int], deadline: float) -> bool:
    """Train and judge what is missing; whether all is done."""
    common = {"warmup": study.warmup, "steps": study.steps, "train_rows": len(study.train), "test": len(study.test)}
    for seed in seeds:
        for arm in ARMS:
            key = f"{arm}/seed={seed}"
            if key in rows:
                continue
            begin = time.process_time()
            if arm != BASE and not study.train_arm(arm, seed, deadline):
                return False
            row = study.row(arm, seed)
            rows.add(key, {"arm": arm, "seed": seed, **common, **row, "cpu_s": round(time.process_time() - begin, 1)})
        study.samples(study.work / f"samples-{seed}.md", {arm: f"{arm}-{seed}" for arm in ARMS})
    return True


# ------------------------------------------------------ tables ------------------------------------------------------

PAIRS = [(WARMED, SEQKD), (WARMED, GAD), (SEQKD, GAD)]


def tables(rows: Sequence[Row]) -> list[str]:
    """For docs/studies.md: all arms with each of their seeds, and what distinguishes them."""
    first = rows[0]
    seeds = sorted({row["seed"] for row in rows})
    accuracy = [float(np.mean(row["series"]["disc/accuracy"][-10:])) for row in rows if row["arm"] == GAD]
    note = (
        f"A cell has a figure for each of the seeds {', '.join(map(str, seeds))}. {first['warmup']} steps of warmup, "
        f"then {first['steps']} of each arm, {SHARED.batch_size} prompts a step and {SHARED.n} rollouts each; "
        f"{first['train_rows']} training rows, {first['test']} held-out prompts. Training took "
        f"{sum(row.get('train_s', 0) for row in rows) / 3600:.1f} hours of one core. Accuracy of D over the last ten "
        f"steps of GAD: {' / '.join(f'{value:.2f}' for value in accuracy)}.\n"
    )
    return [arms_table(rows, ARMS) + "\n" + note, differences_table(rows, PAIRS)]


def figure(rows: Sequence[Row]) -> "Figure":
    """The accuracy of D and the length of the rollouts while training, and ROUGE-L of the arms; lines are seeds."""
    from matplotlib.figure import Figure

    plot = Figure(figsize=(11, 3.2), layout="constrained")
    panels = plot.subplots(1, 3)
    for panel, name in zip(panels, SERIES, strict=False):
        for row in rows:
            if row["arm"] in (WARMED, GAD):
                values = [math.nan if value is None else value for value in row["series"][name]]
                steps = np.arange(1, len(values) + 1) + (0 if row["arm"] == WARMED else row["warmup"])
                panel.plot(steps, values, color=COLORS[row["seed"] % len(COLORS)], linewidth=0.8)
        panel.axvline(rows[0]["warmup"], color="grey", linestyle="--", linewidth=0.7)
        panel.axhline(SERIES[name], color="grey", linestyle=":", linewidth=0.7)
        panel.set(title=name, xlabel="step (GAD begins at the dashed line)")
    for seed in sorted({row["seed"] for row in rows}):
        mine = {row["arm"]: intervals.bounded_mean(row["by_prompt"]["rouge_l"]) for row in rows if row["seed"] == seed}
        judged = [arm for arm in ARMS if arm in mine]
        values = np.array([mine[arm].value for arm in judged])
        spread = np.abs(np.array([[mine[arm].low, mine[arm].high] for arm in judged]).T - values)
        panels[2].errorbar(
            [ARMS.index(arm) + 0.1 * (seed % 2) for arm in judged],
            values,
            spread,
            fmt="o",
            color=COLORS[seed % len(COLORS)],
            label=f"seed {seed}",
        )
    panels[2].set(title="ROUGE-L on held-out prompts, 95 % over prompts", xticks=range(len(ARMS)), xticklabels=ARMS)
    panels[2].legend(frameon=False, fontsize=7)
    return plot


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; 2 for an error that the user can mend."""
    parser = study_arguments(__doc__, NAME, seeds=2)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    deadline = math.inf if options.budget_s is None else time.monotonic() + options.budget_s
    try:
        check_steps(options.warmup, options.steps)
        study = Study(options.data, options.work, options.student, options.warmup, options.steps)
        write_atomically(options.work / "settings.json", json.dumps(asdict(SHARED), indent=2) + "\n")
        seeds = range(options.first_seed, options.first_seed + options.seeds)
        done = run(study, Rows(options.rows), seeds, deadline)
    except USER_ERRORS as error:
        sys.stderr.write(f"smollm: {error}\n")
        return 2
    logger.info("complete" if done else "the time is over; the same command goes on")
    return 0


if __name__ == "__main__":
    sys.exit(main())
