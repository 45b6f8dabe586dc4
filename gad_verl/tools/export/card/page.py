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
"""The text of a model card."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gad_verl import __version__
from gad_verl.record.redaction import without_secrets
from gad_verl.tools.export.card import usage
from gad_verl.tools.export.card.data_facts import DataFacts, read_data_facts
from gad_verl.tools.export.card.evaluation_facts import EvaluationFacts, FoundEvaluations, find_evaluations
from gad_verl.tools.export.card.request import CardRequest
from gad_verl.tools.export.card.run_facts import METRICS, RunFacts
from gad_verl.tools.export.card.settings_table import other_options, settings_rows
from gad_verl.tools.export.reward_model import Scoring

CARD_FILE = "README.md"
_UNKNOWN = "unknown"
_OF_DISCRIMINATOR = ("disc/accuracy", "disc/margin_mean", "disc/loss", "val-gad/accuracy")
_CITATION = """@misc{ye2025blackbox,
  title         = {Black-Box On-Policy Distillation of Large Language Models},
  author        = {Ye, Tianzhu and Dong, Li and Chi, Zewen and Wu, Xun and Huang, Shaohan and Wei, Furu},
  year          = {2025},
  eprint        = {2511.10643},
  archivePrefix = {arXiv},
  primaryClass  = {cs.CL}
}"""


@dataclass(frozen=True)
class CardFacts:
    """All that a card is written from.

    Args:
        part: "student" or "discriminator".
        request: What the user gave.
        run: Of the checkpoint.
        data: Of the training data.
        evaluations: Of the student.
    """

    part: str
    request: CardRequest
    run: RunFacts
    data: DataFacts
    evaluations: FoundEvaluations


@dataclass(frozen=True)
class Exported:
    """What stands in the folder that the card is for.

    Args:
        folder: It.
        adapter: Whether it is an adapter of LoRA alone.
        dtype: Precision of the weights.
        scoring: Of a discriminator.
        sequence_classifier: Class of transformers that a discriminator loads as, beside the token classifier.
    """

    folder: Path
    adapter: bool
    dtype: str
    scoring: Scoring | None = None
    sequence_classifier: str | None = None


def collect_facts(checkpoint: str | Path, part: str, run: RunFacts, request: CardRequest) -> CardFacts:
    """Read what can be known before anything is exported.

    Raises:
        GadDataError: If a card or an evaluation that the user names cannot be read.
    """
    evaluations = find_evaluations(checkpoint, request) if part == "student" else FoundEvaluations([], [])
    return CardFacts(part, request, run, read_data_facts(run, request.data_cards), evaluations)


def write_card(facts: CardFacts, exported: Exported) -> Path:
    """Write ``README.md`` into an exported folder.

    Raises:
        GadConfigError: If the user named an evaluation of other weights.
    """
    from huggingface_hub import ModelCard

    evaluations = facts.evaluations.of_export(exported.folder)
    front = _front_matter(facts, exported, evaluations).to_yaml()
    body = "\n\n".join(_sections(facts, exported, evaluations))
    # ModelCard reads the front matter back: what it does not understand is an error here, not on the Hub.
    card = ModelCard(without_secrets(f"---\n{front}\n---\n\n{body}\n"))
    path = exported.folder / CARD_FILE
    path.write_text(str(card), encoding="utf-8")
    return path


# -------------------------------------------------------------------------------------------------------- front matter


def _base_model(facts: CardFacts) -> str | None:
    section = "actor_rollout_ref.model" if facts.part == "student" else "discriminator.model"
    return facts.request.base_model or facts.run.hub_model(section)


def _front_matter(facts: CardFacts, exported: Exported, evaluations: Sequence[EvaluationFacts]) -> Any:
    from huggingface_hub import EvalResult, ModelCardData

    is_student = facts.part == "student"
    base = _base_model(facts)
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type="custom",
            dataset_name=evaluation.data,
            metric_type=figure.metric,
            metric_name=figure.title,
            metric_value=round(figure.value, 4),
        )
        for evaluation in evaluations
        for figure in evaluation.figures
    ]
    if is_student:
        pipeline = "text-generation"
    else:
        pipeline = "text-classification" if exported.sequence_classifier else "token-classification"
    method = ["seqkd"] if facts.run.stage == "seqkd" else ["gad", "generative-adversarial-distillation"]
    tags = [*method, "distillation", "verl"]
    more: dict[str, Any] = {}
    if base is not None:
        more["base_model_relation"] = "adapter" if exported.adapter else "finetune"
    return ModelCardData(
        license=facts.request.license,
        base_model=base,
        datasets=list(dict.fromkeys([*facts.request.datasets, *facts.data.hub])) or None,
        library_name="peft" if exported.adapter else "transformers",
        pipeline_tag=pipeline,
        tags=tags if is_student else [*tags, "reward-model", "discriminator"],
        eval_results=results or None,
        model_name=_title(facts) if results else None,
        **more,
    )


# ---------------------------------------------------------------------------------------------------------------- text


def _title(facts: CardFacts) -> str:
    base = _base_model(facts)
    method = "SeqKD" if facts.run.stage == "seqkd" else "GAD"
    what = f"{method} {facts.part}"
    step = "" if facts.run.step is None else f", step {facts.run.step}"
    return f"{what}{f' from {base}' if base else ''}{step}"


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(map(_cell, row)) + " |" for row in rows)])


def _cell(value: object) -> str:
    return " ".join(str(value).replace("\\", "\\\\").replace("|", "\\|").split())


def _teacher(facts: CardFacts) -> str:
    if facts.request.teacher:
        return facts.request.teacher
    if not facts.data.teachers:
        return f"{_UNKNOWN} (no data card and no column names it)"
    return f"{', '.join(facts.data.teachers)} (as {facts.data.teacher_source} says)"


def _sections(facts: CardFacts, exported: Exported, evaluations: Sequence[EvaluationFacts]) -> list[str]:
    sections = [f"# {_title(facts)}", _introduction(facts), "## How to load", *_loading(facts, exported)]
    sections += ["## Where it comes from", _origin(facts, exported), "## Training data", *_data(facts)]
    sections += ["## Training settings", *_settings(facts)]
    sections += ["## Evaluation", *_evaluation(facts, evaluations)]
    sections += ["## Limitations", _limitations(facts)]
    sections += ["## Versions", _versions(facts.run)]
    sections += ["## Citation", "The method:", f"```bibtex\n{_CITATION}\n```"]
    return sections


def _introduction(facts: CardFacts) -> str:
    method = (
        "Generative Adversarial Distillation (GAD, [arXiv 2511.10643](https://arxiv.org/abs/2511.10643)) with the "
        "package `gad_verl` on [verl](https://github.com/verl-project/verl)"
    )
    if facts.part == "discriminator":
        what = (
            f"The discriminator of a run of {method}: a language model with a scalar head, trained to score a "
            "teacher's text above a student's. The score of a prompt with a response is the head's value at the last "
            "token; higher is more like the teacher."
        )
    elif facts.run.stage == "seqkd":
        what = f"A language model trained by cross-entropy on a teacher's texts: SeqKD, the baseline of {method}."
    elif facts.run.stage == "warmup":
        what = f"A language model in the warmup, which is cross-entropy on a teacher's texts, of {method}."
    elif facts.run.stage is None:
        what = f"A language model trained on a teacher's texts by {method}, or by its warmup or its baseline SeqKD."
    else:
        what = f"A language model that learned from a teacher's texts by {method}."
    return f"{what} This card was written by `gad-verl export`; what it calls unknown was not recorded."


def _loading(facts: CardFacts, exported: Exported) -> list[str]:
    if exported.scoring is None:
        return usage.student(exported.adapter, dict(facts.run.get("data.apply_chat_template_kwargs") or {}))
    unknown = []
    if exported.scoring.max_prompt_length is None:
        unknown = ["The longest prompt and response of the training are not recorded; nothing is cut below."]
    if exported.sequence_classifier is None:
        return [*unknown, *usage.token_classifier(exported.scoring, exported.adapter)]
    config = json.loads((exported.folder / "config.json").read_text(encoding="utf-8"))
    return [
        *unknown,
        *usage.reward_model(exported.scoring, one_at_a_time=config["pad_token_id"] is None),
        f"The folder loads as `{exported.sequence_classifier}` and, with `AutoModelForTokenClassification`, in the "
        "form that was trained: a value for every token, bias included. With `gad_verl` installed, "
        "`gad_verl.tools.export.reward_model.scored_ids` makes the tokens.",
    ]


def _origin(facts: CardFacts, exported: Exported) -> str:
    run = facts.run
    base = _base_model(facts)
    section = "actor_rollout_ref.model" if facts.part == "student" else "discriminator.model"
    if base is None:
        base = "a local folder; its source was not given" if run.get(f"{section}.path") else _UNKNOWN
    rows = [
        ("teacher", _teacher(facts)),
        ("training began with", base),
        ("step", _UNKNOWN if run.step is None else run.step),
        ("stage", run.stage or _UNKNOWN),
        ("precision of the weights", exported.dtype),
        ("license", facts.request.license or "not given"),
    ]
    if facts.part == "discriminator" and run.get("gad.discriminator_num_layers"):
        rows.append(("layers", f"the first {run.get('gad.discriminator_num_layers')}"))
    return _table(("", ""), rows)


def _data(facts: CardFacts) -> list[str]:
    data = facts.data
    sections = []
    if facts.request.datasets:
        sections.append("Data sets: " + ", ".join(f"`{name}`" for name in facts.request.datasets) + ".")
    if data.files:
        rows = [(f"`{name}`", _UNKNOWN if number is None else number) for name, number in data.files]
        sections.append(_table(("file", "rows"), rows))
    if data.steps:
        sections.append("How it was made, the last step first:")
        sections.append("\n".join(f"- {step}" for step in data.steps))
    elif data.files:
        sections.append("How it was made is unknown: no card of `gad-verl data` or `gad-verl teacher` was found.")
    return sections or ["Unknown: neither a record of the run nor a data card was found."]


def _settings(facts: CardFacts) -> list[str]:
    rows = settings_rows(facts.run)
    if not rows:
        return ["Unknown: the run has no record (`record/run.json`)."]
    sections = ["As configured when the run was last started.", _table(("setting", "value"), rows)]
    options = other_options(facts.run)
    if options:
        sections.append("Every option of `gad` that differs from the default of this version of `gad_verl`:")
        sections.append(_table(("option", "value"), [(f"`{name}`", f"`{value}`") for name, value in options.items()]))
    return sections


def _evaluation(facts: CardFacts, evaluations: Sequence[EvaluationFacts]) -> list[str]:
    sections = []
    for evaluation in evaluations:
        judge = f" Judge: {_cell(evaluation.judge)}." if evaluation.judge else ""
        sections.append(
            f"`gad-verl evaluate` on `{evaluation.data}`: {evaluation.settings}. In brackets 95 % bootstrap intervals "
            f"over the prompts.{judge} Two-sample accuracy 0.5: a classifier cannot tell student from teacher."
        )
        sections.append(_table(("figure", "value"), [(figure.title, figure.shown) for figure in evaluation.figures]))
    if facts.part == "student" and not evaluations:
        sections.append("Not evaluated: no result of `gad-verl evaluate` for these weights was found.")
    if facts.part == "discriminator":
        sections.append("No evaluation as a reward model is recorded.")
    metrics = {
        name: value for name, value in facts.run.metrics.items() if facts.part == "student" or name in _OF_DISCRIMINATOR
    }
    if metrics:
        sections.append(f"Logged by the training at step {facts.run.step} (one batch, or the validation of that step):")
        rows = [(title, f"{metrics[name]:.4g}") for name, title in METRICS if name in metrics]
        sections.append(_table(("metric", "value"), rows))
    return sections


def _limitations(facts: CardFacts) -> str:
    if facts.part == "student":
        points = [
            "It was trained to write like its teacher, not to be right: it takes over the teacher's errors and "
            "manner, and what the teacher knows and the student does not may come out as fluent nonsense.",
            "The training does nothing for safety by itself. The terms of the teacher and of the model that it began "
            "with may bind whoever uses this one.",
        ]
        if facts.run.stage == "adversarial":
            points.append(
                "The reward was a discriminator that learned along. Watch lengths: growth against the teacher is the "
                "usual sign that a student found a way to please it."
            )
    else:
        points = [
            "A score says how much a response looks like the teacher's beside those of the student at this step. It "
            "is no measure of truth or quality, and far from such responses it was never trained.",
            "Compare responses to the same prompt only: the paper's loss compares nothing else, and a constant on all "
            "scores changes nothing.",
            "A student that is trained on frozen scores learns to fool them (in the paper after about 300 steps, by "
            "length); in GAD the discriminator learns along.",
            "It may have learned shortcuts of format: length, end-of-text, white space. Keep to the tokens above.",
        ]
    return "\n".join(f"- {point}" for point in points)


def _versions(run: RunFacts) -> str:
    rows = list(run.versions.items()) or [("of the training", _UNKNOWN)]
    return _table(("package", "version"), [*rows, ("gad_verl (this export)", __version__)])
