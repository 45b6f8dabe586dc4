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
"""The figures of a page, as they are given to BokehJS."""

from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_run import write_run

from gad_verl.tools.report import panels
from gad_verl.tools.report.charts import Chart, draw_panel, draw_scores
from gad_verl.tools.report.lines import Series
from gad_verl.tools.report.plots import DASHES, MORE_DASHES
from gad_verl.tools.report.runs import Run, read_run

LOSS = next(panel for panel in panels.DISCRIMINATOR.panels if panel.title == "Loss")
PANELS = [panel for section in panels.SECTIONS for panel in section.panels]


def objects(value: Any, name: str) -> Iterator[dict[str, Any]]:
    """The attributes of every object of a class in a figure."""
    if isinstance(value, dict):
        if value.get("type") == "object" and value.get("name") == name:
            yield value.get("attributes", {})
        for inner in value.values():
            yield from objects(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from objects(inner, name)


def made_up(name: str, **metrics: np.ndarray) -> Run:
    return Run(name, Path(name), {metric: Series(np.arange(1, 1 + len(y)), y) for metric, y in metrics.items()})


def draw(panel: panels.Panel, *runs: Run) -> Chart:
    chart = draw_panel("key", panel, runs, 800)
    assert chart is not None
    return chart


def test_marks_of_events_are_in_sight_on_a_logarithmic_axis() -> None:
    run = made_up("r", **{"disc/loss": np.geomspace(1.0, 1e-6, 50)})
    run.events = [{"step": 9, "source": "guardian", "rule": "saturated", "action": "warn", "text": "too strong"}]
    chart = draw(LOSS, run)
    (figure,) = chart.item["doc"]["roots"]
    assert figure["attributes"]["y_scale"]["name"] == "LogScale" and "Logarithmic" in chart.note
    # Without a scale of its own the range [0, 1] of the marks gets that of the axis, on which 0 is nowhere.
    assert dict(figure["attributes"]["extra_y_ranges"]["entries"]).keys() == {"events"}
    scales = dict(figure["attributes"]["extra_y_scales"]["entries"])
    assert scales["events"]["name"] == "LinearScale"


def test_tooltips_have_placeholders_in_their_values_alone(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", 30))
    charts = [draw_panel("key", panel, [run], 800) for panel in PANELS] + [draw_scores("scores", run, False)]
    tips = [tip for chart in charts if chart for tool in objects(chart.item, "HoverTool") for tip in tool["tooltips"]]
    assert len(tips) > 20 and any("$name" in value for _, value in tips)
    assert [label for label, _ in tips if set(label) & set("$@")] == []


@pytest.mark.parametrize("panel", [LOSS, *panels.DISCRIMINATOR.panels[:2]], ids=lambda panel: panel.title)
def test_sixteen_runs_are_told_apart(panel: panels.Panel) -> None:
    metrics = {curve.metric: np.arange(1.0, 5.0) for curve in panel.curves}
    chart = draw(panel, *(made_up(f"r{number}", **metrics) for number in range(16)))
    glyphs = [renderer["glyph"] for renderer in objects(chart.item, "GlyphRenderer")]
    lines = [glyph["attributes"] for glyph in glyphs if glyph["name"] == "Line"]
    looks = [(line["line_color"], str(line.get("line_dash"))) for line in lines]
    assert len(looks) == len(set(looks)) == 16 * len(panel.curves)
    names = {f"r{number}" for number in range(16)}
    legend = [(entry.color, entry.dash) for entry in chart.legend if entry.label in names]
    assert len(legend) == len(set(legend)) == 16
    # And which dash is which curve, for both halves of the runs.
    curves = [entry.dash for entry in chart.legend if entry.color is None]
    assert len(curves) == len(set(curves)) == (2 * len(panel.curves) if len(panel.curves) > 1 else 0)


def test_every_dash_has_a_style_on_the_page() -> None:
    style = (resources.files("gad_verl.tools.report") / "template" / "page.css").read_text(encoding="utf-8")
    for dash in {*DASHES, *MORE_DASHES} - {"solid"}:
        assert f".swatch.{dash} {{" in style or f".swatch.{dash}," in style
