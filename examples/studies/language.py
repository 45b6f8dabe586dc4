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
"""Study 2: a language of which the truth is known, where GAD helps, where it hurts, and what holds it back.

    python examples/studies/language.py                 # all runs; interrupt it at any time, run it again to go on

The teacher, the oracle and the models are in ``oracle_language.py``, training is ``examples/gad_in_one_file.py``. A
regime is a student, a number of teacher texts and a discriminator. In each of them the student is first trained by
SeqKD to its best likelihood on validation texts; the arms go on from there, all from the same student.
"""

import copy
import functools
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import stats
from study_common import (
    Column,
    Row,
    Rows,
    Run,
    arguments,
    arm_table,
    paired_difference,
    run_all,
    show,
    table,
)
from torch import nn

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# isort: split
from gad_in_one_file import Example, Gad, Settings
from oracle_language import (
    STOP_IDS,
    VOCABULARY,
    CausalTransformer,
    Corpus,
    RecurrentStudent,
    judge,
    longest_answer,
    make_corpus,
)
from token_rows import token_log_probs
from variants import VariantGad, VariantSettings

from gad_verl.core.trust import TrustOptions

NAME = "language"
# Settings were chosen on seeds below 10; 100 to 201 were looked at before the last choice.
FIRST_SEED = 300
VALIDATION_TEXTS, TEST_PROMPTS, SAMPLES = 250, 500, 8
HELD_OUT = 0.125
TRUST = TrustOptions(full_accuracy=0.6, confidence=2.0, window=200, least_prompts=16)
WINDOW = 25  # steps of a point of the accuracy curve
SEQKD, GAD, TRUSTED = "SeqKD", "GAD", "GAD, trust"


@dataclass(frozen=True)
class Regime:
    """A student, its teacher's texts and a discriminator.

    Args:
        student: Makes one.
        length: Letters of a prompt.
        texts: Teacher texts to train on.
        seqkd_steps, seqkd_every: Length of SeqKD, and how often its validation likelihood is taken.
        actor_lr: In the adversarial stage.
        discriminator_width: Of a transformer of two layers.
        warmup: Steps that train D alone.
        adversarial: Steps after them.
        seeds: At most so many seeds.
    """

    student: Callable[[], nn.Module]
    length: int = 5
    texts: int = 1000
    seqkd_steps: int = 2400
    seqkd_every: int = 100
    actor_lr: float = 1e-3
    discriminator_width: int = 64
    warmup: int = 200
    adversarial: int = 500
    seeds: int = 5


def _transformer(width: int, layers: int, heads: int) -> Callable[[], nn.Module]:
    return lambda: CausalTransformer(width, layers, heads, VOCABULARY)


def _recurrent(width: int, embedding: int) -> Callable[[], nn.Module]:
    return lambda: RecurrentStudent(width, embedding)


# Transformers learn within a few hundred steps of SeqKD and are led astray within a hundred of GAD.
_QUICK = {"actor_lr": 3e-4, "warmup": 100, "adversarial": 150}
REGIMES = {
    # Seeds differ much here, and the share of a gain that is kept is a ratio: more of them.
    "small student": Regime(_recurrent(32, 16), seeds=10),
    "good student": Regime(_transformer(24, 1, 2), seqkd_steps=450, seqkd_every=50, **_QUICK),
    "few texts": Regime(_transformer(32, 2, 4), texts=250, seqkd_steps=300, seqkd_every=25, **_QUICK),
    "weak D": Regime(_recurrent(32, 16), length=4, seqkd_steps=1500, discriminator_width=48, adversarial=200, seeds=3),
    "hopeless student": Regime(_recurrent(16, 8), length=7, seqkd_steps=900, warmup=100, adversarial=200, seeds=3),
}
MAIN = "small student"


@dataclass(frozen=True)
class Arm:
    """What distinguishes an arm from GAD.

    Args:
        changes: Of :class:`variants.VariantSettings`.
        seeds: At most so many seeds.
    """

    changes: dict[str, Any] = field(default_factory=dict)
    seeds: int = 10


ARMS = {
    GAD: Arm(),
    TRUSTED: Arm({"held_out_fraction": HELD_OUT}),
    "GAD, no D warmup": Arm({"discriminator_warmup": False}, seeds=5),
    "GAD, frozen D": Arm({"discriminator_frozen": True}, seeds=5),
    "GAD, cross-entropy D": Arm({"discriminator_loss": "cross_entropy"}, seeds=5),
    "GAD, replay": Arm({"replay_steps": 20}, seeds=5),
}


def settings(regime: Regime, arm: Arm, seed: int) -> VariantSettings:
    """Settings of a run after SeqKD; the warmup trains D alone."""
    base = VariantSettings(
        total_steps=regime.warmup + regime.adversarial,
        warmup_steps=regime.warmup,
        discriminator_only_steps=regime.warmup,
        batch_size=32,
        n=4,
        max_response_length=longest_answer(regime.length),
        temperature=1.0,
        actor_lr=regime.actor_lr,
        discriminator_lr=1e-3,
        clip_grad=1.0,
        kl_loss_coef=0.001,
        seed=seed,
    )
    return replace(base, **arm.changes)


# ---------------------------------------------------- SeqKD ----------------------------------------------------


@torch.no_grad()
def likelihood_loss(student: nn.Module, examples: Sequence[Example]) -> float:
    """Mean negative log-likelihood of a token of the teacher's texts."""
    prompts, texts = (
        [example.prompt_ids for example in examples],
        [example.teachers[0].token_ids for example in examples],
    )
    return -token_log_probs(student, prompts, texts, temperature=1.0)[0].mean().item()


class BestLikelihood:
    """A callback of training that keeps the student of the best likelihood on validation texts.

    Args:
        student: Before the first step.
        corpus: Its texts.
        every: Steps between two looks.
    """

    def __init__(self, student: nn.Module, corpus: Corpus, every: int) -> None:
        self.student, self.loss, self.step, self.last_loss = copy.deepcopy(student), math.inf, 0, math.inf
        self._texts, self._every = corpus.validation, every

    def __call__(self, step: int, metrics: dict[str, float], gad: Gad) -> None:
        if step % self._every:
            return
        self.last_loss = likelihood_loss(gad.student, self._texts)
        if self.last_loss < self.loss:
            self.student, self.loss, self.step = copy.deepcopy(gad.student), self.last_loss, step


def judged(student: nn.Module, corpus: Corpus, seed: int) -> dict[str, float]:
    """The oracle's figures. All arms of a seed draw by the same random numbers: a student that stood still is equal."""
    torch.manual_seed(seed)
    return judge(student, corpus.test, SAMPLES)


@functools.cache
def seqkd(regime_name: str, seed: int) -> tuple[nn.Module, Corpus, dict[str, Any]]:
    """The student of the best validation likelihood, its data, and the row of SeqKD."""
    regime = REGIMES[regime_name]
    corpus = make_corpus(regime.length, regime.texts, VALIDATION_TEXTS, TEST_PROMPTS, seed)
    torch.manual_seed(seed)
    student = regime.student()
    options = Settings(
        stage="seqkd", total_steps=regime.seqkd_steps, batch_size=64, actor_lr=3e-3, clip_grad=1.0, seed=seed
    )
    best, curve = BestLikelihood(student, corpus, regime.seqkd_every), []

    def watch(step: int, metrics: dict[str, float], gad: Gad) -> None:
        if step % regime.seqkd_every == 0:
            curve.append([step, best.last_loss, judge(gad.student, corpus.test, 2)["valid"]])

    Gad(student, nn.Linear(1, 1), corpus.train, options, STOP_IDS).run([best, watch])
    row = {"best_step": best.step, "best_length_valid": max(point[2] for point in curve), "curve": curve}
    return best.student, corpus, row | judged(best.student, corpus, seed)


# ----------------------------------------------------- runs -----------------------------------------------------


def run(regime_name: str, arm_name: str, seed: int) -> dict[str, Any]:
    """One run; returns its row."""
    regime, common = REGIMES[regime_name], {"regime": regime_name, "arm": arm_name, "seed": seed}
    warmup = regime.warmup
    trained, corpus, seqkd_row = seqkd(regime_name, seed)
    if arm_name == SEQKD:
        return common | seqkd_row
    arm = ARMS[arm_name]
    torch.manual_seed(seed + 1)
    discriminator = CausalTransformer(regime.discriminator_width, 2, 2, 1)
    gad = VariantGad(
        copy.deepcopy(trained),
        discriminator,
        corpus.train,
        settings(regime, arm, seed),
        STOP_IDS,
    )
    watched: dict[str, list[float]] = {"disc/accuracy": [], "gad/trust_factor": [], "gad/trust_accuracy": []}
    curve: list[list[float]] = []

    def watch(step: int, metrics: dict[str, float], gad: Gad) -> None:
        for name, values in watched.items():
            values.append(metrics.get(name, math.nan))
        if step >= warmup and (step - warmup) % 50 == 0:
            curve.append([step - warmup, judge(gad.student, corpus.test, 2)["valid"]])

    gad.run([watch])
    series = {name.replace("/", "_"): averaged(values) for name, values in watched.items()}
    accuracy = [value for value in watched["disc/accuracy"][-100:] if not math.isnan(value)]
    factors = [value for value in watched["gad/trust_factor"][warmup:] if not math.isnan(value)]
    return {
        **common,
        "warmup": warmup,
        "adversarial": regime.adversarial,
        **judged(gad.student, corpus, seed),
        "validation_loss": likelihood_loss(gad.student, corpus.validation),
        "accuracy": float(np.mean(accuracy)),
        "factor": float(np.mean(factors)) if factors else None,
        "curve": curve,
        "series": series,
    }


def averaged(values: Sequence[float]) -> list[float | None]:
    """Means over windows of steps; None where nothing was measured."""
    parts = [
        [v for v in values[begin : begin + WINDOW] if not math.isnan(v)] for begin in range(0, len(values), WINDOW)
    ]
    return [float(np.mean(part)) if part else None for part in parts]


def all_runs(seeds: int) -> list[Run]:
    """Every run. What the study is about comes first: SeqKD, GAD and trust where five seeds or more are asked for."""
    parts: list[list[tuple[str, str, int]]] = [[], [], []]
    for number in range(seeds):
        seed = FIRST_SEED + number
        for name, regime in REGIMES.items():
            if number < regime.seeds:
                parts[0 if regime.seeds >= 5 else 1] += [(name, arm, seed) for arm in (SEQKD, GAD, TRUSTED)]
        parts[2] += [(MAIN, arm, seed) for arm in ARMS if arm not in (GAD, TRUSTED) and number < ARMS[arm].seeds]
    return [
        Run(f"{name}/{arm}/seed={seed}", functools.partial(run, name, arm, seed))
        for part in parts
        for name, arm, seed in part
    ]


# --------------------------------------------- tables and figure ---------------------------------------------

COLUMNS = [
    Column("valid, %", "valid", 1, 100),
    Column("greedy, %", "greedy", 1, 100),
    Column("valid answers covered, of 3", "covered"),
    Column("length", "length", 1),
    Column("accuracy of D, last 100 steps", "accuracy"),
]


def of_regime(rows: Sequence[Row], regime: str) -> list[Row]:
    """The rows of one regime."""
    return [row for row in rows if row["regime"] == regime]


def kept_gain(rows: Sequence[Row]) -> str:
    """How much of GAD's gain over SeqKD in the main regime the trust keeps: a ratio of means over common seeds.

    The interval is a bootstrap over seeds: a ratio has no interval of Student's.
    """
    main = of_regime(rows, MAIN)
    by_seed = {(row["arm"], row["seed"]): row["valid"] for row in main}
    seeds = [seed for arm, seed in by_seed if arm == SEQKD and (GAD, seed) in by_seed and (TRUSTED, seed) in by_seed]
    if not seeds:
        return "–"
    gains = np.array([[by_seed[arm, seed] - by_seed[SEQKD, seed] for seed in seeds] for arm in (GAD, TRUSTED)])
    ratio = gains[1].mean() / gains[0].mean()
    if len(seeds) < 3:
        return f"{100 * ratio:.0f} %"
    drawn = stats.bootstrap(
        (gains[0], gains[1]),
        lambda gad, trust, axis: trust.mean(axis=axis) / gad.mean(axis=axis),
        paired=True,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return (
        f"{100 * ratio:.0f} % (95 % interval {100 * drawn.low:.0f} to {100 * drawn.high:.0f} %, bootstrap over seeds)"
    )


def regimes_table(rows: Sequence[Row]) -> str:
    """One line for each regime: SeqKD, then what GAD adds to it without and with trust, in points of validity."""
    heads = ["regime", "SeqKD, valid %", "GAD", "GAD with trust", "lowest seed, GAD", "lowest seed, trust"]
    heads += ["accuracy of D, GAD", "mean factor of the rate", "seeds"]
    lines = []
    for name in REGIMES:
        mine = of_regime(rows, name)
        differences = [paired_difference(mine, SEQKD, arm, "valid") for arm in (GAD, TRUSTED)]
        if not all(differences):
            continue
        shown = [show(difference, 1, 100) for difference in differences]
        lowest = [f"{100 * min(difference):+.1f}" for difference in differences]
        values = {
            (arm, key): show([row.get(key) for row in mine if row["arm"] == arm])
            for arm, key in ((GAD, "accuracy"), (TRUSTED, "factor"))
        }
        seqkd_valid = show([row["valid"] for row in mine if row["arm"] == SEQKD], 1, 100)
        cells = [seqkd_valid, *shown, *lowest, values[GAD, "accuracy"], values[TRUSTED, "factor"]]
        lines.append([name, *cells, str(min(map(len, differences)))])
    return table(heads, lines)


def against_gad(rows: Sequence[Row]) -> str:
    """What each variant adds to GAD on the same seeds: arms have different numbers of them."""
    parts = []
    for arm in ARMS:
        points = [100 * value for value in paired_difference(rows, GAD, arm, "valid")]
        if arm != GAD and points:
            seeds = ", ".join(f"{value:+.1f}" for value in sorted(points))
            parts.append(f"{arm.removeprefix('GAD, ')} {show(points, 1)} ({seeds})")
    return f"Points of validity against GAD on the same seeds, and of each seed: {'; '.join(parts) or 'no runs yet'}."


def tables(rows: Sequence[Row]) -> list[str]:
    """For docs/studies.md: all arms in the main regime; GAD and trust in every regime."""
    main = of_regime(rows, MAIN)
    best = [row["best_length_valid"] for row in main if row["arm"] == SEQKD]
    shares = {
        arm: [show([row[name] for row in main if row["arm"] == arm], 0, 100) for name in ("reverse", "two", "doubled")]
        for arm in (SEQKD, GAD)
    }
    losses = {
        SEQKD: [min(point[1] for point in row["curve"]) for row in main if row["arm"] == SEQKD],
        GAD: [row["validation_loss"] for row in main if row["arm"] == GAD],
    }
    seeds = sorted({row["seed"] for row in rows})
    note = (
        f"Seeds {seeds[0]} to {seeds[-1]}, {len(rows)} runs, {sum(row['cpu_s'] for row in rows) / 60:.0f} minutes of "
        f"one core. SeqKD is the student of the best validation likelihood; its best length by the oracle: "
        f"{show(best, 1, 100)} % valid. Share of answers that are valid by the template H, M, E: SeqKD "
        f"{', '.join(shares[SEQKD])} %; GAD {', '.join(shares[GAD])} %. Loss on a token of the teacher's validation "
        f"texts: SeqKD {show(losses[SEQKD])}, GAD {show(losses[GAD])}.\n\n{against_gad(main)}\n"
    )
    kept = f"In the regime `{MAIN}` the trust keeps {kept_gain(rows)} of GAD's gain.\n"
    return [arm_table(main, [SEQKD, *ARMS], COLUMNS) + "\n" + note, regimes_table(rows) + "\n" + kept]


def figure(rows: Sequence[Row]) -> "Figure":
    """Validity over the adversarial steps in three regimes (seeds and their mean), and the accuracy of D."""
    from matplotlib.figure import Figure

    plot = Figure(figsize=(11, 3.4), layout="constrained")
    panels = plot.subplots(1, 4)
    colors = {GAD: "tab:blue", TRUSTED: "tab:green", "GAD, frozen D": "tab:red", "GAD, no D warmup": "tab:purple"}
    for panel, regime in zip(panels, (MAIN, "good student", "few texts"), strict=False):
        mine = of_regime(rows, regime)
        for arm, color in colors.items():
            curves = np.array([row["curve"] for row in mine if row["arm"] == arm])
            if not len(curves):
                continue
            steps, valid = curves[0, :, 0], 100 * curves[:, :, 1]
            # Seeds start at different heights: an interval over them would hide what happens to each.
            panel.plot(steps, valid.T, color=color, alpha=0.3, linewidth=0.7)
            panel.plot(steps, valid.mean(axis=0), color=color, label=arm)
        panel.set(title=regime, xlabel="adversarial step", ylim=(0, 100))
    panels[0].set(ylabel="valid, %")
    panels[0].legend(frameon=False, fontsize=7)
    for regime, color in zip(REGIMES, ("tab:blue", "tab:orange", "tab:red", "tab:purple", "tab:brown"), strict=True):
        mine = [row for row in of_regime(rows, regime) if row["arm"] == TRUSTED]
        for name, line in (("disc_accuracy", ":"), ("gad_trust_accuracy", "-")):
            if mine:
                series = np.array([row["series"][name] for row in mine], dtype=float)
                steps = WINDOW * (np.arange(series.shape[1]) + 0.5)
                label = regime if line == "-" else None
                panels[3].plot(steps, np.nanmean(series, axis=0), line, color=color, label=label)
    panels[3].set(title="D: dotted all, solid held out", ylabel="accuracy", xlabel="step", ylim=(0.4, 1))
    panels[3].legend(frameon=False, fontsize=7)
    return plot


def main() -> int:
    options = arguments(__doc__, NAME, seeds=10).parse_args()
    torch.set_num_threads(1)
    return 0 if run_all(Rows(options.rows), all_runs(options.seeds), options.budget_s) else 1


if __name__ == "__main__":
    sys.exit(main())
