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
"""Evaluations (``gad-verl evaluate``) of the very weights of a checkpoint."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gad_verl.errors import GadConfigError, GadDataError
from gad_verl.tools.export.card.request import CardRequest

if TYPE_CHECKING:
    from gad_verl.tools.evaluation.report import Evaluation

_NEAR = "evaluations"


@dataclass(frozen=True)
class Figure:
    """One figure of an evaluation.

    Args:
        metric: Short name.
        title: For people.
        value: The figure.
        shown: With its interval.
    """

    metric: str
    title: str
    value: float
    shown: str


@dataclass(frozen=True)
class EvaluationFacts:
    """One evaluation.

    Args:
        data: Name of the file of prompts, without folders.
        settings: How the responses were made, in words.
        figures: What was measured.
        judge: Name of the judge's model, or None.
    """

    data: str
    settings: str
    figures: Sequence[Figure]
    judge: str | None


@dataclass(frozen=True)
class FoundEvaluations:
    """Folders of evaluations that may belong to a checkpoint.

    Args:
        facts: Of those that do.
        unmatched: Named by the user, of weights with another fingerprint: perhaps of the exported folder.
    """

    facts: Sequence[EvaluationFacts]
    unmatched: Sequence[Path]

    def of_export(self, exported: Path) -> Sequence[EvaluationFacts]:
        """All of them, once the exported folder is there.

        Raises:
            GadConfigError: If the user named an evaluation of other weights.
        """
        if not self.unmatched:
            return self.facts
        from gad_verl.tools.export.checkpoint import find_checkpoint

        fingerprint = find_checkpoint(exported).fingerprint()
        for folder in self.unmatched:
            if _weights(folder) != fingerprint:
                raise GadConfigError(
                    f"--evaluation {folder} is of other weights than this checkpoint's: evaluate this one "
                    "(gad-verl evaluate --model global_step_N), or leave the option away"
                )
        return [*self.facts, *map(_read, self.unmatched)]


def find_evaluations(checkpoint: str | Path, request: CardRequest) -> FoundEvaluations:
    """Evaluations that the user names, and those in ``evaluations/`` of the run's folder or beside it.

    Raises:
        GadDataError: If a folder that the user names is none of ``gad-verl evaluate``.
    """
    from gad_verl.tools.export.checkpoint import find_checkpoint

    checkpoint = Path(checkpoint).absolute()
    named = [folder.expanduser().absolute() for folder in request.evaluations]
    for folder in named:
        if _weights(folder) is None:
            raise GadDataError(f"--evaluation {folder} is no folder of gad-verl evaluate that was run to its end")
    near = [
        file.parent
        for place in (checkpoint.parent / _NEAR, checkpoint.parent.parent / _NEAR)
        for file in sorted(place.glob("*/results.json"))
        if file.parent not in named
    ]
    if not named and not near:
        return FoundEvaluations([], [])
    fingerprint = find_checkpoint(checkpoint).fingerprint()
    return FoundEvaluations(
        facts=[_read(folder) for folder in [*named, *near] if _weights(folder) == fingerprint],
        unmatched=[folder for folder in named if _weights(folder) != fingerprint],
    )


def _weights(folder: Path) -> str | None:
    """Fingerprint of the weights that were evaluated; None where there are no results."""
    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        return str(results["settings"]["weights"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read(folder: Path) -> EvaluationFacts:
    from gad_verl.tools.evaluation.report import TITLES, read_evaluation

    evaluation = read_evaluation(folder)
    settings = evaluation.settings
    way = "greedy" if settings["temperature"] == 0 else f"temperature {settings['temperature']:g}"
    figures = [
        Figure(name, title, evaluation.figures[name].value, evaluation.figures[name].show(digits))
        for name, (title, digits) in TITLES.items()
        if name in evaluation.figures and math.isfinite(evaluation.figures[name].value)
    ]
    return EvaluationFacts(
        data=Path(str(settings["data"])).name,
        settings=f"{len(evaluation.prompt_ids)} prompts, {settings['samples']} response(s) each, {way}, at most "
        f"{settings['max_response_length']} tokens, {settings['engine']} in {settings['dtype']}",
        figures=[*figures, *_judge_figures(evaluation)],
        judge=evaluation.judge["model"] if evaluation.judge else None,
    )


def _judge_figures(evaluation: "Evaluation") -> list[Figure]:
    from gad_verl.tools.evaluation.report import show

    judge = evaluation.judge
    if not judge:
        return []
    rows: list[tuple[str, str, dict[str, Any] | None]] = [
        ("judge_score", "judge's score, 50 is parity with its reference", judge.get("score"))
    ]
    for name, rates in (judge.get("win_rates") or {}).items():
        # Another evaluation may have been named by its path.
        opponent = Path(str(name)).name
        rows.append((f"win_rate_{opponent}", f"win rate against {opponent}", rates.get("win_rate")))
    return [
        Figure(metric, title, figure["value"], show(figure))
        for metric, title, figure in rows
        if figure and figure.get("value") is not None
    ]
