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
"""Panels as Bokeh figures. The page embeds them as JSON and gives them the colours of the reader's scheme."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from bokeh.models import BoxAnnotation, Range1d, Span

from gad_verl.tools.report.panels import Panel
from gad_verl.tools.report.plots import (
    HEIGHT,
    STUDENT_COLOR,
    TEACHER_COLOR,
    add_hover,
    as_item,
    color_of,
    color_of_run,
    dash_of,
    draw_bands,
    draw_line,
    empty_figure,
    evenly,
    mark_events,
    mark_stages,
    number,
    summarise,
)
from gad_verl.tools.report.runs import Run

_BAND_STEPS = 300
_LOG_SPREAD = 1e3


@dataclass(frozen=True)
class LegendEntry:
    """A line of the legend, which stands beside the figure as text."""

    label: str
    color: str | None
    dash: str = "solid"


@dataclass(frozen=True)
class Chart:
    """A figure and what stands around it."""

    key: str
    title: str
    item: dict[str, Any]
    height: int
    legend: list[LegendEntry]
    summary: list[str]
    note: str


def count_series(panels: Sequence[Panel], runs: Sequence[Run]) -> int:
    """How many lines the panels will hold."""
    return sum(len(run.get(curve.metric)) > 0 for run in runs for panel in panels for curve in panel.curves)


def draw_panel(key: str, panel: Panel, runs: Sequence[Run], limit: int) -> Chart | None:
    """One panel.

    Args:
        key: Unique on the page.
        panel: What to draw.
        runs: All runs of the page.
        limit: Largest number of points of a line.

    Returns:
        None if no run has anything of it.
    """
    drawn = [
        (number_of_run, number_of_curve, run, curve, series)
        for number_of_run, run in enumerate(runs)
        for number_of_curve, curve in enumerate(panel.curves)
        if len(series := run.in_stages(curve.metric, curve.stages))
    ]
    if not drawn:
        return None
    values = np.concatenate([series.values for *_, series in drawn])
    is_log = panel.may_be_log and bool(values.min() > 0) and values.max() / values.min() > _LOG_SPREAD
    plot = empty_figure(runs, y_axis_type="log" if is_log else "linear")
    if panel.bounds:
        plot.y_range = Range1d(*panel.bounds)
    elif values.min() == values.max():
        # By itself the axis would reach one unit to both sides, whatever the value.
        plot.y_range = Range1d(*sorted((0.0, 2 * float(values[0]))) if values[0] else (-1.0, 1.0))
    legend, summary, notes = [], [], [panel.note] if panel.note else []
    if panel.band:
        plot.add_layout(BoxAnnotation(bottom=panel.band[0], top=panel.band[1], fill_color="#1f9e77", fill_alpha=0.14))
        legend.append(LegendEntry(f"healthy, {panel.band[0]:.2f} to {panel.band[1]:.2f}", "#1f9e77", "band"))
    if panel.level is not None:
        plot.add_layout(
            Span(location=panel.level, dimension="width", line_dash="dotted", line_width=1.5, line_color="#808890")
        )
        if panel.level_name:
            legend.append(LegendEntry(panel.level_name, "#808890", "dotted"))
    several = len(runs) > 1
    thinned, lines = 0, []
    for number_of_run, number_of_curve, run, curve, series in drawn:
        color = color_of_run(number_of_run) if several else color_of(curve, number_of_curve)
        dash = dash_of(number_of_run, number_of_curve) if several else "solid"
        label = f"{run.name}: {curve.label}" if several else curve.label
        thinned = max(thinned, len(series) if len(series) > limit else 0)
        lines.append(draw_line(plot, run, curve, series, color, dash, label, limit))
        summary.append(summarise(label, series))
        if not several:
            legend.append(LegendEntry(label, color, "dot" if curve.sparse else "solid"))
    if several:
        shown = sorted({number_of_run for number_of_run, *_ in drawn})
        legend += [LegendEntry(runs[index].name, color_of_run(index), dash_of(index)) for index in shown]
        curves = sorted({index for _, index, *_ in drawn})
        if len(curves) > 1:
            # One line for each set of dashes that the runs have.
            for index in {dash_of(number): number for number in reversed(shown)}.values():
                legend += [LegendEntry(panel.curves[curve].label, None, dash_of(index, curve)) for curve in curves]
    add_hover(plot, lines)
    mark_stages(plot, runs)
    mark_events(plot, runs)
    if is_log:
        notes.append("Logarithmic axis.")
    if thinned:
        notes.append(f"Drawn: {limit} of {thinned} points.")
    return Chart(key, panel.title, as_item(plot), plot.height, legend, summary, " ".join(notes))


def draw_scores(key: str, run: Run, several: bool) -> Chart | None:
    """The spread of the scores of both sides, from the record.

    Args:
        key: Unique on the page.
        run: The run.
        several: Whether the page shows other runs, too.
    """
    plot = empty_figure([run], height=HEIGHT + 60)
    sides = (("teacher", TEACHER_COLOR), ("student", STUDENT_COLOR))
    chosen = evenly(run.scores, _BAND_STEPS)
    summary = []
    for side, color in sides:
        known = [line for line in chosen if None not in line[side]]
        if not known:
            continue
        steps = np.array([line["step"] for line in known], dtype=np.int32)
        levels = np.array([line[side] for line in known], dtype=np.float32)
        draw_bands(plot, side, steps, levels, color)
        summary.append(
            f"{side}: median {number(levels[-1, 3])} at step {steps[-1]}, nine tenths of the scores between "
            f"{number(levels[-1, 1])} and {number(levels[-1, 5])}"
        )
    if not summary:
        return None
    note = "Line: median. Bands, from dark to light: half, nine tenths, and all of the scores of a step."
    if len(chosen) < len(run.scores):
        note += f" Drawn: {len(chosen)} of {len(run.scores)} steps, evenly chosen."
    mark_stages(plot, [run])
    mark_events(plot, [run])
    title = f"{run.name}: scores" if several else "Scores of both sides"
    legend = [LegendEntry(side, color) for side, color in sides]
    return Chart(key, title, as_item(plot), plot.height, legend, summary, note)
