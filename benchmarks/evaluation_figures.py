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
"""How true the evaluation's figures are: coverage of the intervals, and errors of the win rate at equal length.

    python benchmarks/evaluation_figures.py coverage                 # docs/evaluation.md, "Intervals"; two minutes
    python benchmarks/evaluation_figures.py length-control FILE      # the same, "The win rate at equal length"

FILE is JSON: a list of ``{"model", "published_win_rate", "published_lc_win_rate", "rows"}``; a row is the preference
for the model, its text's characters and its opponent's. AlpacaEval's repository has them
(``results/*/annotations.json``).
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gad_verl.core import intervals
from gad_verl.tools.evaluation import preferences
from gad_verl.tools.evaluation.length_control import length_controlled_win_rate, refusal

SAMPLES = 4000
COUNTS = (16, 32, 64, 128)
BANDS = ((0.0, 0.4), (0.4, 0.7), (0.7, 1.5), (1.5, np.inf))

Columns = tuple[np.ndarray, ...]
Draw = Callable[[np.random.Generator, int], Columns]


def _events(*chances: float) -> Draw:
    """Wins, ties and losses."""
    return lambda rng, n: (rng.choice([1, 0.5, 0], n, p=[*chances, 1 - sum(chances)]),)


def _changes(more: float, less: float) -> Draw:
    return lambda rng, n: (np.zeros(n), rng.choice([1.0, -1.0, 0.0], n, p=[more, less, 1 - more - less]))


def _lengths(rng: np.random.Generator, n: int) -> Columns:
    common = rng.normal(size=n)
    return tuple(np.exp(0.6 * (0.7 * common + 0.714 * rng.normal(size=n))) for _ in range(2))


def _events_difference(*columns: np.ndarray) -> intervals.Estimate:
    return intervals.difference(*columns, unit=1.0)


def _win_rate(outcomes: np.ndarray) -> intervals.Estimate:
    rate = preferences.win_rate(outcomes)
    return intervals.Estimate(rate.value / 100, rate.low / 100, rate.high / 100)


# What is drawn, the truth, the interval, and the figure as a function of the columns' means (for the bootstrap).
CASES: dict[str, tuple[Draw, float, Callable[..., intervals.Estimate], Callable[..., np.ndarray]]] = {
    "mean, normal": (lambda rng, n: (rng.normal(size=n),), 0.0, intervals.mean, lambda mean: mean),
    "mean, exponential": (lambda rng, n: (rng.exponential(size=n),), 1.0, intervals.mean, lambda mean: mean),
    "overlap, beta(2, 5)": (lambda rng, n: (rng.beta(2, 5, n),), 2 / 7, intervals.bounded_mean, lambda mean: mean),
    "3 % wins": (_events(0.03, 0.0), 0.03, _win_rate, lambda mean: mean),
    "10 % wins": (_events(0.1, 0.0), 0.1, _win_rate, lambda mean: mean),
    "5 % wins, 20 % ties": (_events(0.05, 0.2), 0.15, _win_rate, lambda mean: mean),
    "3 % wins, 97 % ties": (_events(0.03, 0.97), 0.515, _win_rate, lambda mean: mean),
    "5 % wins, 94 % ties": (_events(0.05, 0.94), 0.52, _win_rate, lambda mean: mean),
    "50 % wins": (_events(0.5, 0.0), 0.5, _win_rate, lambda mean: mean),
    "length ratio": (_lengths, 1.0, intervals.ratio, lambda one, other: one / other),
    "difference, 5 % and 3 % change": (_changes(0.05, 0.03), 0.02, _events_difference, lambda one, other: other - one),
    "difference, 20 % and 10 % change": (_changes(0.2, 0.1), 0.1, _events_difference, lambda one, other: other - one),
}


def coverage() -> list[str]:
    """A Markdown table: of the percentile bootstrap and of what is used, per number of prompts, in percent."""
    lines = ["| figure | " + " | ".join(f"{count} prompts" for count in COUNTS) + " |"]
    lines.append("|---" * (len(COUNTS) + 1) + "|")
    for name, (draw, truth, interval, figure) in CASES.items():
        cells = []
        for count in COUNTS:
            rng = np.random.default_rng(count)
            weights = rng.multinomial(count, np.full(count, 1 / count), size=1000) / count
            found = [[0, 0] for _ in range(SAMPLES)]
            for sample in found:
                columns = draw(rng, count)
                low, high = np.quantile(figure(*(weights @ column for column in columns)), [0.025, 0.975])
                sample[:] = [low <= truth <= high, interval(*columns).covers(truth)]
            cells.append("{:.1f}, **{:.1f}**".format(*(100 * np.mean(found, axis=0))))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def length_control(path: Path) -> list[str]:
    """A Markdown table: errors against the published values, per band of the ratio of lengths."""
    found = []
    for model in json.loads(path.read_text(encoding="utf-8")):
        outcome, mine, theirs = np.array(model["rows"], dtype=float).T
        estimate, published = length_controlled_win_rate(outcome, mine, theirs), model["published_lc_win_rate"]
        shown = refusal(mine, theirs) is None
        found.append((mine.mean() / theirs.mean(), estimate.value - published, estimate.covers(published), shown))
    table = np.array(found, dtype=float)
    lines = ["| ratio of lengths | models | shown | mean error | mean absolute | largest | covered |", "|---" * 7 + "|"]
    for low, high in BANDS:
        chosen = table[(table[:, 0] >= low) & (table[:, 0] < high)]
        if len(chosen):
            error = chosen[:, 1]
            figures = f"{error.mean():+.1f} | {np.abs(error).mean():.1f} | {np.abs(error).max():.1f}"
            shown, covered = int(chosen[:, 3].sum()), int(chosen[:, 2].sum())
            lines.append(f"| {low:g} to {high:g} | {len(chosen)} | {shown} | {figures} | {covered} |")
    return lines


def main() -> None:
    """Print the table that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    commands.add_parser("coverage")
    commands.add_parser("length-control").add_argument("file", type=Path)
    arguments = parser.parse_args()
    lines = coverage() if arguments.what == "coverage" else length_control(arguments.file)
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
