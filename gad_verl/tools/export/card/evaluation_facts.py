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
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gad_verl.errors import GadCheckpointError
from gad_verl.tools.export.card.run_facts import without_paths
from gad_verl.tools.export.checkpoint import find_checkpoint

logger = logging.getLogger(__name__)

_NEAR = "evaluations"
_RESULTS, _REPORT = "results.json", "report.md"


@dataclass(frozen=True)
class EvaluationFacts:
    """One evaluation.

    Args:
        weights: Fingerprint of the weights that were evaluated.
        data: Name of the file of prompts, without folders.
        figures: What was measured, by name.
        report: The report without its title and without paths of this machine, to stand below a heading of level 2.
    """

    weights: str
    data: str
    figures: Mapping[str, float]
    report: str


def find_evaluations(checkpoint: Path) -> list[EvaluationFacts]:
    """Evaluations in ``evaluations/`` of the run's folder or beside it, of any weights."""
    run = checkpoint.absolute().parent
    found = []
    for place in (run, run.parent):
        for file in sorted((place / _NEAR).glob(f"*/{_RESULTS}")):
            try:
                found.append(_read(file.parent))
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                logger.warning("the card is made without %s, which cannot be read: %r", file.parent, error)
    return found


def of_these_weights(found: Sequence[EvaluationFacts], folders: Iterable[Path]) -> list[EvaluationFacts]:
    """Those of the weights in any of ``folders``; of others, which a run has many of, it is said how many."""
    weights = {_fingerprint(folder) for folder in folders} if found else set()
    chosen = [evaluation for evaluation in found if evaluation.weights in weights]
    if len(chosen) < len(found):
        logger.info("the card leaves out %d of %d evaluations: of other weights", len(found) - len(chosen), len(found))
    return chosen


def _fingerprint(folder: Path) -> str | None:
    """Of the weights in a folder; None where it cannot be taken: a card must not fail an export."""
    try:
        return find_checkpoint(folder).fingerprint()
    except (GadCheckpointError, OSError) as error:
        logger.warning("the card is made without evaluations of %s: %s", folder, error)
        return None


def _read(folder: Path) -> EvaluationFacts:
    results = json.loads((folder / _RESULTS).read_text(encoding="utf-8"))
    _, _, report = (folder / _REPORT).read_text(encoding="utf-8").partition("\n")
    settings, judge = results["settings"], results["judge"] or {}
    figures: dict[str, dict[str, Any] | None] = {**results["figures"], "judge_score": judge.get("score")}
    for name, rates in (judge.get("win_rates") or {}).items():
        figures[f"win_rate_{Path(name).name}"] = rates.get("win_rate")
    data = Path(str(settings["data"])).name
    return EvaluationFacts(
        weights=str(settings["weights"]),
        data=data,
        figures={name: at["value"] for name, at in figures.items() if at and at.get("value") is not None},
        report=without_paths(report.replace(str(settings["data"]), data).replace("\n## ", "\n### ").strip()),
    )
