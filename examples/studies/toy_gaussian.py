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
"""Study 1, the paper's toy: ten classes, a teacher with two modes, a student that can cover only one.

    python examples/studies/toy_gaussian.py                     # all arms, about a quarter of an hour on one core

The teacher is a discretised mixture of two Gaussians (modes 2 and 7), the student one discretised Gaussian whose width
is limited: SeqKD spreads over the valley between the modes, GAD moves to one of them. Everything is exact: the
divergences come from the two distributions, not from samples. Training is ``examples/gad_in_one_file.py`` unchanged; a
"text" is one token, the class. Arms leave out or change one part of GAD each; two control arms let the student be wide.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from study_common import Column, Row, Rows, Run, arguments, arm_table, mean_interval, run_all, table
from torch import Tensor, nn

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# isort: split
from gad_in_one_file import Example
from variants import VariantGad, VariantSettings

from gad_verl.data.tokens import EncodedResponse

NAME = "toy_gaussian"
CLASSES = 10
BEGIN = CLASSES  # the one token of the prompt
MODES, MODE_WEIGHTS, TEACHER_WIDTH = (2.0, 7.0), (0.6, 0.4), 0.7
NARROWEST, WIDEST, FREE = 0.4, 1.25, 3.0
# Classes that the teacher (almost) never says.
VALLEY_BELOW = 0.03
# The settings were taken from a prototype with other seeds.
FIRST_SEED = 100
CURVE_EVERY = 50


def teacher_distribution() -> Tensor:
    """Probabilities (10,) of the teacher."""
    classes = torch.arange(CLASSES, dtype=torch.float64)
    bumps = [
        w * torch.exp(-((classes - m) ** 2) / (2 * TEACHER_WIDTH**2)) for m, w in zip(MODES, MODE_WEIGHTS, strict=True)
    ]
    mixture = torch.stack(bumps).sum(dim=0)
    return mixture / mixture.sum()


def gaussian_logits(mean: Tensor, width: Tensor) -> Tensor:
    """Logits (..., 10) of a discretised Gaussian."""
    return -((torch.arange(float(CLASSES)) - mean.unsqueeze(-1)) ** 2) / (2 * width.unsqueeze(-1) ** 2)


class GaussianStudent(nn.Module):
    """The same distribution over classes after any tokens; two parameters."""

    def __init__(self, mean: float, widest: float) -> None:
        super().__init__()
        self.mean, self.width = nn.Parameter(torch.tensor(mean)), nn.Parameter(torch.tensor(1.0))
        self.widest = widest

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return gaussian_logits(self.mean, self.width).expand(*input_ids.shape, CLASSES)

    @torch.no_grad()
    def clamp(self) -> None:
        """Back into the family: after each update."""
        self.mean.clamp_(0.0, CLASSES - 1.0)
        self.width.clamp_(NARROWEST, self.widest)


class TableDiscriminator(nn.Module):
    """One score for each class."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(CLASSES + 1))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.scores[input_ids]


def exact_metrics(student: Tensor) -> dict[str, float]:
    """Divergences from the teacher of student probabilities (..., 10), mass in the valley and near the better mode."""
    teacher, classes = teacher_distribution(), torch.arange(CLASSES)
    near = torch.stack([student[..., (classes - mode).abs() <= 1].sum(-1) for mode in MODES], dim=-1)
    logs = teacher.log() - student.clamp_min(1e-38).log()
    return {
        "kl_teacher_student": (teacher * logs).sum(-1),
        "kl_student_teacher": -(student * logs).sum(-1),
        "valley": student[..., teacher < VALLEY_BELOW].sum(-1),
        "near": near.amax(-1),
    }


@dataclass(frozen=True)
class Arm:
    """What distinguishes an arm from GAD.

    Args:
        changes: Of :class:`variants.VariantSettings`.
        widest: Limit of the student's width.
    """

    changes: dict[str, Any]
    widest: float = WIDEST


ARMS = {
    "SeqKD": Arm({"stage": "seqkd"}),
    "GAD": Arm({}),
    "GAD, no D warmup": Arm({"discriminator_warmup": False}),
    "GAD, cross-entropy D": Arm({"discriminator_loss": "cross_entropy"}),
    "GAD, replay": Arm({"replay_steps": 20}),
    "GAD, frozen D": Arm({"discriminator_frozen": True}),
    "SeqKD, wide student": Arm({"stage": "seqkd"}, FREE),
    "GAD, wide student": Arm({}, FREE),
}


def settings(arm: Arm, seed: int, warmup: int, adversarial: int) -> VariantSettings:
    """Settings of a run; SeqKD takes as many steps as both stages together."""
    base = VariantSettings(
        total_steps=warmup + adversarial,
        warmup_steps=warmup,
        discriminator_only_steps=0,
        batch_size=16,
        n=8,
        max_response_length=1,
        temperature=1.0,
        warmup_actor_lr=0.02,
        actor_lr=0.01,
        discriminator_lr=0.1,
        weight_decay=0.0,
        clip_grad=1e9,
        kl_loss_coef=0.001,
        seed=seed,
    )
    return replace(base, **arm.changes)


def run(arm_name: str, seed: int, warmup: int = 300, adversarial: int = 1000) -> dict[str, Any]:
    """One run; returns its row."""
    arm = ARMS[arm_name]
    options = settings(arm, seed, warmup, adversarial)
    rng = np.random.default_rng(seed)
    student, discriminator = GaussianStudent(rng.uniform(1, 8), arm.widest), TableDiscriminator()
    # Every step sees teacher texts that it has not seen before.
    said = rng.choice(CLASSES, size=options.batch_size * options.total_steps, p=teacher_distribution().numpy())
    examples = [
        Example(index, [BEGIN], [EncodedResponse([int(token)], finished=True, cut=False)])
        for index, token in enumerate(said)
    ]
    gad = VariantGad(student, discriminator, examples, options, frozenset(range(CLASSES)))
    gad.student_optimizer.register_step_post_hook(lambda *_: student.clamp())
    curve: list[list[float]] = []
    accuracies: list[float] = []

    def watch(step: int, metrics: dict[str, float], _: VariantGad) -> None:
        accuracies.append(metrics.get("disc/accuracy", float("nan")))
        if step % CURVE_EVERY == 0:
            exact = exact_metrics(probabilities(student))
            curve.append([float(step), exact["valley"].item(), exact["kl_student_teacher"].item()])

    gad.run([watch])
    last = [value for value in accuracies[-100:] if value == value]
    final = probabilities(student)
    return {
        "arm": arm_name,
        "seed": seed,
        "warmup": warmup,
        "adversarial": adversarial,
        **{name: value.item() for name, value in exact_metrics(final).items()},
        "accuracy": float(np.mean(last)) if last else None,
        "mean": student.mean.item(),
        "width": student.width.item(),
        "probabilities": final.tolist(),
        "curve": curve,
    }


@torch.no_grad()
def probabilities(student: GaussianStudent) -> Tensor:
    """The student's distribution (10,)."""
    return gaussian_logits(student.mean, student.width).softmax(-1)


def best_possible(widest: float) -> dict[str, float]:
    """Lowest divergence in each direction that a student of the family can have, by a fine grid."""
    mean, width = torch.meshgrid(torch.linspace(0, 9, 901), torch.linspace(NARROWEST, widest, 300), indexing="ij")
    exact = exact_metrics(gaussian_logits(mean, width).softmax(-1))
    return {name: exact[name].min().item() for name in ("kl_teacher_student", "kl_student_teacher")}


COLUMNS = [
    Column("KL(teacher, student)", "kl_teacher_student"),
    Column("KL(student, teacher)", "kl_student_teacher"),
    Column("in the valley, %", "valley", 1, 100),
    Column("near one mode, %", "near", 1, 100),
    Column("width", "width"),
    Column("accuracy of D, last 100 steps", "accuracy"),
]


def tables(rows: Sequence[Row]) -> list[str]:
    """For docs/studies.md: all arms, and what the family of students allows at best."""
    limits = [
        [
            f"{widest:g}",
            *(f"{best_possible(widest)[name]:.2f}" for name in ("kl_teacher_student", "kl_student_teacher")),
        ]
        for widest in (WIDEST, FREE)
    ]
    seeds = sorted({row["seed"] for row in rows})
    worst = {
        arm: max((row["valley"] for row in rows if row["arm"] == arm), default=float("nan")) for arm in ("GAD", "SeqKD")
    }
    minutes = sum(row["cpu_s"] for row in rows) / 60
    note = (
        f"Seeds {seeds[0]} to {seeds[-1]}, {len(rows)} runs, {minutes:.0f} minutes of one core. Largest share in the "
        f"valley of any seed: GAD {100 * worst['GAD']:.1f} %, SeqKD {100 * worst['SeqKD']:.1f} %.\n"
    )
    heads = ["widest student", "lowest KL(teacher, student)", "lowest KL(student, teacher)"]
    return [arm_table(rows, list(ARMS), COLUMNS) + "\n" + note, table(heads, limits)]


def figure(rows: Sequence[Row]) -> "Figure":
    """Distributions of one seed, and the share in the valley over the steps of all seeds."""
    from matplotlib.figure import Figure

    plot = Figure(figsize=(10, 3.6))
    left, right = plot.subplots(1, 2)
    classes = np.arange(CLASSES)
    left.bar(classes, teacher_distribution(), color="0.8", label="teacher")
    first = min(row["seed"] for row in rows)
    shown = {"SeqKD": "tab:orange", "GAD": "tab:blue", "GAD, wide student": "tab:green"}
    for arm, color in shown.items():
        for row in rows:
            if row["arm"] == arm and row["seed"] == first:
                left.plot(classes, row["probabilities"], "o-", color=color, label=arm, markersize=3)
    left.set(xlabel="class", ylabel="probability", title=f"What the students say (seed {first})", xticks=classes)
    left.legend(frameon=False, fontsize=8)
    shown = {"SeqKD": "tab:orange", "GAD": "tab:blue", "GAD, no D warmup": "tab:purple", "GAD, frozen D": "tab:red"}
    for arm, color in shown.items():
        curves = np.array([row["curve"] for row in rows if row["arm"] == arm])
        if not len(curves):
            continue
        points = [mean_interval(column) for column in curves[:, :, 1].T]
        steps, means = curves[0, :, 0], np.array([mean for mean, _ in points])
        halves = np.nan_to_num([half for _, half in points])
        right.plot(steps, means, color=color, label=arm)
        right.fill_between(steps, means - halves, means + halves, color=color, alpha=0.2, linewidth=0)
    right.set(xlabel="step", ylabel="mass in the valley", title="Mean over seeds, 95 % interval", ylim=(0, 1))
    right.axvline(rows[0]["warmup"], color="0.6", linestyle=":", linewidth=1)
    right.legend(frameon=False, fontsize=8)
    return plot


def main() -> int:
    options = arguments(__doc__, NAME, seeds=12).parse_args()
    torch.set_num_threads(1)
    seeds = range(FIRST_SEED, FIRST_SEED + options.seeds)
    runs = [Run(f"{arm}/seed={seed}", lambda arm=arm, seed=seed: run(arm, seed)) for seed in seeds for arm in ARMS]
    return 0 if run_all(Rows(options.rows), runs, options.budget_s) else 1


if __name__ == "__main__":
    sys.exit(main())
