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
"""Methods side by side over several seeds: each seed's difference is one number, and the interval is over these.

An interval over the prompts of one run says how sure the figure of that run is. It says nothing about what another
seed would have given, and of adversarial training seeds differ by more than prompts do. Here the evaluations of the
i-th seed of every method are compared over the same prompts (of a judge's figures those that could be read in both),
and the differences of the seeds are what is averaged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gad_verl.core import intervals
from gad_verl.core.intervals import Estimate
from gad_verl.errors import GadConfigError
from gad_verl.tools.evaluation.comparability import notes_of
from gad_verl.tools.evaluation.comparison import COLUMNS, difference_limits_of, figures_of, limits_of
from gad_verl.tools.evaluation.pairing import named, on_common_prompts, on_readable_prompts, paired
from gad_verl.tools.evaluation.report import cell, show
from gad_verl.tools.evaluation.results import Evaluation, read_evaluation


@dataclass(frozen=True)
class SeedComparison:
    """Figures of methods over seeds.

    Args:
        methods: Names, in the order given.
        seeds: Number of seeds.
        figures: Method to figure to mean over the seeds, with its interval.
        differences: Method (but the first) to figure to paired difference to the first.
        of_seeds: Method to figure to the difference of each seed.
        notes: What makes figures less comparable.
    """

    methods: list[str]
    seeds: int
    figures: dict[str, dict[str, Estimate]]
    differences: dict[str, dict[str, Estimate]]
    of_seeds: dict[str, dict[str, list[float]]]
    notes: list[str] = field(default_factory=list)


def _over_seeds(values: Sequence[float], low: float, high: float) -> Estimate:
    mean = sum(values) / len(values)
    return intervals.student(mean, [value - mean for value in values]).widened(1, low, high)


def _values(evaluation: Evaluation) -> dict[str, float]:
    return {name: estimate.value for name, estimate in figures_of(evaluation).items()}


def compare_seeds(methods: Mapping[str, Sequence[str | Path]]) -> SeedComparison:
    """Read and pair.

    Args:
        methods: Name to folders of ``gad-verl evaluate``, the i-th of each for the i-th seed; differences are to the
            first method.

    Raises:
        GadConfigError: If there are fewer than two methods, they have different numbers of seeds, or a folder is named
            twice.
        GadDataError: If a folder has no results, or the folders share no prompt.
    """
    counts = {name: len(folders) for name, folders in methods.items()}
    if len(methods) < 2 or len(set(counts.values())) > 1 or 0 in counts.values():
        said = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise GadConfigError(
            f"a comparison over seeds needs two methods or more with the same seeds; got {said or 'none'}: name the "
            "folders of the seeds in the same order with each --method"
        )
    seeds = next(iter(counts.values()))
    flat = named([read_evaluation(folder) for folders in methods.values() for folder in folders])
    flat, notes = on_common_prompts(flat)
    notes += notes_of(flat)
    found = [_values(evaluation) for evaluation in flat]
    rows = {name: found[number * seeds : (number + 1) * seeds] for number, name in enumerate(methods)}
    first, *others = methods
    # A seed's difference is over the prompts in which both of its folders have the figure.
    folders = {
        name: list(zip(flat[:seeds], flat[number * seeds : (number + 1) * seeds], strict=True))
        for number, name in enumerate(others, start=1)
    }
    pairs = {name: [[_values(one) for one in paired(*both)] for both in of] for name, of in folders.items()}
    if any(on_readable_prompts(both)[1] for of in folders.values() for both in of):
        notes.append(
            "The judge's replies can be read of other prompts in each folder: a seed's differences are over those that "
            "can be read in both of its folders, a method's own figures over all that can be read."
        )
    every = [*found, *(row for of in pairs.values() for both in of for row in both)]
    shared = [key for key, _, _ in COLUMNS if all(key in row for row in every)]
    missing = [title for key, title, _ in COLUMNS if key not in shared and any(key in row for row in found)]
    if missing:
        notes.append(f"Not every folder has these figures, so they are left out: {', '.join(missing)}.")
    values = {name: {key: [row[key] for row in some] for key in shared} for name, some in rows.items()}
    of_seeds = {name: {key: [b[key] - a[key] for a, b in of] for key in shared} for name, of in pairs.items()}
    if seeds < 2:
        notes.append("One seed has no interval over seeds.")
    return SeedComparison(
        methods=list(methods),
        seeds=seeds,
        figures={
            name: {key: _over_seeds(some, *limits_of(key)) for key, some in of.items()} for name, of in values.items()
        },
        differences={
            name: {key: _over_seeds(some, *difference_limits_of(key)) for key, some in of.items()}
            for name, of in of_seeds.items()
        },
        of_seeds=of_seeds,
        notes=notes,
    )


def render_seeds(comparison: SeedComparison) -> str:
    """The comparison as Markdown."""
    first = comparison.methods[0]
    shown = [column for column in COLUMNS if column[0] in comparison.figures[first] and "ngram" not in column[0]]

    def table(rows: Mapping[str, Mapping[str, Estimate]], marks: bool) -> list[str]:
        lines = ["| | " + " | ".join(title for _, title, _ in shown) + " |", "|---" * (len(shown) + 1) + "|"]
        for name, row in rows.items():
            cells = []
            for key, _, digits in shown:
                sure = marks and comparison.seeds > 1 and not row[key].covers(0)
                cells.append(show(row[key], digits) + ("*" if sure else ""))
            lines.append(f"| {cell(name)} | " + " | ".join(cells) + " |")
        return lines

    lines = [f"{comparison.seeds} seeds; in brackets 95 % intervals over the seeds (Student's t).", ""]
    lines += table(comparison.figures, False)
    lines += ["", f"Paired differences to {first}, seed by seed; * where the interval leaves 0 out:", ""]
    lines += table(comparison.differences, True)
    if comparison.notes:
        lines += ["", *(f"- {note}" for note in comparison.notes)]
    return "\n".join(lines) + "\n"
