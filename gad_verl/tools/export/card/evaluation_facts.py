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
"""Evaluations (``gad-verl evaluate``) of the very weights of a checkpoint: what its folders say, as files."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gad_verl.errors import GadConfigError, GadDataError
from gad_verl.tools.export.card.request import CardRequest
from gad_verl.tools.export.card.run_facts import without_paths
from gad_verl.tools.export.checkpoint import find_checkpoint

_NEAR = "evaluations"
_RESULTS, _REPORT = "results.json", "report.md"


@dataclass(frozen=True)
class EvaluationFacts:
    """One evaluation.

    Args:
        folder: Of ``gad-verl evaluate``.
        weights: Fingerprint of the weights that were evaluated.
        data: Name of the file of prompts, without folders.
        figures: What was measured, by name.
        report: The report without its title and without paths of this machine, to stand below a heading of level 2.
        named: Whether the user named the folder.
    """

    folder: Path
    weights: str
    data: str
    figures: Mapping[str, float]
    report: str
    named: bool


def find_evaluations(checkpoint: Path, request: CardRequest) -> list[EvaluationFacts]:
    """Evaluations that the user names, and those in ``evaluations/`` of the run's folder or beside it, of any weights.

    Raises:
        GadDataError: If a folder that the user names is none of ``gad-verl evaluate``.
    """
    named = [folder.expanduser().absolute() for folder in request.evaluations]
    run = checkpoint.absolute().parent
    near = [file.parent for place in (run, run.parent) for file in sorted((place / _NEAR).glob(f"*/{_RESULTS}"))]
    found = []
    for folder in dict.fromkeys([*named, *near]):
        try:
            found.append(_read(folder, folder in named))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            if folder in named:
                raise GadDataError(
                    f"--evaluation {folder} is no folder of gad-verl evaluate that was run to its end"
                ) from None
    return found


def of_these_weights(found: Iterable[EvaluationFacts], folders: Iterable[Path]) -> list[EvaluationFacts]:
    """Those of the weights in any of ``folders``.

    Raises:
        GadConfigError: If the user named an evaluation of other weights.
    """
    found = list(found)
    weights = {find_checkpoint(folder).fingerprint() for folder in folders} if found else set()
    for evaluation in found:
        if evaluation.named and evaluation.weights not in weights:
            raise GadConfigError(
                f"--evaluation {evaluation.folder} is of other weights than this checkpoint's: evaluate this one "
                "(gad-verl evaluate --model global_step_N), or leave the option away"
            )
    return [evaluation for evaluation in found if evaluation.weights in weights]


def _read(folder: Path, named: bool) -> EvaluationFacts:
    results = json.loads((folder / _RESULTS).read_text(encoding="utf-8"))
    _, _, report = (folder / _REPORT).read_text(encoding="utf-8").partition("\n")
    settings, judge = results["settings"], results["judge"] or {}
    figures: dict[str, dict[str, Any] | None] = {**results["figures"], "judge_score": judge.get("score")}
    for name, rates in (judge.get("win_rates") or {}).items():
        figures[f"win_rate_{Path(name).name}"] = rates.get("win_rate")
    data = Path(str(settings["data"])).name
    return EvaluationFacts(
        folder=folder,
        weights=str(settings["weights"]),
        data=data,
        figures={name: at["value"] for name, at in figures.items() if at and at.get("value") is not None},
        report=without_paths(report.replace(str(settings["data"]), data).replace("\n## ", "\n### ").strip()),
        named=named,
    )
