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
"""The settings of a run that a reader wants to know."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gad_verl.tools.export.card.run_facts import RunFacts, without_paths

_STAGES = (
    ("stages", "gad.stage"),
    ("epochs, warmup included", "trainer.total_epochs"),
    ("steps, warmup included", "trainer.total_training_steps"),
    ("prompts per step", "data.train_batch_size"),
    ("prompt / response, tokens", ("data.max_prompt_length", "data.max_response_length")),
)
_WARMUP = (
    ("warmup, epochs", "gad.warmup_epochs"),
    ("warmup, steps", "gad.warmup_steps"),
    ("first steps with the discriminator alone", "gad.discriminator_only_steps"),
)
_ADVERSARIAL = (
    ("student responses per prompt", "actor_rollout_ref.rollout.n"),
    ("sampling temperature", "actor_rollout_ref.rollout.temperature"),
    ("advantages", "algorithm.adv_estimator"),
    ("entropy coefficient", "actor_rollout_ref.actor.entropy_coeff"),
    ("discriminator's loss", "gad.discriminator_loss.kind"),
)
_KL = (
    ("KL loss, coefficient", "actor_rollout_ref.actor.kl_loss_coef"),
    ("KL loss, reference", "gad.kl_reference"),
)
_STUDENT = ("student", "actor_rollout_ref.actor", "actor_rollout_ref.model", "actor_lr")
_DISCRIMINATOR = ("discriminator", "discriminator", "discriminator.model", "discriminator_lr")
# A number of steps takes the place of a number of epochs.
_INSTEAD = {"trainer.total_epochs": "trainer.total_training_steps", "gad.warmup_epochs": "gad.warmup_steps"}


def settings_rows(run: RunFacts) -> list[tuple[str, str]]:
    """Name and value of the main settings; those that the run's configuration does not have or read are left out."""
    if not run.config:
        return []
    stage = run.get("gad.stage")
    chosen = list(_STAGES)
    if stage in ("auto", "warmup"):
        chosen += _WARMUP
    if stage != "seqkd":
        chosen += _ADVERSARIAL
        chosen += _KL if run.get("actor_rollout_ref.actor.use_kl_loss") else ()
    rows = [(title, _shown(run, key)) for title, key in chosen if run.get(_INSTEAD.get(str(key), "")) is None]
    for side, section, model, rate in (_STUDENT,) if stage == "seqkd" else (_STUDENT, _DISCRIMINATOR):
        rows += [
            (f"{side}: learning rate", _shown(run, f"{section}.optim.lr")),
            (f"{side}: learning rate, warmup", _shown(run, f"gad.warmup.{rate}")),
            (f"{side}: learning rate, adversarial stage", _shown(run, f"gad.adversarial.{rate}")),
            (f"{side}: gradient clip", _shown(run, f"{section}.optim.clip_grad")),
            (f"{side}: weight decay", _shown(run, f"{section}.optim.weight_decay")),
            (f"{side}: engine", _shown(run, f"{section}.strategy")),
        ]
        if (run.get(f"{model}.lora_rank") or 0) > 0:
            rows.append((f"{side}: LoRA rank / alpha", _shown(run, (f"{model}.lora_rank", f"{model}.lora_alpha"))))
    return [(title, value) for title, value in rows if value]


def _shown(run: RunFacts, keys: str | tuple[str, ...]) -> str:
    values = [run.get(key) for key in ([keys] if isinstance(keys, str) else keys)]
    if any(value is None for value in values):
        return ""
    return " / ".join(f"{value:g}" if isinstance(value, float) else str(without_paths(value)) for value in values)


def other_options(run: RunFacts) -> dict[str, Any]:
    """Keys of ``gad`` that the run set to something else than this version's default, by their dotted names."""
    section = run.get("gad")
    if not isinstance(section, Mapping):
        return {}
    from omegaconf import OmegaConf

    import gad_verl.config

    path = Path(gad_verl.config.__file__).parent / "gad" / "gad.yaml"
    defaults = _flat(OmegaConf.to_container(OmegaConf.load(path)), "gad")
    found = _flat(section, "gad")
    return {
        name: without_paths(value)
        for name, value in found.items()
        if not name.endswith("_target_") and (name not in defaults or defaults[name] != value)
    }


def _flat(section: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in section.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}.{name}")
        else:
            flat[f"{prefix}.{name}"] = value
    return flat
