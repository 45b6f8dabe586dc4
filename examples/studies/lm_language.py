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
"""A real language model with an oracle: SmolLM2-135M, short instructions with three valid answers each.

    python examples/studies/lm_language.py --work WORK       # all runs; interrupt it at any time, run it again

The task is ``lm_task.py``, the training ``lm_training.py``: all weights of student and discriminator. Every arm of a
seed starts from the student of SeqKD's best validation likelihood and has as many updates; SeqKD also goes on for as
long as the new objective takes. First the seed of the choice is run, whose rows are kept apart: it decides the rates,
by validity (:func:`choose`). Then come the reported seeds, from :data:`FIRST_SEED` on. Both were named before any run.
Weights and states stay in WORK, 4 GB a seed.
"""

import functools
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from study_common import RESULTS, Column, Row, Rows, Run, arguments, arm_table, paired_difference, run_all, show, table

# isort: split
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "quickstart"))
from lm_lab import Lab, Paused, quiet_loading
from lm_task import KINDS
from lm_training import Soda, adversarial, seqkd_goes_on, soda, start
from objective_language import ARMS, GAD, HOLD, NEW, PARTS, RIVALS, SEQKD, TUNED, cell, seqkd_at
from smollm_lab import difference, shown
from student import StudentError, ensure_student

from gad_verl.errors import USER_ERRORS

NAME = "lm_language"
CHOICE_SEEDS, FIRST_SEED = (520,), 530
CHOICE_ROWS = RESULTS / f"{NAME}_choice.jsonl"
SEQKD_RATES, POLICY_RATES = (2e-4, 1e-4, 3e-5), (3e-5, 1e-5)
SODA, SODA_TEXTS = "SODA", "SODA, beside the texts"
SODAS = {SODA: Soda(), SODA_TEXTS: Soda(anchor=1.0)}


def at(arm: str, rate: float) -> str:
    """An arm of the choice."""
    return f"{arm}, rate {rate:g}"


@dataclass(frozen=True)
class Choice:
    """The rates that did best on the seeds of the choice.

    Args:
        seqkd: Of SeqKD with as many updates as the arms; in an arm with two rates, that of the texts.
        seqkd_equal_time: Of SeqKD with as much time as the new objective.
        gad: Of GAD as published; all arms with a discriminator have it.
        soda: Of SODA, with the texts and without.
    """

    seqkd: float
    seqkd_equal_time: float
    gad: float
    soda: float


# ----------------------------------------------------- runs -----------------------------------------------------


def run(lab: Lab, arm: str, seed: int, choice: Choice | None = None) -> dict[str, Any]:
    """One run; returns its row. Without a choice the name of the arm has its rate."""
    common = {"arm": arm, "seed": seed, "steps": lab.sizes.steps, "equal_time": lab.sizes.equal_time}
    for rate in SEQKD_RATES:
        if arm == seqkd_at(rate):
            return common | seqkd_goes_on(lab, rate, seed)
    for rate in POLICY_RATES:
        if arm == at(GAD, rate):
            return common | adversarial(lab, ARMS[GAD], arm, rate, rate, seed)
        if arm == at(SODA, rate):
            return common | soda(lab, SODAS[SODA], arm, rate, seed)
    if arm == SEQKD:
        return common | start(lab, seed).row
    assert choice is not None
    if arm in SODAS:
        return common | soda(lab, SODAS[arm], arm, choice.soda, seed)
    return common | adversarial(lab, (ARMS | PARTS)[arm], arm, choice.gad, choice.seqkd, seed)


def runs_of(lab: Lab, arms: Sequence[str], seeds: Sequence[int], choice: Choice | None = None) -> Iterator[Run]:
    """Seed by seed, since the arms of one share their start."""
    for seed in seeds:
        for arm in arms:
            yield Run(f"{arm}/seed={seed}", functools.partial(run, lab, arm, seed, choice))


SEQKDS = (SEQKD, *map(seqkd_at, SEQKD_RATES))
CHOICE_ARMS = (*SEQKDS, *(at(arm, rate) for arm in (GAD, SODA) for rate in POLICY_RATES))


def reported_arms(choice: Choice) -> tuple[str, ...]:
    """What is asked about first comes first, so that an interrupted seed has it."""
    tuned = dict.fromkeys(map(seqkd_at, (choice.seqkd, choice.seqkd_equal_time)))
    others = [arm for arm in SEQKDS[1:] if arm not in tuned]
    return (SEQKD, *tuned, NEW, SODA, GAD, HOLD, SODA_TEXTS, *PARTS, *others)


def means(rows: Sequence[Row], arm: str, updates: int | None = None) -> float | None:
    """Mean validity of an arm over the seeds, of SeqKD after some updates; None without rows."""
    found = []
    for row in rows:
        if row["arm"] == arm:
            points = row["curve"] if updates is not None else [row]
            found += [point["valid"] for point in points if updates is None or point["updates"] == updates]
    return float(np.mean(found)) if found else None


def choose(rows: Sequence[Row]) -> Choice | None:
    """The best rates of the choice; None where runs of it are missing."""
    if {(row["arm"], row["seed"]) for row in rows} < {(arm, seed) for arm in CHOICE_ARMS for seed in CHOICE_SEEDS}:
        return None

    def best(rates: Sequence[float], validity: Callable[[float], float | None]) -> float:
        return max(rates, key=lambda rate: validity(rate) or 0.0)

    steps, equal_time = rows[0]["steps"], rows[0]["equal_time"]
    return Choice(
        best(SEQKD_RATES, lambda rate: means(rows, seqkd_at(rate), steps)),
        best(SEQKD_RATES, lambda rate: means(rows, seqkd_at(rate), equal_time)),
        best(POLICY_RATES, lambda rate: means(rows, at(GAD, rate))),
        best(POLICY_RATES, lambda rate: means(rows, at(SODA, rate))),
    )


# ------------------------------------------------- SeqKD as a rival -------------------------------------------------


def _validity(point: Row) -> float:
    return point["valid"]


def rival_rows(rows: Sequence[Row], choice: Choice | None, oracle: Callable[[Row], float] = _validity) -> list[Row]:
    """A row for each rival (``objective_language.py``) of each seed: SeqKD at a rate of the choice where that run is
    there, what was stopped where those of all rates are. The oracle stops at the highest value of ``oracle``."""
    made = []
    for seed in sorted({row["seed"] for row in rows}):
        curves = {row["arm"]: row for row in rows if row["seed"] == seed and "curve" in row}
        for rival, stop in RIVALS.items() if curves else ():
            last = next(iter(curves.values()))["equal_time" if stop.equal_time else "steps"]
            points = [point for row in curves.values() for point in row["curve"] if point["updates"] <= last]
            if stop.rule == "all":
                if choice is None:
                    continue
                arm = seqkd_at(choice.seqkd_equal_time if stop.equal_time else choice.seqkd)
                if arm not in curves:
                    continue
                taken = next(point for point in curves[arm]["curve"] if point["updates"] == last)
            elif len(curves) < len(SEQKD_RATES):
                continue
            elif stop.rule == "likelihood":
                taken = min(points, key=lambda point: point["validation_loss"])
            else:
                taken = max(points, key=oracle)
            made.append({**taken, "arm": rival, "seed": seed})
    return made


# ------------------------------------------------------ tables ------------------------------------------------------

NATS = {"kl_teacher_student": "KL(T, S), nats", "kl_student_teacher": "KL(S, T), nats"}
COLUMNS = [
    Column("valid, %", "valid", 1, 100),
    Column("greedy, %", "greedy", 1, 100),
    Column("covered among 8, of 3", "covered", 2),
    *(Column(title, key) for key, title in NATS.items()),
    Column("validation loss", "validation_loss", 3),
]
LATER = (NEW, *PARTS, HOLD, GAD, *SODAS)
DIFFERENCES = (Column("valid, points", "valid", 1, 100), Column("greedy, points", "greedy", 1, 100), *COLUMNS[3:5])


def training_s(rows: Sequence[Row]) -> float:
    """Seconds of training: what arms share is counted once, judging not at all. (``cpu_s`` is of the last slice alone
    where a run was interrupted.)"""
    own = sum(row.get("curve", [row])[-1]["train_s"] - row.get("shared_s", 0.0) for row in rows)
    # One discriminator is trusted and one is not; the choice has the latter alone.
    shared: dict[tuple[int, bool], float] = {}
    for row in rows:
        if "passes" in row:
            shared[row["seed"], "factor" in row] = row["shared_s"]
    return own + sum(shared.values())


def share_of_time(rows: Sequence[Row]) -> str:
    """How equal the time is: the sizes were fixed before the new objective had been timed."""
    longest_of: dict[int, float] = {}
    for row in rows:
        if "curve" in row:
            # The same updates at every rate: what took less time ran on a faster machine than the new objective.
            longest_of[row["seed"]] = max(longest_of.get(row["seed"], 0.0), row["curve"][-1]["train_s"])
    longest = list(longest_of.values())
    new = [row["train_s"] for row in rows if row["arm"] == NEW]
    if not longest or not new:
        return ""
    return f" ({np.mean(longest) / np.mean(new):.0%} of what the new objective took with the warmup of D)"


def differences_table(rows: Sequence[Row], rival: str) -> str:
    """Each arm less a rival: over seeds, and over prompts."""
    heads = [f"less {rival}", "valid, points over seeds", "over prompts", "greedy, over prompts"]
    lines = []
    for arm in LATER:
        line = [arm, cell([100 * value for value in paired_difference(rows, rival, arm, "valid")])]
        for column in DIFFERENCES:
            found = difference([row for row in rows if "by_prompt" in row], rival, arm, column.key)
            line.append("–" if found is None else shown(found, column))
        lines.append(line)
    return table([*heads, *(f"{title}, over prompts" for title in NATS.values())], lines)


def details_table(rows: Sequence[Row]) -> str:
    """What D knows, which phrasings are left, and what an arm costs."""
    heads = [
        "arm",
        "D's accuracy, last 25 steps",
        "on held-out prompts",
        "mean f",
        "the three valid answers, %",
        "minutes of a core",
    ]
    lines = []
    for arm in (SEQKD, TUNED, *LATER):
        mine = [row for row in rows if row["arm"] == arm]
        if mine:
            figures = [show([row.get(key) for row in mine]) for key in ("accuracy", "held_out_accuracy", "factor")]
            shares = 100 * np.mean([row["phrasings"] for row in mine], axis=0)
            minutes = show([row["train_s"] / 60 for row in mine], 1)
            lines.append([arm, *figures, " / ".join(f"{share:.0f}" for share in shares), minutes])
    return table(heads, lines)


def warmup_table(rows: Sequence[Row]) -> str:
    """What D knew in each pass of its warmup with held-out prompts."""
    names = {"own": "on its own prompts", "held_out": "on held-out ones", "valid_above": "valid above invalid"}
    mine = [row["passes"] for row in rows if row["arm"] == NEW]
    count = len(mine[0]["own"]) if mine else 0
    lines = [
        [f"pass {number + 1}", *(show([passes[name][number] for passes in mine]) for name in names)]
        for number in range(count)
    ]
    return table(["D's accuracy in its warmup", *names.values()], lines)


def kinds_table(rows: Sequence[Row]) -> str:
    """Validity by the kind of instruction."""
    arms = [arm for arm in (SEQKD, TUNED, NEW, GAD, SODA) if any(row["arm"] == arm for row in rows)]
    lines = [
        [kind, *(show([row["kinds"].get(kind) for row in rows if row["arm"] == arm], 1, 100) for arm in arms)]
        for kind in KINDS
    ]
    return table(["valid, %", *arms], lines)


def choice_table(rows: Sequence[Row]) -> str:
    """Validity at each rate on the seeds of the choice."""
    steps, equal_time = (rows[0]["steps"], rows[0]["equal_time"]) if rows else (None, None)
    columns = {
        "SeqKD": (seqkd_at, steps),
        "SeqKD, equal time": (seqkd_at, equal_time),
        GAD: (functools.partial(at, GAD), None),
        SODA: (functools.partial(at, SODA), None),
    }
    lines = []
    for rate in sorted({*SEQKD_RATES, *POLICY_RATES}, reverse=True):
        found = [means(rows, name(rate), updates) for name, updates in columns.values()]
        lines.append([f"{rate:g}", *("–" if value is None else f"{100 * value:.1f}" for value in found)])
    return table(["rate: valid, %", *columns], lines)


def tables(rows: Sequence[Row]) -> list[str]:
    """For docs/studies.md."""
    chosen = Rows(CHOICE_ROWS).all()
    known = [*rows, *rival_rows(rows, choose(chosen))]
    seeds = sorted({row["seed"] for row in rows})
    note = (
        f"Seeds {', '.join(map(str, seeds))}; {rows[0]['steps']} updates of an arm, {rows[0]['equal_time']} of SeqKD "
        f"in equal time{share_of_time(rows)}. Training took {training_s(rows) / 3600:.1f} hours of one core, and "
        f"{training_s(chosen) / 3600:.1f} for the choice.\n"
    )
    return [
        arm_table(known, (SEQKD, *RIVALS, *LATER), COLUMNS) + "\n" + note,
        differences_table(known, TUNED) + "\n" + differences_table(known, "the same, equal time"),
        details_table(known),
        warmup_table(known),
        kinds_table(known),
        choice_table(chosen),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; 1 where the time is over before the study is complete, 2 for an error that the
    user can mend."""
    parser = arguments(__doc__, NAME, seeds=3)
    parser.add_argument("--choice-rows", type=Path, default=CHOICE_ROWS, help="rows of the seeds of the choice (JSONL)")
    parser.add_argument("--work", type=Path, required=True, help="folder of states, weights and the student")
    parser.add_argument("--student", type=Path, help="folder of a student (default: SmolLM2-135M-Instruct is made)")
    parser.add_argument("--float32", action="store_true", help="compute in float32, for a CPU without bfloat16")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("studies.lm_language").setLevel(logging.INFO)
    quiet_loading()
    torch.set_num_threads(1)
    deadline = math.inf if options.budget_s is None else time.monotonic() + options.budget_s
    dtype = torch.float32 if options.float32 else torch.bfloat16
    try:
        lab = Lab(options.student or ensure_student(options.work / "student"), options.work, None, dtype, deadline)
        choice_rows = Rows(options.choice_rows)
        done = run_all(choice_rows, runs_of(lab, CHOICE_ARMS, CHOICE_SEEDS), options.budget_s)
        choice = choose(choice_rows.all()) if done else None
        if choice is not None:
            seeds = range(FIRST_SEED, FIRST_SEED + options.seeds)
            left = None if options.budget_s is None else deadline - time.monotonic()
            done = run_all(Rows(options.rows), runs_of(lab, reported_arms(choice), seeds, choice), left)
    except Paused:
        done = False
    except (StudentError, *USER_ERRORS) as error:
        sys.stderr.write(f"lm_language: {error}\n")
        return 2
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main())
