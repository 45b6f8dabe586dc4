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
"""One page out of runs: a single HTML file that needs nothing else and asks no network."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from bokeh.resources import Resources
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gad_verl import __version__
from gad_verl.record.files import write_atomically
from gad_verl.tools.report import charts, panels, texts
from gad_verl.tools.report.answers import Answers
from gad_verl.tools.report.plots import color_of_run, dash_of
from gad_verl.tools.report.runs import Run
from gad_verl.tools.report.verdict import LEVELS, Verdict, judge

LINE_POINTS = 110_000
"""Points of all lines of the drawn panels together, about; 11 bytes each."""

_LEAST, _MOST = 80, 800


@dataclass(frozen=True)
class DrawnSection:
    """A heading with its charts."""

    key: str
    title: str
    charts: list[charts.Chart]


def render(runs: Sequence[Run], verdicts: Sequence[Verdict] | None = None, answers: Answers | None = None) -> str:
    """The page of one or several runs as HTML.

    Args:
        runs: At least one, names unique.
        verdicts: One for each run; None makes them.
        answers: What evaluations found, if there are any.
    """
    sections = _sections(runs)
    samples = texts.choose_samples(runs)
    data = {
        "charts": {chart.key: chart.item for section in sections for chart in section.charts},
        "samples": samples,
    }
    environment = Environment(
        loader=PackageLoader("gad_verl.tools.report", "template"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    folder = resources.files("gad_verl.tools.report") / "template"
    return environment.get_template("page.html").render(
        runs=runs,
        several=len(runs) > 1,
        verdicts=[judge(run) for run in runs] if verdicts is None else verdicts,
        words=LEVELS,
        colors=[color_of_run(index) for index in range(len(runs))],
        dashes=[dash_of(index) for index in range(len(runs))],
        sections=sections,
        key_figures=texts.key_figures(runs),
        events=texts.listed_events(runs),
        answers=answers,
        samples=samples,
        sample_steps=texts.STEPS,
        sample_lines=texts.PER_STEP,
        settings=texts.settings(runs),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
        style=Markup((folder / "page.css").read_text(encoding="utf-8")),
        script=_for_script((folder / "page.js").read_text(encoding="utf-8")),
        library=_for_script("\n".join(Resources(mode="inline", components=["bokeh"]).js_raw)),
        data=_as_json(data),
    )


def write_page(runs: Sequence[Run], output: Path, answers: Answers | None = None) -> list[Verdict]:
    """Write the page; the file is whole or not there.

    Returns:
        The verdict on each run.
    """
    verdicts = [judge(run) for run in runs]
    page = render(runs, verdicts, answers)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(output, page)
    return verdicts


def _sections(runs: Sequence[Run]) -> list[DrawnSection]:
    several = len(runs) > 1
    drawn_panels = [panel for section in panels.SECTIONS for panel in section.panels]
    limit = max(_LEAST, min(_MOST, LINE_POINTS // max(1, charts.count_series(drawn_panels, runs))))

    drawn = []
    for section in panels.SECTIONS:
        found = [
            charts.draw_panel(f"{section.key}-{number}", panel, runs, limit)
            for number, panel in enumerate(section.panels)
        ]
        drawn.append(_section(section.key, section.title, found))
        if section.key == panels.DISCRIMINATOR.key:
            scores = [charts.draw_scores(f"scores-{number}", run, several) for number, run in enumerate(runs)]
            drawn.append(_section("scores", "Scores of both sides", scores))
    return [section for section in drawn if section.charts]


def _section(key: str, title: str, found: Sequence[charts.Chart | None]) -> DrawnSection:
    return DrawnSection(key, title, [chart for chart in found if chart is not None])


def _as_json(value: Any) -> Markup:
    """JSON for a script element: a text in it cannot end the element."""
    # What json writes is ASCII, so no half of a surrogate pair reaches the file.
    return Markup(json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"))


def _for_script(code: str) -> Markup:
    return Markup(code.replace("</script", "<\\/script"))
