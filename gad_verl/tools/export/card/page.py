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
"""A model card: the facts, put into ``model_card.md.j2``."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gad_verl import __version__
from gad_verl.config.stage_rates import stage_rates
from gad_verl.record.files import read_json
from gad_verl.record.redaction import without_secrets
from gad_verl.tools.export.card.data_facts import DataFacts, inputs_of, read_data_facts, source_name
from gad_verl.tools.export.card.evaluation_facts import EvaluationFacts, find_evaluations, of_these_weights
from gad_verl.tools.export.card.other_options import other_options
from gad_verl.tools.export.card.request import CardRequest
from gad_verl.tools.export.card.run_facts import METRICS, RunFacts, without_paths
from gad_verl.tools.export.card.stages import phases_of
from gad_verl.tools.export.reward_model import Scoring

logger = logging.getLogger(__name__)

_TEMPLATE = Path(__file__).with_name("model_card.md.j2")
_OF_DISCRIMINATOR = ("disc/accuracy", "disc/margin_mean", "disc/loss", "val-gad/accuracy")
_UNKNOWN = "unknown"
# What a student is called by the learning-rate stage of its checkpoint; GAD for all others.
_METHODS: Mapping[str | None, str] = {"seqkd": "SeqKD", "preference": "SODA"}


@dataclass(frozen=True)
class CardFacts:
    """What is known before anything is exported.

    Args:
        checkpoint: Folder ``global_step_N``.
        part: "student" or "discriminator".
        request: What the user gave.
        run: Of the checkpoint.
        data: Of the training data.
        evaluations: That may be of the student's weights.
    """

    checkpoint: Path
    part: str
    request: CardRequest
    run: RunFacts
    data: DataFacts
    evaluations: Sequence[EvaluationFacts]

    @property
    def model_key(self) -> str:
        """Section of the configuration that names the model."""
        return "actor_rollout_ref.model" if self.part == "student" else "discriminator.model"

    @property
    def base_model(self) -> str | None:
        """Name on the Hub of what the training began with."""
        return self.request.base_model or self.run.hub_model(self.model_key)

    @property
    def title(self) -> str:
        """Heading of the card."""
        base = f" from {self.base_model}" if self.base_model else ""
        step = "" if self.run.step is None else f", step {self.run.step}"
        return f"{_METHODS.get(self.run.stage, 'GAD')} {self.part}{base}{step}"


@dataclass(frozen=True)
class Exported:
    """What stands in the folder that the card is for.

    Args:
        folder: It.
        adapter: Whether it is an adapter of LoRA alone.
        dtype: Precision of the weights.
        scoring: Of a discriminator.
        sequence_classifier: Class of transformers that a discriminator loads as, beside the token classifier.
        lm_head_class: Class whose LM head a discriminator's scalar head has replaced; None of a token classifier.
    """

    folder: Path
    adapter: bool
    dtype: str
    scoring: Scoring | None = None
    sequence_classifier: str | None = None
    lm_head_class: str | None = None


def collect_facts(checkpoint: str | Path, part: str, run: RunFacts, request: CardRequest) -> CardFacts:
    """Read what can be known before anything is exported."""
    checkpoint = Path(checkpoint)
    evaluations = find_evaluations(checkpoint) if part == "student" else []
    return CardFacts(checkpoint, part, request, run, read_data_facts(run), evaluations)


def write_card(facts: CardFacts, exported: Exported) -> Path:
    """Write ``README.md`` into an exported folder."""
    from huggingface_hub import ModelCard
    from jinja2 import TemplateError

    # An adapter alone is no checkpoint that could be evaluated.
    folders = [facts.checkpoint] if exported.adapter else [facts.checkpoint, exported.folder]
    facts = replace(facts, evaluations=of_these_weights(facts.evaluations, folders))
    try:
        text = _render(facts, exported)
    except (TemplateError, ValueError, KeyError, TypeError, AttributeError) as error:
        if not facts.data.cards:
            raise
        # Of another version or another program; a card must not fail an export.
        logger.warning("the card does not say how the data were made: their cards have another form: %r", error)
        text = _render(replace(facts, data=replace(facts.data, cards=[])), exported)
    # ModelCard reads the front matter back: what it does not understand is an error here, not on the Hub.
    card = ModelCard(without_secrets(text))
    path = exported.folder / "README.md"
    path.write_text(str(card), encoding="utf-8")
    return path


def _render(facts: CardFacts, exported: Exported) -> str:
    is_student = facts.part == "student"
    logged = facts.run.metrics
    config = read_json(exported.folder / "config.json") or {}
    phases = phases_of(facts.run)
    return str(
        _environment()
        .from_string(_TEMPLATE.read_text(encoding="utf-8"))
        .render(
            **vars(exported),
            **vars(facts),
            front_matter=_front_matter(facts, exported).to_yaml(),
            title=facts.title,
            base_model=facts.base_model,
            model_key=facts.model_key,
            teacher=facts.request.teacher or facts.data.teacher,
            phases={phase.name for phase in phases},
            trains_discriminator=any(phase.trains_discriminator for phase in phases),
            rates={side: stage_rates(side, phases, facts.run.get) for side in ("student", "discriminator")},
            options=other_options(facts.run),
            metrics=[
                (title, logged[key])
                for key, title in METRICS
                if key in logged and (is_student or key in _OF_DISCRIMINATOR)
            ],
            pads=config.get("pad_token_id") is not None,
            student_class=_student_class(config),
            trusts=", trust_remote_code=True" if (config.get("auto_map") and not exported.adapter) else "",
            lm_head_code=_lm_head_code(config),
            this_version=__version__,
        )
    )


def _student_class(config: Mapping[str, Any]) -> str:
    """The automatic class of transformers that reads the names of the weights; a family with images has its own."""
    code = config.get("auto_map") or {}
    with_images = "AutoModelForImageTextToText"
    return with_images if with_images in code or ("text_config" in config and not code) else "AutoModelForCausalLM"


def _lm_head_code(config: Mapping[str, Any]) -> str | None:
    """Where the class of a language model is that brings its own code; None of one of transformers."""
    return (config.get("auto_map") or {}).get(_student_class(config))


def _environment() -> Any:
    """Jinja for Markdown: whatever is None or missing is written as "unknown"."""
    import jinja2

    class Unknown(jinja2.ChainableUndefined):
        def __str__(self) -> str:
            return _UNKNOWN

    environment = jinja2.Environment(
        undefined=Unknown,
        finalize=lambda value: _UNKNOWN if value is None else value,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        # Of a Markdown table.
        "cell": lambda value: " ".join(str(value).replace("\\", "\\\\").replace("|", "\\|").split()),
        "inputs": inputs_of,
        "name": lambda path: Path(str(path)).name,
        "repr": repr,
        "setting": lambda value: f"{value:g}" if isinstance(value, float) else without_paths(str(value)),
        "source": source_name,
    }
    return environment


def _front_matter(facts: CardFacts, exported: Exported) -> Any:
    from huggingface_hub import EvalResult, ModelCardData

    is_student = facts.part == "student"
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type="custom",
            dataset_name=evaluation.data,
            metric_type=name,
            metric_name=name.replace("_", " "),
            metric_value=round(value, 4),
        )
        for evaluation in facts.evaluations
        for name, value in evaluation.figures.items()
    ]
    of_scores = "text-classification" if exported.sequence_classifier else "token-classification"
    method = _METHODS.get(facts.run.stage)
    tags = ["gad", "generative-adversarial-distillation"] if method is None else [method.lower()]
    more: Mapping[str, Any] = {}
    if facts.base_model is not None:
        more = {"base_model_relation": "adapter" if exported.adapter else "finetune"}
    return ModelCardData(
        license=facts.request.license,
        base_model=facts.base_model,
        datasets=list(dict.fromkeys([*facts.request.datasets, *facts.data.hub])) or None,
        library_name="peft" if exported.adapter else "transformers",
        pipeline_tag="text-generation" if is_student else of_scores,
        tags=[*tags, "distillation", "verl", *(() if is_student else ("reward-model", "discriminator"))],
        eval_results=results or None,
        model_name=facts.title if results else None,
        **more,
    )
