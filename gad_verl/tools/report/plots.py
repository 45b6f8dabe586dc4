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
"""What the figures of the page share: colours, axes, lines, marks of stages and events."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from bokeh import __version__ as bokeh_version
from bokeh.document import Document
from bokeh.models import ColumnDataSource, DataRange1d, HoverTool, Label, LinearScale, Range1d, Span
from bokeh.plotting import figure

from gad_verl.tools.report.lines import Series
from gad_verl.tools.report.panels import Curve
from gad_verl.tools.report.runs import Run
from gad_verl.tools.report.series import smooth, thin

# Readable on white and on black; no two differ by red and green alone.
COLORS = ("#2f7fc1", "#d9731a", "#1f9e77", "#a06fd6", "#c2517a", "#8a8a2b", "#4aa3b8", "#b07a3c")
TEACHER_COLOR, STUDENT_COLOR = COLORS[2], COLORS[0]
# Names are those of Bokeh and of the page's styles; the lengths are lines and gaps in pixels.
DASHES = ("solid", "dashed", "dotted", "dotdash")
MORE_DASHES = ("long", "longdot", "double", "loose")
_PATTERNS = {"long": [14, 4], "longdot": [14, 4, 2, 4], "double": [8, 3, 8, 8], "loose": [3, 7]}
EVENT_MARKERS = {"warn": "triangle", "adapt": "diamond", "stop": "x"}
EVENT_COLORS = {"warn": "#d9731a", "adapt": "#a06fd6", "stop": "#d03b3b"}

HEIGHT = 230
_SMOOTH_POINTS = 200
MARKED_EVENTS = 150


def number(value: float) -> str:
    """A number for people, four digits."""
    return f"{value:.4g}"


def color_of_run(number_of_run: int) -> str:
    """Of a run among several."""
    return COLORS[number_of_run % len(COLORS)]


def dash_of(number_of_run: int, number_of_curve: int = 0) -> str:
    """Dash of a curve of a run among several: runs that share a colour have other dashes."""
    is_repeated = number_of_run // len(COLORS) % 2
    return (MORE_DASHES if is_repeated else DASHES)[number_of_curve % len(DASHES)]


def color_of(curve: Curve, number_of_curve: int) -> str:
    if curve.side is not None:
        return TEACHER_COLOR if curve.side == "teacher" else STUDENT_COLOR
    # Held-out figures, the only sparse ones, are orange; the first training curve is blue.
    return COLORS[1 if curve.sparse and number_of_curve else number_of_curve % len(COLORS)]


def empty_figure(runs: Sequence[Run], height: int = HEIGHT, **arguments: Any) -> Any:
    """An empty figure; all figures of a page have the same axis of steps."""
    last = max((run.reach for run in runs), default=0)
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


def as_item(plot: Any) -> dict[str, Any]:
    """What BokehJS's ``embed_item`` takes. ``bokeh.embed.json_item`` makes the same in twice the time."""
    document = Document()
    document.add_root(plot)
    return {"target_id": None, "root_id": plot.id, "doc": document.to_json(deferred=False), "version": bokeh_version}


def source_of(series: Series) -> ColumnDataSource:
    limit = np.finfo(np.float32).max
    return ColumnDataSource(
        {"x": series.steps.astype(np.int32), "y": np.clip(series.values, -limit, limit).astype(np.float32)}
    )


def draw_line(plot: Any, run: Run, curve: Curve, series: Series, color: str, dash: str, label: str, limit: int) -> Any:
    source = source_of(thin(series, limit))
    smoothed = None if curve.sparse else smooth(run, series, _SMOOTH_POINTS)
    style = {"line_color": color, "line_dash": _PATTERNS.get(dash, dash)}
    if curve.sparse or len(series) < 3:
        plot.scatter("x", "y", source=source, color=color, size=6)
    if smoothed is not None:
        line = plot.line("x", "y", source=source, line_color=color, line_width=0.8, line_alpha=0.4)
        plot.line("x", "y", source=source_of(smoothed), line_width=2.2, **style)
    else:
        line = plot.line("x", "y", source=source, line_width=1.1 if curve.sparse else 1.8, **style)
    line.name = label
    return line


def add_hover(plot: Any, lines: Sequence[Any]) -> None:
    """Say name, value and step of the nearest point of each line; a line's name is that of its renderer.

    BokehJS fills in placeholders in the value of a tooltip alone, not in its label.
    """
    plot.add_tools(
        HoverTool(
            renderers=list(lines),
            mode="vline",
            visible=False,
            tooltips=[("", "$name: @y{%0.4g} at step @x")],
            formatters={"@y": "printf"},
        )
    )


def draw_bands(plot: Any, side: str, steps: np.ndarray, levels: np.ndarray, color: str) -> None:
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


def mark_stages(plot: Any, runs: Sequence[Run]) -> None:
    """A dashed line where a stage begins; its name is written for one run, and once where all runs agree."""
    changes = [tuple((span.first - 0.5, span.name) for span in run.spans[1:]) for run in runs]
    for index, of_run in enumerate(changes):
        if of_run in changes[:index]:
            continue
        color = "#808890" if len(set(changes)) == 1 else color_of_run(index)
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


def mark_events(plot: Any, runs: Sequence[Run]) -> None:
    """Marks at the lower edge: warnings, adaptations and stops."""
    events = [(run, event) for run in runs for event in run.events if event["action"] in EVENT_MARKERS]
    if not events:
        return
    if isinstance(plot.y_range, DataRange1d):
        plot.y_range.renderers = list(plot.renderers)
    plot.extra_y_ranges = {"events": Range1d(0, 1)}
    # BokehJS gives a further range the scale of the axis, and 0 has no place on a logarithmic one.
    plot.extra_y_scales = {"events": LinearScale()}
    for action, marker in EVENT_MARKERS.items():
        shown = evenly([pair for pair in events if pair[1]["action"] == action], MARKED_EVENTS)
        source = ColumnDataSource(
            {
                "x": [event["step"] for _, event in shown],
                "y": [0.03] * len(shown),
                "rule": [f"{run.name}, {event['rule']}" for run, event in shown],
                "text": [event["text"][:300] for _, event in shown],
            }
        )
        style = {"marker": marker, "color": EVENT_COLORS[action], "size": 7, "line_width": 2}
        marks = plot.scatter("x", "y", source=source, y_range_name="events", **style)
        tooltips = [("step", "@x"), (action, "@rule"), ("", "@text")]
        plot.add_tools(HoverTool(renderers=[marks], visible=False, tooltips=tooltips))


def summarise(label: str, series: Series) -> str:
    low, high = series.values.min(), series.values.max()
    return (
        f"{label}: {number(series.values[-1])} at step {int(series.steps[-1])}, between {number(low)} and "
        f"{number(high)} over {len(series)} {'steps' if len(series) > 1 else 'step'}"
    )


def evenly(items: Sequence[Any], limit: int) -> list[Any]:
    """At most ``limit`` items, evenly chosen, the first and the last among them."""
    if len(items) <= limit:
        return list(items)
    return [items[index] for index in np.unique(np.linspace(0, len(items) - 1, limit).round().astype(int))]
