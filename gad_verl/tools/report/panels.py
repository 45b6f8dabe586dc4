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
"""Which metrics are drawn together, and what is known about their healthy values (``docs/curves.md``)."""

import math
from dataclasses import dataclass
from typing import Literal

from gad_verl.guardian.rules.discriminator import HEALTHY_ACCURACY
from gad_verl.tools.report.runs import ADVERSARIAL, SEQKD, WARMUP


@dataclass(frozen=True)
class Curve:
    """One metric of a panel.

    Args:
        metric: Its name.
        label: For people.
        stages: Only the steps of these stages; None for all.
        sparse: Drawn as dots that are joined: it is not logged at every step.
        side: "teacher" and "student" have the same colours on the whole page.
    """

    metric: str
    label: str
    stages: tuple[int, ...] | None = None
    sparse: bool = False
    side: Literal["teacher", "student"] | None = None


@dataclass(frozen=True)
class Panel:
    """One picture of several curves.

    Args:
        title: Of the picture.
        curves: What is drawn; what was not logged is left out.
        note: One sentence that helps to read it.
        level: Height of a dotted line.
        level_name: What the line stands for.
        band: Lower and upper end of the healthy range.
        bounds: Range of the vertical axis.
        may_be_log: A logarithmic axis where the values are positive and spread over more than three powers of ten.
    """

    title: str
    curves: tuple[Curve, ...]
    note: str = ""
    level: float | None = None
    level_name: str = ""
    band: tuple[float, float] | None = None
    bounds: tuple[float, float] | None = None
    may_be_log: bool = False


@dataclass(frozen=True)
class Section:
    """Panels under one heading."""

    key: str
    title: str
    panels: tuple[Panel, ...]


_SHARE = (-0.02, 1.04)


def _held_out(metric: str, label: str = "held out", side: Literal["teacher", "student"] | None = None) -> Curve:
    return Curve(metric, label, sparse=True, side=side)


def _student(metric: str) -> Curve:
    return Curve(metric, "student", side="student")


def _teacher(metric: str) -> Curve:
    return Curve(metric, "teacher", side="teacher")


DISCRIMINATOR = Section(
    "discriminator",
    "Discriminator",
    (
        Panel(
            "Accuracy on fresh pairs",
            (
                Curve("disc/accuracy", "training"),
                _held_out("val-gad/accuracy"),
                Curve("disc/replay_accuracy", "replayed pairs"),
            ),
            "Share of pairs in which the teacher's text scores higher. The band is where replications with other codes "
            "stayed healthy in the adversarial stage.",
            level=0.5,
            level_name="guessing",
            band=HEALTHY_ACCURACY,
            bounds=_SHARE,
        ),
        Panel(
            "Accuracy on past pairs, by their age in steps",
            tuple(
                Curve(f"disc/replay_accuracy_age_{band}", label)
                for band, label in (("1", "1"), ("2_4", "2 to 4"), ("5_16", "5 to 16"), ("17_up", "17 and more"))
            ),
            "Falling with age: the discriminator forgets what the student used to write (gad.replay).",
            level=0.5,
            level_name="guessing",
            bounds=_SHARE,
        ),
        Panel(
            "Margin: teacher's score less the student's",
            (Curve("disc/margin_mean", "training"), _held_out("val-gad/margin_mean")),
            "Shrinks slowly as the student comes closer; growth without end is saturation.",
            level=0.0,
        ),
        Panel(
            "Loss",
            (Curve("disc/loss", "training"),),
            "Bradley-Terry loss. Near 0 the student gets hardly any direction.",
            level=math.log(2),
            level_name="ln 2, guessing",
            may_be_log=True,
        ),
        Panel(
            "Pairs and groups without use",
            (
                Curve("disc/saturated_fraction", "saturated pairs"),
                Curve("disc/no_spread_fraction", "groups of equal scores"),
            ),
            bounds=_SHARE,
        ),
        Panel("Gradient norm", (Curve("disc/grad_norm", "discriminator"),), "Before clipping.", may_be_log=True),
    ),
)

TEXTS = Section(
    "texts",
    "Lengths and endings",
    (
        Panel(
            "Length in tokens",
            (_student("gad/student_length_mean"), _teacher("gad/teacher_length_mean")),
        ),
        Panel(
            "Length, student / teacher",
            (Curve("gad/length_ratio", "training"), _held_out("val-gad/length_ratio")),
            "Steady growth is the sign of reward hacking.",
            level=1.0,
            level_name="as long as the teacher",
        ),
        Panel(
            "Finished texts",
            (
                _student("gad/student_finished_rate"),
                _teacher("gad/teacher_finished_rate"),
                _held_out("val-gad/student_finished_rate", "student, held out"),
            ),
            "Share that ended by itself. Where the sides differ, the end of the text gives them away.",
            bounds=_SHARE,
        ),
        Panel(
            "Thoughts",
            (
                Curve("gad/thinking_rate", "responses with thoughts"),
                Curve("gad/thinking_closed_rate", "came to an answer"),
                _held_out("val-gad/thinking_closed_rate", "came to an answer, held out"),
            ),
            "Where they are hidden. A response without an answer has the worst reward of its group.",
            bounds=_SHARE,
        ),
        Panel("Tokens of thoughts", (Curve("gad/thinking_tokens", "student"),), "Only the KL loss holds them."),
        Panel(
            "Correlation of score and length",
            (Curve("gad/score_length_correlation", "responses"),),
            "Near 1 or -1 the discriminator judges length.",
            level=0.0,
            bounds=(-1.05, 1.05),
        ),
        Panel(
            "Variety of the responses",
            (Curve("gad/distinct_2", "distinct pairs of tokens"), Curve("gad/self_bleu", "likeness of a group")),
            "Share of pairs that are distinct, and self-BLEU of the responses to one prompt.",
            bounds=_SHARE,
        ),
        Panel(
            "Repetition within a text",
            (
                Curve("gad/repetition", "student", side="student"),
                Curve("gad/teacher_repetition", "teacher", side="teacher"),
            ),
            "Share of four tokens in a row that stood in the text before.",
        ),
    ),
)

STUDENT = Section(
    "student",
    "Student",
    (
        Panel(
            "Rewards",
            (
                Curve("critic/rewards/mean", "mean"),
                Curve("critic/rewards/max", "highest"),
                Curve("critic/rewards/min", "lowest"),
            ),
            "The level of the scores is free: negative rewards and a drift are normal.",
        ),
        Panel("KL to the reference", (Curve("actor/kl_loss", "KL loss", (ADVERSARIAL,)),), level=0.0),
        Panel("Entropy", (Curve("actor/entropy", "student"),), "Falling to 0: the responses become alike."),
        Panel(
            "Cross-entropy on the teacher's texts",
            (Curve("actor/loss", "warmup, SeqKD", (WARMUP, SEQKD)),),
        ),
        Panel(
            "Preferences (SODA): change since the reference, nats a text",
            (
                Curve("gad/preference_chosen_change", "teacher's texts"),
                Curve("gad/preference_rejected_change", "snapshot"),
            ),
            "The loss falls with their distance. Both falling is known of DPO: see gad.supervised_weight.",
            level=0.0,
        ),
        Panel("Gradient norm", (Curve("actor/grad_norm", "student"),), "Before clipping.", may_be_log=True),
    ),
)

VALIDATION = Section(
    "validation",
    "Validation on held-out prompts",
    (
        Panel(
            "Cross-entropy on the teacher's texts, nats a token",
            (_held_out("val-gad/text_loss"),),
            "Falls while the texts teach. In the adversarial stage it may rise while answers get better.",
        ),
        Panel(
            "ROUGE-L F1 with the teacher",
            (_held_out("val-gad/rouge_l"),),
            "A diagnostic: it may fall while answers get better.",
        ),
        Panel(
            "Scores",
            (
                _held_out("val-gad/teacher_score_mean", "teacher", "teacher"),
                _held_out("val-gad/student_score_mean", "student", "student"),
            ),
        ),
    ),
)

TRUST = Section(
    "trust",
    "Trust in the discriminator",
    (
        Panel(
            "What the discriminator knows, f",
            (Curve("gad/trust_factor", "f"),),
            "0 where it cannot tell on prompts it never trains on; the student then learns nothing from its scores.",
        ),
        Panel(
            "Learned from the discriminator, from the texts",
            (Curve("gad/policy_weight", "discriminator"), Curve("gad/texts_weight", "texts")),
            "Weights in the student's loss (gad.trust.otherwise=supervised, gad.supervised_weight).",
        ),
        Panel(
            "Accuracy on prompts that never train the discriminator",
            (Curve("gad/trust_accuracy", "kept away"),),
            level=0.5,
            level_name="guessing",
            bounds=_SHARE,
        ),
    ),
)

SECTIONS = (DISCRIMINATOR, TRUST, TEXTS, STUDENT, VALIDATION)
