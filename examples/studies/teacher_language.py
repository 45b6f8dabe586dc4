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
"""A real teacher whose probabilities are known to the judging alone: SmolLM2-135M, the quickstart's requests.

    python examples/studies/teacher_language.py --work WORK                     # the quickstart's teacher
    python examples/studies/teacher_language.py --work OTHER --teacher FOLDER   # any language model as the teacher

``pypi_teacher.py`` makes the folder of a larger one.

The teacher is told a hidden context ("Answer in one short sentence" and eight examples) and sampled at temperature 1;
the student is asked without it and sees the texts alone. Without ``--teacher`` it is the student's own model. Students
are judged by how far they are from the teacher: KL(student, teacher) over their own answers, KL(teacher, student) over
the teacher's, in nats an answer (``teacher_model.py``). Training, arms and interruptions are those of
``lm_language.py``, and so are the rates: nothing is chosen here. The seeds, from :data:`FIRST_SEED` on, were named
before any run. Weights, states and texts stay in WORK, which is of one teacher.
"""

import functools
import json
import logging
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lm_lab import Paused, quiet_loading
from lm_language import CHOICE_ROWS, SEQKD_RATES, SODA, Choice, choose, rival_rows, training_s
from lm_language import run as lm_run
from lm_training import seqkd_student
from objective_language import GAD, HOLD, NEW, PARTS, RIVALS, SEQKD, TUNED, seqkd_at
from smollm_lab import difference, shown
from student import StudentError, ensure_student
from study_common import Column, Row, Rows, Run, arguments, arm_table, paired_difference, run_all, show, table
from teacher_lab import SIZES, TeacherLab

from gad_verl.errors import USER_ERRORS, GadConfigError
from gad_verl.record.files import read_json, write_atomically

NAME = "teacher_language"
FIRST_SEED = 540
OWN_MODEL = "SmolLM2-135M-Instruct with a hidden context"
# A student that says less that its teacher would not is to be had without training too.
COOLED, TEMPERATURES = "SeqKD tuned, sampled cooler", (0.95, 0.9, 0.8)
ARMS = (SEQKD, *map(seqkd_at, SEQKD_RATES), COOLED, NEW, GAD, SODA, HOLD, *PARTS)
LATER = (NEW, *PARTS, HOLD, GAD, SODA)
EQUAL_TIME = "the same, equal time"
STOPPED = tuple(name for name, stop in RIVALS.items() if stop.rule != "all" and not stop.equal_time)
# Where lm_language.py has chosen nothing yet: the middle one of its rates of SeqKD, the lower one of the others.
DEFAULT = Choice(seqkd=1e-4, seqkd_equal_time=1e-4, gad=1e-5, soda=1e-5)
CHOSEN, DEFAULTS = "lm_language", "default"


def at_temperature(temperature: float) -> str:
    """Tuned SeqKD whose answers are sampled at another temperature than 1."""
    return f"{TUNED}, temperature {temperature:g}"


COLDER = tuple(map(at_temperature, TEMPERATURES))

# ----------------------------------------------------- runs -----------------------------------------------------


def rates_of(work: Path) -> tuple[Choice, str]:
    """The rates of a work folder and who chose them; those of its first run, so that all of its runs have the same.

    Returns:
        The rates, and :data:`CHOSEN` or :data:`DEFAULTS`.
    """
    path = work / "rates.json"
    kept = read_json(path)
    if kept is None:
        chosen = choose(Rows(CHOICE_ROWS).all())
        kept = {"rates": asdict(chosen or DEFAULT), "by": CHOSEN if chosen else DEFAULTS}
        write_atomically(path, json.dumps(kept, indent=2) + "\n")
    return Choice(**kept["rates"]), kept["by"]


def run(lab: TeacherLab, arm: str, seed: int, choice: Choice, chosen_by: str) -> dict[str, Any]:
    """One run; returns its row."""
    row = cooled(lab, seed, choice) if arm == COOLED else lm_run(lab, arm, seed, choice)
    if "passes" in row:
        # Without an oracle no answer is valid or invalid: what is known of rollouts is whether they have an end.
        row["finished_rollouts"] = row.pop("valid_rollouts")
        row["passes"] = {name: row["passes"][name] for name in ("own", "held_out")}
    return {"teacher": lab.name, "rates": asdict(choice), "rates_by": chosen_by, **row}


def cooled(lab: TeacherLab, seed: int, choice: Choice) -> dict[str, Any]:
    """Tuned SeqKD of as many updates as an arm has, judged at each of :data:`TEMPERATURES`."""
    student, corpus, train_s = seqkd_student(lab, choice.seqkd, seed)
    points = [{"temperature": value, **lab.judge(student, corpus, value)} for value in TEMPERATURES]
    common = {"arm": COOLED, "seed": seed, "steps": lab.sizes.steps, "equal_time": lab.sizes.equal_time}
    return {**common, "temperatures": points, "train_s": train_s}


def runs_of(lab: TeacherLab, seeds: Sequence[int], choice: Choice, chosen_by: str) -> Iterator[Run]:
    """Seed by seed, since the arms of one share their start."""
    for seed in seeds:
        for arm in ARMS:
            yield Run(f"{lab.name}/{arm}/seed={seed}", functools.partial(run, lab, arm, seed, choice, chosen_by))


# ------------------------------------------------------ tables ------------------------------------------------------

COLUMNS = [
    Column("KL(S, T), nats", "kl_student_teacher"),
    Column("KL(T, S), nats", "kl_teacher_student"),
    Column("tokens", "length", 1),
    Column("finished, %", "finished", 1, 100),
]


def nearness(point: Row) -> float:
    """What SeqKD that is stopped by the oracle is taken by: what GAD is there to lower."""
    return -point["kl_student_teacher"]


def with_rivals(rows: Sequence[Row]) -> list[Row]:
    """The rows and those of SeqKD as a rival; each seed at the rates that it was run at, and at each temperature."""
    known = [row for row in rows if row["arm"] != COOLED]
    for row in rows:
        for point in row.get("temperatures", ()):
            known.append({**point, "arm": at_temperature(point["temperature"]), "seed": row["seed"]})
    for seed in dict.fromkeys(row["seed"] for row in rows):
        mine = [row for row in rows if row["seed"] == seed]
        known += rival_rows(mine, Choice(**mine[0]["rates"]), nearness)
    return known


def differences_table(rows: Sequence[Row], rival: str, arms: Sequence[str]) -> str:
    """Each arm less a rival: both divergences over the seeds, and every figure over the prompts."""
    lines, there = [], {row["arm"] for row in rows}
    for arm in filter(there.__contains__, arms):
        seeds = [paired_difference(rows, rival, arm, column.key) for column in COLUMNS[:2]]
        line = [arm, *map(show, seeds)]
        for column in COLUMNS:
            found = difference(rows, rival, arm, column.key)
            line.append("–" if found is None else shown(found, column))
        lines.append(line)
    heads = [f"less {rival}", *(f"{column.title}, over seeds" for column in COLUMNS[:2])]
    return table([*heads, *(f"{column.title}, over prompts" for column in COLUMNS)], lines)


def details_table(rows: Sequence[Row]) -> str:
    """What D knows and what an arm costs; SeqKD of equal time should cost as much as the new objective."""
    lines = []
    for arm in (SEQKD, TUNED, EQUAL_TIME, *LATER):
        mine = [row for row in rows if row["arm"] == arm]
        if mine:
            figures = [show([row.get(key) for row in mine]) for key in ("accuracy", "held_out_accuracy", "factor")]
            lines.append([arm, *figures, show([row["train_s"] / 60 for row in mine], 1)])
    return table(["arm", "D's accuracy, last 25 steps", "on held-out subjects", "mean f", "minutes of a core"], lines)


def note(rows: Sequence[Row]) -> str:
    """What the figures are of."""
    first, seeds = rows[0], sorted({row["seed"] for row in rows})
    counted = "exact for each token" if first["exact"] else "estimated by texts, since the vocabularies differ"
    sources = {row["rates_by"] for row in rows}
    chosen = "those that `lm_language.py` chose" if sources == {CHOSEN} else "defaults, chosen by nothing, in some rows"
    taught = [
        show([row[f"teacher_{key}"] for row in rows if row["arm"] == SEQKD], 1, scale)
        for key, scale in (("length", 1), ("finished", 100))
    ]
    return (
        f"Seeds {', '.join(map(str, seeds))}; {len(first['by_prompt']['length'])} test prompts; KL {counted}. "
        f"{first['steps']} updates of an arm, {first['equal_time']} of SeqKD in equal time; rates: {chosen}. The "
        f"teacher's answers have {taught[0]} tokens, {taught[1]} % of them an end. Training took "
        f"{training_s(rows) / 3600:.1f} hours of one core.\n"
    )


def tables(rows: Sequence[Row]) -> list[str]:
    """For docs/studies.md: arms, differences, details; one after the other for each teacher."""
    made: list[list[str]] = [[], [], []]
    for teacher in dict.fromkeys(row["teacher"] for row in rows):
        mine = [row for row in rows if row["teacher"] == teacher]
        known, head = with_rivals(mine), f"Teacher: {teacher}.\n\n"
        columns = [*COLUMNS, Column("validation loss", "validation_loss", 3)]
        made[0].append(head + arm_table(known, (SEQKD, *RIVALS, *COLDER, *LATER), columns) + "\n" + note(mine))
        parts = [differences_table(known, TUNED, (*COLDER, *LATER))]
        there = {row["arm"] for row in known}
        parts += [differences_table(known, rival, LATER) for rival in (*COLDER, *STOPPED, EQUAL_TIME) if rival in there]
        if NEW in there:
            parts.append(differences_table(known, NEW, [arm for arm in LATER if arm != NEW]))
        made[1].append(head + "\n".join(parts))
        made[2].append(head + details_table(known))
    return ["\n".join(of_teachers) for of_teachers in made]


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; 1 where the time is over before the study is complete, 2 for an error that the
    user can mend."""
    parser = arguments(__doc__, NAME, seeds=3)
    parser.add_argument("--work", type=Path, required=True, help="folder of states, weights, texts and the student")
    parser.add_argument("--teacher", type=Path, help="folder of a language model (default: the student's own model)")
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
        if options.teacher is not None and not (options.teacher / "config.json").is_file():
            raise GadConfigError(f"--teacher {options.teacher}: no Hugging Face folder (it has no config.json)")
        student = options.student or ensure_student(options.work / "student")
        name = OWN_MODEL if options.teacher is None else options.teacher.resolve().name
        lab = TeacherLab(student, options.teacher, name, options.work, SIZES, dtype, deadline)
        choice, chosen_by = rates_of(options.work)
        seeds = range(FIRST_SEED, FIRST_SEED + options.seeds)
        done = run_all(Rows(options.rows), runs_of(lab, seeds, choice, chosen_by), options.budget_s)
    except Paused:
        done = False
    except (StudentError, *USER_ERRORS) as error:
        sys.stderr.write(f"{NAME}: {error}\n")
        return 2
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main())
