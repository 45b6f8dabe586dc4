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
"""How many teacher texts a discriminator needs, and what GAD gains with so many.

    python examples/studies/discriminator_knowledge.py   # all runs; interrupt it at any time, run it again to go on

Two kinds of runs in the language of ``objective_language.py``. *Knowing*: D alone against a student of SeqKD that
stands still; texts, passes, the width of D and how long the student was taught are varied one at a time. *Gaining*: the
adversarial stage of the small student at each number of texts, and SeqKD that goes on instead. The seeds were named
before any of them was run; no setting was chosen by them.
"""

import functools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from study_common import Row, Run, mean_interval, run_study, show, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# isort: split
from fast_language import Oracle, Texts, pair_loss, sample
from language import TRUST
from objective_language import ARMS, CASES, GAD, NEW, SEQKD, cell, seqkd_arms, seqkd_at
from objective_training import (
    BATCH,
    DISCRIMINATOR_LR,
    Case,
    N,
    Start,
    adversarial,
    batches,
    draw,
    optimizer,
    seqkd_goes_on,
    start,
    update,
)
from oracle_language import CausalTransformer
from torch import Tensor, nn

from gad_verl.core.trust import DiscriminatorTrust, pair_accuracy

NAME = "discriminator_knowledge"
FIRST_SEED = 900
TEXTS = (125, 250, 500, 1000, 2000, 4000)
WIDTHS = (16, 32, 64, 128)
TAUGHT = (50, 100, 200, 400)
PASSES = (1, 2, 3, 5, 10)
STUDENTS = ("small student", "good student")
USUAL_TEXTS, USUAL_WIDTH = 1000, 64
JUDGED = 8  # answers to each fresh prompt, for the order of valid and invalid ones


@dataclass(frozen=True)
class Setting:
    """Of a run that looks at what D knows.

    Args:
        student: A regime of ``objective_language.py``; its student and prompts.
        texts: Of the teacher; student and D learn from the same.
        width: Of D.
        taught: Updates of SeqKD; None takes the student of the best validation likelihood.
        fresh: Whether every pass has new rollouts of the student; else they are drawn once and stored.
    """

    student: str
    texts: int = USUAL_TEXTS
    width: int = USUAL_WIDTH
    taught: int | None = None
    fresh: bool = False

    def case(self) -> Case:
        """The regime with this setting, but for the width of D, so that students are shared."""
        case = CASES[self.student]
        regime = replace(case.regime, texts=self.texts)
        if self.taught is not None:
            regime = replace(regime, seqkd_steps=self.taught, seqkd_every=self.taught)
        return replace(case, regime=regime)


def settings() -> list[Setting]:
    """What is varied, one thing at a time; those of the same student one after the other, since they share it."""
    found = []
    for student in STUDENTS:
        found += [Setting(student, width=width) for width in WIDTHS] + [Setting(student, fresh=True)]
        found += [Setting(student, texts=count) for count in TEXTS if count != USUAL_TEXTS]
        found += [Setting(student, taught=updates) for updates in TAUGHT]
    return found


# ------------------------------------------------- what D knows -------------------------------------------------


def valid_above_invalid(scores: Tensor, valid: Tensor) -> float | None:
    """Of all pairs of a valid and an invalid answer to one prompt, the share in which D scores the valid one higher.

    Args:
        scores: (G, n).
        valid: (G, n) bool.

    Returns:
        The share, ties as halves; None where no prompt has both.
    """
    difference = scores.unsqueeze(2) - scores.unsqueeze(1)
    pairs = valid.unsqueeze(2) & ~valid.unsqueeze(1)
    if not pairs.any():
        return None
    return ((difference > 0).double() + 0.5 * (difference == 0).double())[pairs].mean().item()


@dataclass(frozen=True)
class Judges:
    """What a D is asked about: answers of the student that stands still, none of which trains it.

    Args:
        texts: Teacher's texts of prompts held out from D.
        rollouts: n answers to each of these.
        names: Of these prompts.
        fresh: A stand-in for the teacher's text (the first valid answer) of each fresh prompt.
        answers: Answers to fresh prompts.
        valid: (prompts, JUDGED) bool, which of these are valid.
    """

    texts: Texts
    rollouts: Texts
    names: list[str]
    fresh: Texts
    answers: Texts
    valid: Tensor

    @classmethod
    def of(cls, case: Case, begun: Start, generator: torch.Generator) -> "Judges":
        """Draw the answers."""
        texts, oracle = begun.texts[begun.held_out], begun.oracle
        names = [name for name, held in zip(begun.names, begun.held_out.tolist(), strict=True) if held]
        rollouts = draw(case, begun.student, texts.prompts, generator)
        answers = sample(begun.student, oracle.prompts, JUDGED, oracle.limit, case.language.end, generator)
        valid = answers_valid(oracle, answers)
        first = oracle.valid[:, 0]
        ends = (first == case.language.end).long()
        lengths = torch.where(ends.any(1), ends.argmax(1) + 1, first.shape[1])
        return cls(texts, rollouts, names, Texts(oracle.prompts, first, lengths), answers, valid)

    @torch.no_grad()
    def ask(self, model: nn.Module, seen: Texts, seen_rollouts: Texts) -> dict[str, Any]:
        """Accuracy on what was held out and on what trained D, f of the former, order of valid and invalid."""
        scores = pair_loss(model, self.texts, self.rollouts)[1]
        everyone = torch.ones(len(scores), dtype=torch.bool)
        trust = DiscriminatorTrust(TRUST).update(scores[:, 0], scores[:, 1:], everyone, self.names)
        own = pair_loss(model, seen, seen_rollouts)[1]
        fresh = pair_loss(model, self.fresh, self.answers)[1]
        return {
            "held_out": pair_accuracy(scores[:, 0], scores[:, 1:]).mean().item(),
            "own": pair_accuracy(own[:, 0], own[:, 1:]).mean().item(),
            "factor": trust.factor,
            "order": valid_above_invalid(fresh[:, 1:], self.valid),
        }


def answers_valid(oracle: Oracle, answers: Texts) -> Tensor:
    """(prompts, answers of each) bool."""
    mine = answers.answers.view(len(oracle.prompts), -1, 1, oracle.limit)
    return (mine == oracle.valid.unsqueeze(1)).all(-1).any(-1)


def know(setting: Setting, seed: int) -> dict[str, Any]:
    """D alone in passes over the texts; a row with what it knows after each of :data:`PASSES`."""
    case = setting.case()
    begun = start(case, seed)
    generator = torch.Generator().manual_seed(seed)
    judges = Judges.of(case, begun, generator)
    torch.manual_seed(seed + 1)
    model = CausalTransformer(setting.width, 2, 2, 1, vocabulary=case.language.vocabulary)
    adam = optimizer(model, DISCRIMINATOR_LR)
    texts = begun.texts[~begun.held_out]
    rollouts, curve = draw(case, begun.student, texts.prompts, generator), []
    size = min(BATCH, len(texts))
    stream = batches(len(texts), size, seed)
    for done in range(1, PASSES[-1] + 1):
        if setting.fresh and done > 1:
            rollouts = draw(case, begun.student, texts.prompts, generator)
        for _ in range(len(texts) // size):
            rows = next(stream)
            answers = (rows.unsqueeze(1) * N + torch.arange(N)).flatten()
            update(model, adam, pair_loss(model, texts[rows], rollouts[answers])[0])
        if done in PASSES:
            curve.append({"passes": done, **judges.ask(model, texts, rollouts)})
    return {"kind": "know", **vars(setting), "seed": seed, "valid": begun.row["valid"], "curve": curve}


# ----------------------------------------------- what GAD gains -----------------------------------------------


def gains(count: int, arm: str, seed: int) -> dict[str, Any]:
    """One arm of the small student with so many teacher texts; its row."""
    case = Setting(STUDENTS[0], texts=count).case()
    common = {"kind": "gain", "texts": count, "arm": arm, "seed": seed}
    if arm == SEQKD:
        return common | start(case, seed).row
    for rate in case.rates:
        if arm == seqkd_at(rate):
            return common | seqkd_goes_on(case, rate, seed)
    return common | adversarial(case, ARMS[arm], seed)


def arms() -> tuple[str, ...]:
    """Of the runs that gain."""
    return (*seqkd_arms(CASES[STUDENTS[0]]), NEW, GAD)


def all_runs(seeds: Sequence[int]) -> Iterator[Run]:
    """Seed by seed, so that a study that was broken off has whole seeds; first what D knows, which is cheap."""
    for seed in seeds:
        for setting in settings():
            name = "/".join(f"{key}={value}" for key, value in vars(setting).items())
            yield Run(f"know/{name}/seed={seed}", functools.partial(know, setting, seed))
    for seed in seeds:
        for count in TEXTS:
            for arm in arms():
                yield Run(f"gain/{count}/{arm}/seed={seed}", functools.partial(gains, count, arm, seed))


# ---------------------------------------------- tables and figure ----------------------------------------------


def at(rows: Sequence[Row], passes: int, key: str, **wanted: Any) -> list[float]:
    """One figure of the runs with these settings, after so many passes."""
    usual = vars(Setting(wanted["student"])) | wanted
    return [
        point[key]
        for row in rows
        if row["kind"] == "know" and all(row[name] == value for name, value in usual.items())
        for point in row["curve"]
        if point["passes"] == passes and point[key] is not None
    ]


def varied() -> dict[str, dict[str, Any]]:
    """What each line of the table varies, by its name in words."""
    return {
        **{f"{count} texts": {"texts": count} for count in TEXTS},
        **{f"D {width} wide": {"width": width} for width in WIDTHS},
        **{f"student of {updates} updates of SeqKD": {"taught": updates} for updates in TAUGHT},
        "rollouts drawn anew in each pass": {"fresh": True},
    }


def known_table(rows: Sequence[Row], student: str) -> str:
    """What D knows of one student, after one pass and after more."""
    lines = []
    for name, changed in varied().items():
        wanted = {"student": student, **changed}
        valid = {
            row["seed"]: row["valid"]
            for row in rows
            if row["kind"] == "know" and all(row[k] == v for k, v in (vars(Setting(student)) | wanted).items())
        }
        cells = [show(list(valid.values()), 1, 100)]
        cells += [show(at(rows, passes, "held_out", **wanted), 3) for passes in (1, 3, 10)]
        cells += [show(at(rows, 10, "own", **wanted), 3)]
        cells += [show(at(rows, passes, key, **wanted), 2) for key in ("factor", "order") for passes in (1, 3, 10)]
        lines.append([name, *cells, str(len(valid))])
    held_out, factor, order = (
        (f"{title}, 1 pass", "3 passes", "10 passes") for title in ("held-out accuracy", "f", "valid above invalid")
    )
    first = f"{student}: {USUAL_TEXTS} texts, D {USUAL_WIDTH} wide, but for"
    heads = (first, "student valid, %", *held_out, "own texts, 10 passes", *factor, *order, "runs")
    return table(heads, lines)


def by_seed(rows: Sequence[Row], count: int, arm: str) -> dict[int, Row]:
    """Rows of an arm with so many texts."""
    return {row["seed"]: row for row in rows if row["kind"] == "gain" and (row["texts"], row["arm"]) == (count, arm)}


def seqkd_by_seed(rows: Sequence[Row], count: int, equal_time: bool) -> dict[int, float]:
    """Validity of SeqKD that went on, at the rate of the best mean over the very seeds that are reported.

    That favours SeqKD: its rate is chosen on these seeds, that of the objective is not.
    """
    case, found = CASES[STUDENTS[0]], []
    last = case.equal_time if equal_time else case.regime.adversarial
    curves = [{seed: row["curve"] for seed, row in by_seed(rows, count, seqkd_at(r)).items()} for r in case.rates]
    shared = set.intersection(*map(set, curves))
    for curve in curves:
        found.append({s: next(point[2] for point in curve[s] if point[0] == last) for s in sorted(shared)})
    return max(found, key=lambda valid: float(np.mean(list(valid.values() or [0.0]))))


def gained(rows: Sequence[Row], count: int, arm: str, equal_time: bool) -> list[float]:
    """Points of validity above SeqKD that went on instead, seed by seed."""
    rival, mine = seqkd_by_seed(rows, count, equal_time), by_seed(rows, count, arm)
    return [100 * (mine[seed]["valid"] - rival[seed]) for seed in sorted(set(rival) & set(mine))]


def gain_table(rows: Sequence[Row]) -> str:
    """What each number of texts brings."""
    lines = []
    for count in TEXTS:
        new = list(by_seed(rows, count, NEW).values())
        lines.append(
            [
                str(count),
                show([row["valid"] for row in by_seed(rows, count, SEQKD).values()], 1, 100),
                show(list(seqkd_by_seed(rows, count, False).values()), 1, 100),
                show([row["valid"] for row in new], 1, 100),
                show([row["factor"] for row in new], 2),
                cell(gained(rows, count, NEW, False)),
                cell(gained(rows, count, GAD, False)),
                cell(gained(rows, count, NEW, True)),
                str(len(new)),
            ]
        )
    heads = (
        "teacher texts",
        "where all start, valid %",
        "SeqKD, as many updates",
        "new objective",
        "mean f",
        "new objective less SeqKD",
        "GAD as published less SeqKD",
        "new objective less SeqKD of equal time",
        "runs",
    )
    return table(heads, lines)


def tables(rows: Sequence[Row]) -> list[str]:
    """For docs/studies.md: what D knows of either student; what GAD gains by the number of texts."""
    seeds = sorted({row["seed"] for row in rows})
    note = (
        f"Seeds {seeds[0]} to {seeds[-1]}, {len(rows)} runs, {sum(row['cpu_s'] for row in rows) / 3600:.1f} hours of "
        "one core.\n"
    )
    first, second = (known_table(rows, student) for student in STUDENTS)
    return [first + "\n" + note, second, gain_table(rows)]


def figure(rows: Sequence[Row]) -> "Figure":
    """Held-out accuracy by texts and passes for both students; gain over SeqKD by texts, with f beside it."""
    from matplotlib.figure import Figure

    plot = Figure(figsize=(11, 3.6), layout="constrained")
    panels = plot.subplots(1, 3)
    for panel, student in zip(panels, STUDENTS, strict=False):
        for passes, color in ((1, "tab:gray"), (3, "tab:blue"), (10, "tab:purple")):
            known = [(count, at(rows, passes, "held_out", student=student, texts=count)) for count in TEXTS]
            intervals(panel, known, color, f"{passes} {'pass' if passes == 1 else 'passes'}")
        panel.axhline(0.5, color="black", linewidth=0.6)
        panel.set(title=student, xlabel="teacher texts", ylabel="accuracy of D on held-out prompts")
    panel = panels[2]
    for arm, equal_time, color, label in (
        (NEW, False, "tab:green", "new objective, as many updates"),
        (GAD, False, "tab:red", "GAD as published"),
        (NEW, True, "tab:gray", "new objective, equal time"),
    ):
        intervals(panel, [(count, gained(rows, count, arm, equal_time)) for count in TEXTS], color, label)
    panel.axhline(0, color="black", linewidth=0.6)
    panel.set(title=f"{STUDENTS[0]}: gain", xlabel="teacher texts", ylabel="valid, points above SeqKD that goes on")
    for panel in panels:
        panel.set_xscale("log")
        panel.set_xticks(TEXTS, [str(count) for count in TEXTS])
        panel.minorticks_off()
        if panel.get_legend_handles_labels()[0]:
            panel.legend(frameon=False, fontsize=8)
    return plot


def intervals(panel: Any, known: Sequence[tuple[int, list[float]]], color: str, label: str) -> None:
    """A line of means with their 95 % intervals; a number of texts that has no run is left out."""
    points = [(count, *mean_interval(values)) for count, values in known if values]
    if points:
        counts, means, halves = zip(*points, strict=True)
        panel.errorbar(counts, means, np.nan_to_num(halves), fmt="o-", color=color, markersize=4, label=label)


if __name__ == "__main__":
    sys.exit(run_study(__doc__, NAME, 10, FIRST_SEED, all_runs))
