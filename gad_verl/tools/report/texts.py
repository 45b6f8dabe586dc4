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
"""Sample texts, configuration and figures of runs, made small enough for a page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gad_verl.tools.report.lines import Series, cut
from gad_verl.tools.report.plots import evenly
from gad_verl.tools.report.runs import ADVERSARIAL, Run
from gad_verl.tools.report.series import last_part

SAMPLE_CHARACTERS = 700_000
"""Characters of all sample texts of a page together."""

EVENT_CHARACTERS = 400_000
"""Characters of the texts of all listed events of a page together, about."""

_SHORTEST, _LONGEST = 100, 1500
_LISTED_EVENTS = 300
PER_STEP = 8
STEPS = 20


def choose_samples(runs: Sequence[Run], budget: int = SAMPLE_CHARACTERS) -> list[dict[str, Any]]:
    """Sample texts of all runs: evenly chosen steps, and long texts cut, so that the page stays small.

    Args:
        runs: The runs.
        budget: Characters of all texts together, about.

    Returns:
        For each run with texts its ``name`` and ``splits``: by split, the steps and their samples.
    """
    chosen = [(run.name, _by_split(run)) for run in runs if run.samples]
    kept = [lines for _, splits in chosen for steps in splits.values() for lines in steps.values()]
    length = max(_SHORTEST, min(_LONGEST, budget // max(1, sum(len(_texts(line)) for lines in kept for line in lines))))

    def shown(steps: Mapping[int, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
        return [{"step": step, "samples": [_sample(line, length) for line in steps[step]]} for step in steps]

    return [
        {"name": name, "splits": {split: shown(steps) for split, steps in splits.items()}} for name, splits in chosen
    ]


def _by_split(run: Run) -> dict[str, dict[int, list[dict[str, Any]]]]:
    """The lines that are shown, by split (held out first) and step."""
    splits: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for line in sorted(run.samples, key=lambda line: line["step"]):
        splits.setdefault(line["split"], {}).setdefault(line["step"], []).append(line)
    return {
        split: {step: splits[split][step][:PER_STEP] for step in evenly(list(splits[split]), STEPS)}
        for split in sorted(splits, reverse=True)
    }


def _texts(line: Mapping[str, Any]) -> list[str]:
    return [line["prompt"], line["teacher"], *line["students"]]


def _sample(line: Mapping[str, Any], length: int) -> dict[str, Any]:
    prompt, teacher, *students = (cut(words, length) for words in _texts(line))
    return {
        "index": line["index"],
        "prompt": prompt,
        "teacher": teacher,
        "students": students,
        "teacher_score": _score(line["teacher_score"]),
        "student_scores": [_score(score) for score in line["student_scores"]],
    }


def _score(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"


def listed_events(runs: Sequence[Run], budget: int = EVENT_CHARACTERS) -> list[tuple[Run, list[dict[str, Any]]]]:
    """The last events that matter of each run with events, newest first; notes only where there is room for all.

    Args:
        runs: The runs.
        budget: Characters of all texts together, about; longer texts are cut.
    """
    chosen = [(run, _last_events(run)) for run in runs if run.events]
    length = max(_SHORTEST, min(_LONGEST, budget // max(1, sum(len(events) for _, events in chosen))))
    return [(run, [event | {"text": cut(event["text"], length)} for event in events]) for run, events in chosen]


def _last_events(run: Run) -> list[dict[str, Any]]:
    matter = [event for event in run.events if event["action"] != "info"]
    chosen = run.events if len(run.events) <= _LISTED_EVENTS else matter[-_LISTED_EVENTS:]
    return chosen[::-1]


# ------------------------------------------------------------------------------------------------------- configuration


@dataclass(frozen=True)
class Setting:
    """A key with its value in each run; ``differs`` where they are not all the same."""

    key: str
    values: list[str]
    differs: bool


def settings(runs: Sequence[Run]) -> list[Setting]:
    """Versions and configuration of all runs, keys in their order; what differs between runs comes first."""
    flat = [_flatten(_described(run)) for run in runs]
    keys = list(dict.fromkeys(key for of_run in flat for key in of_run))
    found = []
    for key in keys:
        values = [of_run.get(key, "-") for of_run in flat]
        found.append(Setting(key, [cut(value, _LONGEST) for value in values], len(set(values)) > 1))
    return sorted(found, key=lambda setting: not setting.differs)


def _described(run: Run) -> dict[str, Any]:
    if run.info is None:
        return {}
    versions = {"versions": run.info["versions"]} if run.info["versions"] else {}
    return {"version": {"gad_verl": run.info["gad_verl"]}, **versions, **run.info["config"]}


def _flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            flat |= _flatten(item, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)
    return flat


# ------------------------------------------------------------------------------------------------------------- figures


@dataclass(frozen=True)
class KeyFigure:
    """A figure of every run under one name."""

    name: str
    explanation: str
    values: list[str]


_KEY_FIGURES = (
    ("D's accuracy", "disc/accuracy", True),
    ("D's accuracy, held out", "val-gad/accuracy", False),
    ("margin", "disc/margin_mean", True),
    ("D's loss", "disc/loss", True),
    ("length ratio", "gad/length_ratio", True),
    ("finished", "gad/student_finished_rate", True),
    ("ROUGE-L", "val-gad/rouge_l", False),
    ("KL", "actor/kl_loss", True),
    ("seconds a step", "timing_s/step", True),
)


def key_figures(runs: Sequence[Run]) -> list[KeyFigure]:
    """A few figures of the end of each run: medians of the last quarter of a stage, last values of the validation."""
    found = []
    for name, metric, is_training in _KEY_FIGURES:
        values = [_end_value(run, metric, is_training) for run in runs]
        if any(value is not None for value in values):
            explanation = f"{metric}, {'median of the end' if is_training else 'last'}"
            found.append(KeyFigure(name, explanation, ["-" if value is None else f"{value:.3g}" for value in values]))
    return found


def _end_value(run: Run, metric: str, is_training: bool) -> float | None:
    series: Series = run.get(metric)
    if is_training and any(span.stage == ADVERSARIAL for span in run.spans):
        series = run.in_stages(metric, (ADVERSARIAL,))
    if not len(series):
        return None
    if not is_training:
        return float(series.values[-1])
    end = last_part(series)
    return float(np.median(end.values if len(end) else series.values))
