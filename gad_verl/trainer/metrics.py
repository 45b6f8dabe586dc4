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
"""Metrics of one training step under ``disc/`` and ``gad/``. No name contains "min": verl would take the minimum."""

from typing import TYPE_CHECKING

import torch

from gad_verl.core import LossWeights, Phase, correlation, rollout_diversity, score_statistics

if TYPE_CHECKING:
    # examples/gad_in_one_file.py reads this module without verl.
    from gad_verl.trainer.encoding import EncodedGroup
    from gad_verl.trainer.scored import ScoredStep


def score_metrics(step: "ScoredStep") -> dict[str, float]:
    """Of the scores and the texts of a step."""
    output = step.output
    found = discriminator_metrics(output.teacher_scores, output.student_scores, output.weights)
    found |= text_metrics(step.encoded, output.student_scores)
    # A rollout that came may have no answer.
    failed = sum(group.num_failed for group in step.rollouts.groups)
    return found | {"gad/failed_rollouts": float(failed)}


def discriminator_metrics(
    teacher_scores: torch.Tensor, student_scores: torch.Tensor, weights: torch.Tensor
) -> dict[str, float]:
    """Statistics of the pre-update scores on fresh pairs, (G,), (G, n), (G, n)."""
    return {f"disc/{name}": value for name, value in score_statistics(teacher_scores, student_scores, weights).items()}


def text_metrics(groups: "list[EncodedGroup]", student_scores: torch.Tensor) -> dict[str, float]:
    """Lengths, finished and cut texts of both sides, their diversity, and whether the score follows the length.

    Args:
        groups: Encoded groups.
        student_scores: (G, n) scores.
    """
    students = [
        (student, student_scores[row, session].item())
        for row, group in enumerate(groups)
        for session, student in enumerate(group.students)
        if student is not None
    ]
    teachers = [group.teacher for group in groups]
    if not students:
        return {}
    lengths = torch.tensor([len(student.own_ids) for student, _ in students], dtype=torch.float64)
    teacher_lengths = torch.tensor([len(teacher.own_ids) for teacher in teachers], dtype=torch.float64)
    scores = torch.tensor([score for _, score in students], dtype=torch.float64)
    diversity = rollout_diversity(
        [[student.own_ids for student in group.students if student is not None] for group in groups],
        [teacher.own_ids for teacher in teachers],
    )
    return {
        "gad/prompts": float(len(groups)),
        "gad/student_length_mean": lengths.mean().item(),
        "gad/teacher_length_mean": teacher_lengths.mean().item(),
        "gad/length_ratio": (lengths.mean() / teacher_lengths.mean()).item(),
        "gad/score_length_correlation": correlation(scores, lengths),
        "gad/student_finished_rate": sum(student.finished for student, _ in students) / len(students),
        "gad/teacher_finished_rate": sum(teacher.finished for teacher in teachers) / len(teachers),
        "gad/student_cut_texts": float(sum(student.cut for student, _ in students)),
        "gad/teacher_cut_texts": float(sum(teacher.cut for teacher in teachers)),
        "gad/failed_rollouts": float(sum(student is None for group in groups for student in group.students)),
    } | {f"gad/{name}": value for name, value in diversity.items()}


def thinking_metrics(step: "ScoredStep") -> dict[str, float]:
    """Of the thoughts of a step's rollouts: how many think, come to an answer, and how long it takes."""
    sessions = [one for group in step.rollouts.groups for one in group.sessions if one is not None]
    reads = [one.read for one in sessions if one.read is not None]
    if not reads:
        return {}
    thinking = [read.num_thoughts for read in reads if read.num_thoughts > 0]
    return {
        "gad/thinking_rate": len(thinking) / len(reads),
        "gad/thinking_closed_rate": sum(read.answer_ids is not None for read in reads) / len(reads),
        "gad/thinking_tokens": sum(thinking) / len(reads),
    }


def weight_metrics(weights: LossWeights) -> dict[str, float]:
    """Weights of scores and of the teacher's texts in the student's loss."""
    return {"gad/policy_weight": weights.policy, "gad/texts_weight": weights.texts}


def phase_metrics(phase: Phase) -> dict[str, float]:
    """``gad/stage``: 0 discriminator only, 1 warmup, 2 adversarial, 3 SeqKD."""
    return {"gad/stage": float(phase.value)}


def seqkd_metrics(timing_s: dict[str, float], step: int, epoch: int) -> dict[str, float]:
    """What verl logs of a step, as far as a step without rollouts has it."""
    metrics: dict[str, float] = {"training/global_step": step, "training/epoch": epoch}
    metrics |= {f"timing_s/{name}": seconds for name, seconds in timing_s.items()}
    return metrics | {"perf/time_per_step": timing_s["step"]}


def drop_policy_metrics(metrics: dict) -> None:
    """Take out what verl makes of the zeros that stand for advantages in a step without a policy gradient."""
    empty = ("critic/advantages", "critic/returns", "critic/values", "critic/vf_explained_var")
    for name in [key for key in metrics if key.startswith(empty)]:
        del metrics[name]
