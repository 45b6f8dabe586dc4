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
"""Draw the curves of a run from the lines of verl's file logger (``trainer.logger=[console,file]``).

    python examples/quickstart/curves.py --log run.jsonl --output curves.png

Each line of the file is ``{"step": 12, "data": {"disc/accuracy": 0.81, ...}}``. A run that was resumed has several
files: give them in order, for a step in two of them the later one counts. Curves that the log does not hold are left
out. Thin lines are the steps, thick ones a moving mean, dots the validation on held-out prompts.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

logger = logging.getLogger("quickstart.curves")

STAGE_NAMES = {0: "D only", 1: "warmup", 2: "GAD", 3: "SeqKD"}
SUPERVISED_STAGES = (1, 3)
HEALTHY_ACCURACY = (0.70, 0.85)
SMOOTHED_FROM = 40  # fewer points are drawn as they are

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"

Steps = dict[int, dict[str, float]]


class CurvesError(RuntimeError):
    """There is nothing to draw; the message says why."""


@dataclass(frozen=True)
class Curve:
    """One line of a panel."""

    metric: str
    label: str
    color: str
    stages: tuple[int, ...] | None = None  # only the steps of these stages

    @property
    def is_validation(self) -> bool:
        """Validation is drawn as dots: it happens every few steps."""
        return self.metric.startswith("val-")


@dataclass(frozen=True)
class Panel:
    """One picture of several curves."""

    title: str
    curves: tuple[Curve, ...]
    level: float | None = None
    level_name: str = ""
    band: tuple[float, float] | None = None
    bounds: tuple[float, float] | None = None


PANELS = (
    Panel(
        "Discriminator: accuracy on fresh pairs",
        (Curve("disc/accuracy", "training", BLUE), Curve("val-gad/accuracy", "held out", ORANGE)),
        level=0.5,
        level_name="guessing",
        band=HEALTHY_ACCURACY,
        bounds=(0.0, 1.03),
    ),
    Panel("Discriminator: loss", (Curve("disc/loss", "training", BLUE),), level=math.log(2), level_name="ln 2"),
    Panel(
        "Margin: teacher's score - student's",
        (Curve("disc/margin_mean", "training", BLUE), Curve("val-gad/margin_mean", "held out", ORANGE)),
        level=0.0,
    ),
    Panel(
        "Scores",
        (Curve("disc/teacher_score_mean", "teacher", GREEN), Curve("disc/student_score_mean", "student", BLUE)),
    ),
    Panel(
        "Response length, student / teacher",
        (Curve("gad/length_ratio", "training", BLUE), Curve("val-gad/length_ratio", "held out", ORANGE)),
        level=1.0,
        level_name="as long as the teacher",
    ),
    Panel(
        "Finished responses",
        (
            Curve("gad/student_finished_rate", "training", BLUE),
            Curve("val-gad/student_finished_rate", "held out", ORANGE),
        ),
        bounds=(0.0, 1.03),
    ),
    Panel("Student: cross-entropy on the teacher's text", (Curve("actor/loss", "training", BLUE, SUPERVISED_STAGES),)),
    Panel("Student: KL to the reference", (Curve("actor/kl_loss", "training", BLUE, (2,)),), level=0.0),
    Panel("ROUGE-L F1 with the teacher", (Curve("val-gad/rouge_l", "held out", ORANGE),)),
)


def read_log(paths: Sequence[Path]) -> Steps:
    """The metrics of each step, in order; values that are no finite numbers and torn lines are left out."""
    steps: Steps = {}
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
                step, data = int(record["step"]), record["data"]
            except (ValueError, KeyError, TypeError):
                logger.warning("%s: a line is no record of verl's file logger, left out: %.60s", path, line)
                continue
            values = {
                name: float(value)
                for name, value in data.items()
                if isinstance(value, (int, float)) and math.isfinite(value)
            }
            steps.setdefault(step, {}).update(values)
    return dict(sorted(steps.items()))


def points(steps: Steps, curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a curve."""
    chosen = [
        (step, values[curve.metric])
        for step, values in steps.items()
        if curve.metric in values
        and (curve.stages is None or "gad/stage" not in values or values["gad/stage"] in curve.stages)
    ]
    x_y = np.asarray(chosen, dtype=float).reshape(-1, 2)
    return x_y[:, 0], x_y[:, 1]


def moving_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Mean over the ``window`` values around each one, over fewer at the ends."""
    sums = np.convolve(values, np.ones(window), mode="same")
    return sums / np.convolve(np.ones(len(values)), np.ones(window), mode="same")


def stage_changes(steps: Steps) -> list[tuple[float, str]]:
    """Where a stage begins, half a step before its first one, and its name; the first stage included."""
    changes: list[tuple[float, str]] = []
    before: int | None = None
    for step, values in steps.items():
        if "gad/stage" in values and (stage := int(values["gad/stage"])) != before:
            changes.append((step - 0.5, STAGE_NAMES.get(stage, str(stage))))
            before = stage
    return changes


def draw_panel(axes: Axes, panel: Panel, steps: Steps) -> None:
    """Draw one panel."""
    if panel.band:
        axes.axhspan(*panel.band, color=GREEN, alpha=0.15, linewidth=0, label="healthy, .70 to .85")
    if panel.level is not None:
        axes.axhline(panel.level, color=GREY, linewidth=1, linestyle=":", label=panel.level_name or None)
    for curve in panel.curves:
        x, y = points(steps, curve)
        if not len(x):
            continue
        if curve.is_validation:
            axes.plot(x, y, "o-", color=curve.color, markersize=4, linewidth=0.8, label=curve.label)
        elif len(x) < SMOOTHED_FROM:
            axes.plot(x, y, color=curve.color, linewidth=1.5, marker="." if len(x) < 3 else None, label=curve.label)
        else:
            axes.plot(x, y, color=curve.color, linewidth=0.7, alpha=0.35)
            axes.plot(x, moving_mean(y, max(5, len(x) // 20)), color=curve.color, linewidth=2, label=curve.label)
    if panel.bounds:
        axes.set_ylim(*panel.bounds)
    for position, (start, name) in enumerate(stage_changes(steps)):
        if position:
            axes.axvline(start, color=GREY, linewidth=1, linestyle="--")
        axes.annotate(
            name,
            (start, 0),
            xycoords=("data", "axes fraction"),
            xytext=(3, 3),
            textcoords="offset points",
            rotation=90,
            va="bottom",
            fontsize=7,
            color=GREY,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.5},
        )
    axes.set_title(panel.title, fontsize=10)
    axes.grid(alpha=0.2)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=7, framealpha=0.8)


def draw(steps: Steps) -> Figure:
    """Draw the panels for which the log holds something."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    panels = [panel for panel in PANELS if any(len(points(steps, curve)[0]) for curve in panel.curves)]
    if not panels:
        raise CurvesError("the log holds none of the metrics of GAD (disc/..., gad/..., val-gad/...)")
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure, grid = plt.subplots(lines, columns, figsize=(4.6 * columns, 3.1 * lines), squeeze=False, sharex=True)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, panel in zip(grid.flat, panels, strict=False):
        draw_panel(axes, panel, steps)
    for axes in grid.flat[max(0, len(panels) - columns) : len(panels)]:
        axes.set_xlabel("step")
        axes.tick_params(labelbottom=True)
    figure.tight_layout()
    return figure


def write_curves(logs: Sequence[Path], output: Path) -> None:
    """Read the logs and write the picture."""
    missing = [str(path) for path in logs if not path.exists()]
    if missing:
        raise CurvesError(f"no such log: {', '.join(missing)}")
    figure = draw(read_log(logs))
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=110)
    figure.clear()


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Draw the curves of a run.")
    parser.add_argument("--log", type=Path, nargs="+", required=True, help="files of verl's file logger, in order")
    parser.add_argument("--output", type=Path, required=True, help="PNG to write")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logger.setLevel(logging.INFO)
    try:
        write_curves(args.log, args.output)
    except CurvesError as error:
        logger.error("error: %s", error)
        return 1
    logger.info("wrote %s", args.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
