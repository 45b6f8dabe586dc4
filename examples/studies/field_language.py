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
"""The methods around GAD on the language with an oracle: memory, stale rollouts, SODA, a flawed check, more texts.

    python examples/studies/field_language.py       # all runs; interrupt it at any time, run it again to go on

Four questions, each on seeds that no earlier choice has seen, all arms from the student of SeqKD's best likelihood:

1. Past pairs that replace fresh ones against such that are added, at equal updates of D, and against more updates.
2. Live rollouts against those of the student of some steps ago, against one snapshot, against SODA.
3. D's score alone, a flawed check alone, and both as sum, product, gate, with D trained on what passes or on all.
4. One teacher text a prompt, or 2, 4, 8: of as many prompts (and so more queries), or of as many queries.

Settings are those of ``objective_language.py``; nothing was tuned for an arm, beta of DPO is .1 and .5.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from objective_language import CASES, SEQKD
from study_common import Row, Run, paired_difference, run_study, show, table

# isort: split
from field_training import CHECK_ALONE, Method, train_method
from objective_training import Case, seqkd_goes_on, start

NAME = "field_language"
FIRST_SEED = 900
GAD, SODA = "GAD", "SODA"
SEQKD_ON = "SeqKD goes on"
MEMORY = {
    "replace, share .5": Method(memory=16, mode="replace"),
    "replace, share .75": Method(memory=16, mode="replace", fraction=0.75),
    "add, share .5": Method(memory=16),
    "two updates of D": Method(updates=2),
}
ROLLOUTS = {
    "rollouts up to 10 steps old": Method(refresh=10),
    "rollouts up to 50 steps old": Method(refresh=50),
    "rollouts of the start": Method(refresh=0),
    SODA: Method(soda=True),
    "SODA, beta .5": Method(soda=True, beta=0.5),
    "SODA, beside the texts": Method(soda=True, anchor=1.0),
}
CHECKED = {
    "check alone": Method(check=CHECK_ALONE),
    "sum": Method(check="sum"),
    "product": Method(check="product"),
    "gate": Method(check="gate"),
    "gate, D on what passes": Method(check="gate", passing_only=True),
}
METHODS = {GAD: Method(), **MEMORY, **ROLLOUTS, **CHECKED}
MAIN = "small student"
# Of which regime which arms are run: memory where D can learn, the check in one. The quick ones come first.
ARMS = {
    "weak D": [SEQKD, SEQKD_ON, GAD, *ROLLOUTS, *MEMORY],
    "good student": [SEQKD, SEQKD_ON, GAD, *ROLLOUTS],
    "few texts": [SEQKD, SEQKD_ON, GAD, *ROLLOUTS],
    MAIN: [SEQKD, SEQKD_ON, *METHODS],
}
COUNTS = (1, 2, 4, 8)
EQUAL_ROWS, EQUAL_QUERIES = "equal prompts", "equal queries"


def texts_case(kind: str, count: int) -> Case:
    """The main regime with ``count`` teacher texts a prompt."""
    case = CASES[MAIN]
    texts = case.regime.texts * count if kind == EQUAL_ROWS else case.regime.texts
    return replace(case, regime=replace(case.regime, texts=texts), texts_per_prompt=count)


def run(case: Case, regime: str, arm: str, seed: int) -> dict[str, Any]:
    """One run; returns its row."""
    common = {"regime": regime, "arm": arm, "seed": seed}
    if arm == SEQKD:
        return common | start(case, seed).row
    if arm == SEQKD_ON:
        found = seqkd_goes_on(replace(case, equal_time=case.regime.adversarial), case.rate, seed)
        return common | {name: value for name, value in found.items() if name != "curve"}
    return common | train_method(case, METHODS[arm], seed)


def all_runs(seeds: Sequence[int]) -> list[Run]:
    """Regime by regime and in it seed by seed, so that an interrupted regime has the same seeds in every arm."""

    def one(case: Case, regime: str, arm: str, seed: int) -> Run:
        work: Callable[[], dict[str, Any]] = lambda: run(case, regime, arm, seed)  # noqa: E731
        return Run(f"{regime}/{arm}/seed={seed}", work)

    cases = {regime: (CASES[regime], arms) for regime, arms in ARMS.items()}
    for kind in (EQUAL_ROWS, EQUAL_QUERIES):
        # One text a prompt is the same in both.
        for count in COUNTS[kind == EQUAL_QUERIES :]:
            cases[f"{count} texts, {kind}"] = (texts_case(kind, count), [SEQKD, SEQKD_ON, GAD])
    return [one(case, name, arm, seed) for name, (case, arms) in cases.items() for seed in seeds for arm in arms]


# ------------------------------------------------------ tables ------------------------------------------------------


def of(rows: Sequence[Row], regime: str, arm: str, key: str) -> list[float]:
    """A figure of every seed that has it."""
    return [row[key] for row in rows if row["regime"] == regime and row["arm"] == arm and row.get(key) is not None]


def against(rows: Sequence[Row], regime: str, first: str, second: str, key: str = "valid") -> str:
    """Second arm less the first, seed by seed, in points; the number of seeds where they are few."""
    differences = paired_difference(
        [row for row in rows if row["regime"] == regime and row.get(key) is not None], first, second, key
    )
    return show(differences, 1, 100)


def _seeds(rows: Sequence[Row], regime: str, arm: str) -> str:
    return str(len(of(rows, regime, arm, "valid")))


def _run(lines: list[list[str]]) -> list[list[str]]:
    """Those of the lines, which end with a number of seeds, that have any."""
    return [line for line in lines if line[-1] != "0"]


def memory_table(rows: Sequence[Row]) -> str:
    heads = [
        "memory of D",
        "pairs that train D",
        "validity against GAD",
        "greedy",
        "D's accuracy on fresh pairs",
        "seeds",
    ]
    lines = []
    for regime in (MAIN, "weak D"):
        for arm in (GAD, *MEMORY):
            pairs = of(rows, regime, arm, "pairs")
            lines.append(
                [
                    f"{regime}: {arm}",
                    f"{sum(pairs) / len(pairs):.0f}" if pairs else "–",
                    show(of(rows, regime, arm, "valid"), 1, 100) + " %"
                    if arm == GAD
                    else against(rows, regime, GAD, arm),
                    "" if arm == GAD else against(rows, regime, GAD, arm, "greedy"),
                    show(of(rows, regime, arm, "accuracy"), 3),
                    _seeds(rows, regime, arm),
                ]
            )
    return table(heads, _run(lines))


def rollouts_table(rows: Sequence[Row]) -> str:
    regimes = sorted((regime for regime in ARMS if of(rows, regime, SODA, "valid")), key=lambda regime: regime != MAIN)
    lines = [["SeqKD, where all start, % valid", *(show(of(rows, r, SEQKD, "valid"), 1, 100) for r in regimes)]]
    for arm in (SEQKD_ON, GAD, *ROLLOUTS):
        lines.append([arm, *(against(rows, regime, SEQKD, arm) for regime in regimes)])
    lines.append(["D's accuracy on fresh pairs, GAD", *(show(of(rows, r, GAD, "accuracy"), 3) for r in regimes)])
    lines.append(["seconds: GAD", *(show(of(rows, r, GAD, "train_s"), 1) for r in regimes)])
    lines.append(["seconds: SODA", *(show(of(rows, r, SODA, "train_s"), 1) for r in regimes)])
    lines.append(["seeds", *(_seeds(rows, r, SODA) for r in regimes)])
    return table(["", *regimes], lines)


def check_table(rows: Sequence[Row]) -> str:
    heads = [
        "reward",
        "valid, %",
        "against D alone, paired",
        "pass the check, %",
        "pass and are not valid, %",
        "AUC, first 100 steps",
        "last 100",
        "seeds",
    ]
    lines = []
    for arm in (SEQKD_ON, GAD, *CHECKED):
        figures = [show(of(rows, MAIN, arm, key), 1, 100) for key in ("valid", "passes", "hacks")]
        figures.insert(1, "" if arm == GAD else against(rows, MAIN, GAD, arm))
        figures += [show(of(rows, MAIN, arm, key), 2) for key in ("auc_start", "auc")]
        lines.append(["D alone (GAD)" if arm == GAD else arm, *figures, _seeds(rows, MAIN, arm)])
    return table(heads, _run(lines))


def texts_table(rows: Sequence[Row]) -> str:
    lines = []
    for kind in (EQUAL_ROWS, EQUAL_QUERIES):
        for count in COUNTS:
            name = f"{count} texts, {EQUAL_ROWS if count == 1 else kind}"
            cells = [show(of(rows, name, arm, "valid"), 1, 100) for arm in (SEQKD, SEQKD_ON, GAD)]
            cells.append(against(rows, name, SEQKD_ON, GAD))
            lines.append([f"{count}, {kind}", *cells, _seeds(rows, name, GAD)])
    heads = ["texts a prompt", "SeqKD, % valid", "goes on", "GAD from there", "against SeqKD that goes on", "seeds"]
    return table(heads, _run(lines))


def tables(rows: Sequence[Row]) -> list[str]:
    seeds = sorted({row["seed"] for row in rows}) or [FIRST_SEED]
    hours = sum(row["cpu_s"] for row in rows) / 3600
    note = f"\nSeeds {seeds[0]} to {seeds[-1]}, {len(rows)} runs, {hours:.1f} hours of one core.\n"
    return [memory_table(rows), rollouts_table(rows), check_table(rows), texts_table(rows) + note]


if __name__ == "__main__":
    sys.exit(run_study(__doc__, NAME, 10, FIRST_SEED, all_runs))
