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
from bokeh import __version__ as bokeh_version
from bokeh.document import Document
from bokeh.models import BoxAnnotation, ColumnDataSource, DataRange1d, HoverTool, Label, Range1d, Span
from bokeh.plotting import figure

from gad_verl.record import QUANTILE_LEVELS
from gad_verl.tools.report.panels import Curve, Panel
from gad_verl.tools.report.runs import Run, Series
from gad_verl.tools.report.series import smooth, thin

# Readable on white and on black; no two differ by red and green alone.
COLORS = ("#2f7fc1", "#d9731a", "#1f9e77", "#a06fd6", "#c2517a", "#8a8a2b", "#4aa3b8", "#b07a3c")
TEACHER_COLOR, STUDENT_COLOR = COLORS[2], COLORS[0]
DASHES = ("solid", "dashed", "dotted", "dotdash")
EVENT_MARKERS = {"warn": "triangle", "adapt": "diamond", "stop": "x", "info": "circle"}
EVENT_COLORS = {"warn": "#d9731a", "adapt": "#a06fd6", "stop": "#d03b3b", "info": "#808890"}

_HEIGHT = 230
_SMOOTH_POINTS = 200
_BAND_STEPS = 300
_BARS = 120
_MARKED_EVENTS = 150
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


def number(value: float) -> str:
    """A number for people, four digits."""
    return f"{value:.4g}"


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
    plot = _figure(runs, y_axis_type="log" if is_log else "linear")
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
        color = COLORS[number_of_run % len(COLORS)] if several else _color(curve, number_of_curve)
        dash = DASHES[number_of_curve % len(DASHES)] if several else "solid"
        label = f"{run.name}: {curve.label}" if several else curve.label
        thinned = max(thinned, len(series) if len(series) > limit else 0)
        lines.append(_draw_line(plot, run, curve, series, color, dash, label, limit))
        summary.append(_summary(label, series))
        if not several:
            legend.append(LegendEntry(label, color, "dot" if curve.sparse else "solid"))
    if several:
        shown = sorted({number_of_run for number_of_run, *_ in drawn})
        legend += [LegendEntry(runs[index].name, COLORS[index % len(COLORS)]) for index in shown]
        curves = sorted({index for _, index, *_ in drawn})
        if len(curves) > 1:
            legend += [LegendEntry(panel.curves[index].label, None, DASHES[index % len(DASHES)]) for index in curves]
    _hover(plot, lines)
    _mark_stages(plot, runs)
    _mark_events(plot, runs)
    if is_log:
        notes.append("Logarithmic axis.")
    if thinned:
        notes.append(f"Drawn: {limit} of {thinned} points.")
    return Chart(key, panel.title, _item(plot), plot.height, legend, summary, " ".join(notes))


def draw_scores(key: str, run: Run, several: bool) -> Chart | None:
    """The spread of the scores of both sides: from the record, or from the metrics where there is no record.

    Args:
        key: Unique on the page.
        run: The run.
        several: Whether the page shows other runs, too.
    """
    title = f"{run.name}: scores" if several else "Scores of both sides"
    lines = [line for line in run.scores if line.get("levels") == list(QUANTILE_LEVELS)]
    plot = _figure([run], height=_HEIGHT + 60)
    legend = [LegendEntry("teacher", TEACHER_COLOR), LegendEntry("student", STUDENT_COLOR)]
    summary = []
    sides = (("teacher", TEACHER_COLOR), ("student", STUDENT_COLOR))
    if lines:
        chosen = _evenly(lines, _BAND_STEPS)
        for side, color in sides:
            known = [line for line in chosen if line[side] and all(value is not None for value in line[side])]
            if not known:
                continue
            steps = np.array([line["step"] for line in known], dtype=np.int32)
            levels = np.array([line[side] for line in known], dtype=np.float32)
            _draw_bands(plot, side, steps, levels, color)
            summary.append(
                f"{side}: median {number(levels[-1, 3])} at step {steps[-1]}, nine tenths of the scores between "
                f"{number(levels[-1, 1])} and {number(levels[-1, 5])}"
            )
        note = "Line: median. Bands, from dark to light: half, nine tenths, and all of the scores of a step."
        if len(chosen) < len(lines):
            note += f" Drawn: {len(chosen)} of {len(lines)} steps, evenly chosen."
    else:
        means = []
        for side, color in sides:
            mean, std = run.get(f"disc/{side}_score_mean"), run.get(f"disc/{side}_score_std")
            if not len(mean):
                continue
            parts = {"mean": mean, "low": run.get(f"disc/{side}_score_lowest")}
            parts["high"] = run.get(f"disc/{side}_score_highest")
            if len(std) == len(mean):
                steps = mean.steps
                chosen_steps = _evenly(list(range(len(steps))), _BAND_STEPS)
                source = ColumnDataSource(
                    {
                        "x": steps[chosen_steps].astype(np.int32),
                        "low": (mean.values - std.values)[chosen_steps].astype(np.float32),
                        "high": (mean.values + std.values)[chosen_steps].astype(np.float32),
                    }
                )
                plot.varea("x", "low", "high", source=source, fill_color=color, fill_alpha=0.22)
            for name, series in parts.items():
                if len(series):
                    source = _source(thin(series, _BAND_STEPS))
                    line = plot.line("x", "y", source=source, line_color=color, line_width=2 if name == "mean" else 0.7)
                    if name == "mean":
                        line.name = f"{side}, mean"
                        means.append(line)
            summary.append(_summary(f"{side}, mean", mean))
        if not summary:
            return None
        note = (
            "Line: mean. Band: one standard deviation. Thin lines: lowest and highest. There is no record of quantiles."
        )
    if not summary:
        return None
    _mark_stages(plot, [run])
    _mark_events(plot, [run])
    return Chart(key, title, _item(plot), plot.height, legend, summary, note)


def draw_times(key: str, run: Run, several: bool) -> Chart | None:
    """Seconds of a step by stage, stacked; many steps are averaged in groups.

    Args:
        key: Unique on the page.
        run: The run.
        several: Whether the page shows other runs, too.
    """
    prefix = "timing_s/"
    whole = run.get(f"{prefix}step")
    names = [
        name for name in run.metrics if name.startswith(prefix) and name.count("/") == 1 and name != f"{prefix}step"
    ]
    if not len(whole) or not names:
        return None
    names.sort(key=lambda name: -float(run.get(name).values.sum()))
    names = [name for name in names if run.get(name).values.sum() > 0.002 * whole.values.sum()][: len(COLORS) - 1]
    steps = whole.steps
    groups = np.array_split(np.arange(len(steps)), min(_BARS, len(steps)))
    columns: dict[str, np.ndarray] = {}
    for name in names:
        dense = np.zeros(len(steps))
        series = run.get(name)
        found = np.searchsorted(steps, series.steps)
        hit = (found < len(steps)) & (steps[np.minimum(found, len(steps) - 1)] == series.steps)
        dense[found[hit]] = series.values[hit]
        columns[name.removeprefix(prefix)] = np.array([dense[group].mean() for group in groups], dtype=np.float32)
    named = sum(columns.values())
    rest = np.array([whole.values[group].mean() for group in groups]) - named
    # Validation and saving may lie outside of what verl calls a step.
    columns["other"] = np.maximum(rest, 0).astype(np.float32)
    left = np.array([steps[group[0]] for group in groups]) - 0.5
    right = np.array([steps[group[-1]] for group in groups]) + 0.5
    plot = _figure([run], height=_HEIGHT + 40)
    plot.y_range.start = 0
    source = ColumnDataSource(
        {"x": ((left + right) / 2).astype(np.float32), "width": ((right - left) * 0.92).astype(np.float32), **columns}
    )
    colors = [*COLORS[: len(columns) - 1], "#9aa0a6"]
    bars = plot.vbar_stack(list(columns), x="x", width="width", fill_color=colors, line_color=None, source=source)
    plot.add_tools(
        HoverTool(
            renderers=[bars[-1]],
            mode="vline",
            visible=False,
            tooltips=[("step", "@x{0}"), *((name, f"@{{{name}}}{{0.0}} s") for name in columns)],
        )
    )
    total = sum(float(column.mean()) for column in columns.values()) or 1.0
    summary = [
        f"{name}: {number(float(column.mean()))} s a step, {float(column.mean()) / total:.0%}"
        for name, column in columns.items()
    ]
    note = "Seconds of a step, by verl's timers; other: the step less the named parts."
    if len(groups) < len(steps):
        note += f" A bar is the mean of about {round(len(steps) / len(groups))} steps."
    legend = [LegendEntry(name, color, "band") for name, color in zip(columns, colors, strict=True)]
    title = f"{run.name}: time of a step" if several else "Time of a step"
    return Chart(key, title, _item(plot), plot.height, legend, summary, note)


def draw_events(key: str, runs: Sequence[Run]) -> Chart | None:
    """Every event on the axis of time, one line for each source."""
    events = [(run, event) for run in runs for event in run.events]
    if not events:
        return None
    several = len(runs) > 1

    def line_of(run: Run, event: dict[str, Any]) -> str:
        source = str(event.get("source", "?"))[:24]
        return f"{run.name}: {source}" if several else source

    lines = list(dict.fromkeys(line_of(run, event) for run, event in events))
    plot = _figure(runs, height=90 + 26 * len(lines), y_range=lines[::-1])
    for action, marker in EVENT_MARKERS.items():
        of_action = [(run, event) for run, event in events if event.get("action") == action]
        if not of_action:
            continue
        chosen = _evenly(of_action, 4 * _MARKED_EVENTS)
        _event_marks(plot, chosen, [line_of(run, event) for run, event in chosen], action, marker, size=10)
    _mark_stages(plot, runs)
    legend = [
        LegendEntry(action, EVENT_COLORS[action], f"marker-{action}")
        for action in EVENT_MARKERS
        if any(event.get("action") == action for _, event in events)
    ]
    summary = [f"{line}: {sum(line_of(run, event) == line for run, event in events)} events" for line in lines]
    return Chart(
        key,
        "Events over the steps",
        _item(plot),
        plot.height,
        legend,
        summary,
        "Touch or point at a mark to read it.",
    )


def empty_lines(runs: Sequence[Run]) -> dict[str, Any]:
    """A figure of one empty line per run, sources named ``line-0`` and so on, which the page fills with any metric."""
    plot = _figure(runs, height=_HEIGHT + 60)
    lines = []
    for index, run in enumerate(runs):
        source = ColumnDataSource({"x": [], "y": []}, name=f"line-{index}")
        line = plot.line("x", "y", source=source, line_color=COLORS[index % len(COLORS)], line_width=1.6)
        line.name = run.name
        lines.append(line)
        plot.scatter("x", "y", source=source, color=COLORS[index % len(COLORS)], size=3)
    _hover(plot, lines)
    return _item(plot)


# --------------------------------------------------------------------------------------------------------------- parts


def _color(curve: Curve, number_of_curve: int) -> str:
    if curve.side is not None:
        return TEACHER_COLOR if curve.side == "teacher" else STUDENT_COLOR
    # Held-out figures, the only sparse ones, are orange; the first training curve is blue.
    return COLORS[1 if curve.sparse and number_of_curve else number_of_curve % len(COLORS)]


def _figure(runs: Sequence[Run], height: int = _HEIGHT, **arguments: Any) -> Any:
    """An empty figure; all figures of a page have the same axis of steps."""
    last = max((run.last_step for run in runs), default=0)
    plot = figure(
        height=height,
        x_range=Range1d(-0.02 * max(last, 10), 1.02 * max(last, 10)),
        sizing_mode="stretch_width",
        tools="xbox_zoom,xpan,reset",
        active_drag=None,
        toolbar_location="right",
        min_border_left=48,
        min_border_right=8,
        **arguments,
    )
    plot.toolbar.logo = None
    plot.toolbar.autohide = True
    plot.xaxis.axis_label = "step"
    for axis in (plot.xaxis, plot.yaxis):
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = "11px"
        axis.major_label_text_font_size = "11px"
    return plot


def _item(plot: Any) -> dict[str, Any]:
    """What BokehJS's ``embed_item`` takes. ``bokeh.embed.json_item`` makes the same in twice the time."""
    document = Document()
    document.add_root(plot)
    return {"target_id": None, "root_id": plot.id, "doc": document.to_json(deferred=False), "version": bokeh_version}


def _source(series: Series) -> ColumnDataSource:
    limit = np.finfo(np.float32).max
    return ColumnDataSource(
        {"x": series.steps.astype(np.int32), "y": np.clip(series.values, -limit, limit).astype(np.float32)}
    )


def _draw_line(plot: Any, run: Run, curve: Curve, series: Series, color: str, dash: str, label: str, limit: int) -> Any:
    source = _source(thin(series, limit))
    smoothed = None if curve.sparse else smooth(run, series, _SMOOTH_POINTS)
    style = {"line_color": color, "line_dash": dash}
    if curve.sparse or len(series) < 3:
        plot.scatter("x", "y", source=source, color=color, size=6)
    if smoothed is not None:
        line = plot.line("x", "y", source=source, line_color=color, line_width=0.8, line_alpha=0.4)
        plot.line("x", "y", source=_source(smoothed), line_width=2.2, **style)
    else:
        line = plot.line("x", "y", source=source, line_width=1.1 if curve.sparse else 1.8, **style)
    line.name = label
    return line


def _hover(plot: Any, lines: Sequence[Any]) -> None:
    """Say name, value and step of the nearest point of each line; a line's name is that of its renderer."""
    plot.add_tools(
        HoverTool(
            renderers=list(lines),
            mode="vline",
            visible=False,
            tooltips=[("$name", "@y{%0.4g} at step @x")],
            formatters={"@y": "printf"},
        )
    )


def _draw_bands(plot: Any, side: str, steps: np.ndarray, levels: np.ndarray, color: str) -> None:
    columns = {f"q{index}": levels[:, index] for index in range(levels.shape[1])}
    source = ColumnDataSource({"x": steps, **columns})
    for low, high, alpha in (("q0", "q6", 0.08), ("q1", "q5", 0.14), ("q2", "q4", 0.26)):
        plot.varea("x", low, high, source=source, fill_color=color, fill_alpha=alpha)
    line = plot.line("x", "q3", source=source, line_color=color, line_width=2)
    if len(steps) < 3:
        plot.scatter("x", "q3", source=source, color=color, size=6)
    plot.add_tools(
        HoverTool(
            renderers=[line],
            mode="vline",
            visible=False,
            tooltips=[
                ("step", "@x"),
                (f"{side}, median", "@q3{0.000}"),
                ("half", "@q2{0.000} to @q4{0.000}"),
                ("nine tenths", "@q1{0.000} to @q5{0.000}"),
            ],
        )
    )


def _mark_stages(plot: Any, runs: Sequence[Run]) -> None:
    """A dashed line where a stage begins; its name is written for one run, and once where all runs agree."""
    changes = [tuple((span.first - 0.5, span.name) for span in run.spans[1:]) for run in runs]
    for index, of_run in enumerate(changes):
        if of_run in changes[:index]:
            continue
        color = "#808890" if len(set(changes)) == 1 else COLORS[index % len(COLORS)]
        for start, name in of_run:
            plot.add_layout(
                Span(location=start, dimension="height", line_dash="dashed", line_width=1, line_color=color)
            )
            plot.add_layout(
                Label(
                    x=start,
                    y=2,
                    y_units="screen",
                    x_offset=3,
                    text=name,
                    text_font_size="10px",
                    text_color=color,
                    angle=90,
                    angle_units="deg",
                    x_units="data",
                    y_offset=2,
                    text_baseline="top",
                )
            )


def _mark_events(plot: Any, runs: Sequence[Run]) -> None:
    """Marks at the lower edge: warnings, adaptations and stops."""
    events = [(run, event) for run in runs for event in run.events if event.get("action") in ("warn", "adapt", "stop")]
    if not events:
        return
    if isinstance(plot.y_range, DataRange1d):
        plot.y_range.renderers = list(plot.renderers)
    plot.extra_y_ranges = {"events": Range1d(0, 1)}
    for action in ("warn", "adapt", "stop"):
        of_action = _evenly([pair for pair in events if pair[1].get("action") == action], _MARKED_EVENTS)
        if of_action:
            heights = [0.03] * len(of_action)
            _event_marks(plot, of_action, heights, action, EVENT_MARKERS[action], size=7, y_range_name="events")


def _event_marks(
    plot: Any,
    events: Sequence[tuple[Run, dict[str, Any]]],
    heights: Sequence[Any],
    action: str,
    marker: str,
    size: int,
    **arguments: Any,
) -> None:
    source = ColumnDataSource(
        {
            "x": [event["step"] for _, event in events],
            "y": list(heights),
            "rule": [f"{run.name}, {event.get('rule', '')}" for run, event in events],
            "text": [str(event.get("text", ""))[:300] for _, event in events],
        }
    )
    marks = plot.scatter(
        "x", "y", source=source, marker=marker, size=size, color=EVENT_COLORS[action], line_width=2, **arguments
    )
    tooltips = [("step", "@x"), (action, "@rule"), ("", "@text")]
    plot.add_tools(HoverTool(renderers=[marks], visible=False, tooltips=tooltips))


def _summary(label: str, series: Series) -> str:
    low, high = series.values.min(), series.values.max()
    return (
        f"{label}: {number(series.values[-1])} at step {int(series.steps[-1])}, between {number(low)} and "
        f"{number(high)} over {len(series)} {'steps' if len(series) > 1 else 'step'}"
    )


def _evenly(items: Sequence[Any], limit: int) -> list[Any]:
    """At most ``limit`` items, evenly chosen, the first and the last among them."""
    if len(items) <= limit:
        return list(items)
    return [items[index] for index in np.unique(np.linspace(0, len(items) - 1, limit).round().astype(int))]
