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
"""Families of student and discriminator: their classes, the form of the discriminator, the attention that they take."""

import importlib.util
from typing import Any

from gad_verl.discriminator.form import attention_for, language_model_class
from gad_verl.preflight.attention_check import check_attention
from gad_verl.preflight.family_check import check_families, check_form, read_family, wanted_attention
from gad_verl.preflight.megatron_check import MEGATRON
from gad_verl.tools.doctor.finding import Finding, ok, warning


def student_family(config: Any) -> str | None:
    """Family, class and attention of the student; None where its path is no folder here."""
    student = config.actor_rollout_ref.model
    family = read_family("actor_rollout_ref.model", student)
    if family is None:
        return None
    named = f"{family.model_type}: {language_model_class(family).__name__}"
    if config.actor_rollout_ref.actor.strategy == MEGATRON:
        return f"{named}, by Megatron's layers"
    return f"{named}, attention {wanted_attention(student)}"


def discriminator_family(config: Any) -> str | None:
    """Family, form and attention of the discriminator; None where its path is no folder here.

    Raises:
        GadConfigError: If nothing can be made of the family.
    """
    model = config.discriminator.model
    family = read_family("discriminator.model", model)
    if family is None:
        return None
    if config.discriminator.strategy == MEGATRON:
        return (
            f"{family.model_type}: {language_model_class(family).__name__} with a scalar head in the place of its LM "
            "head, by Megatron's layers"
        )
    form = check_form(family, str(model.path))
    return f"{family.model_type}: {form}, attention {attention_for(form.model_class, wanted_attention(model))}"


def check_model_families(config: Any, has_discriminator: bool) -> list[Finding]:
    """What would be trained, and whether it can be.

    Raises:
        GadConfigError: As the check before a run.
    """
    check_families(config, has_discriminator)
    check_attention(config, has_discriminator)
    found = {"family of the student": student_family(config)}
    if has_discriminator:
        found["family of the discriminator"] = discriminator_family(config)
    return [*_packages(config), *(ok(name, text) for name, text in found.items() if text is not None)]


def _packages(config: Any) -> list[Finding]:
    """Of a machine without GPUs nothing can be said but that the package is not here either."""
    student = config.actor_rollout_ref
    wanted = wanted_attention(student.model)
    on_cpu = str(config.trainer.get("device", "cuda")) == "cpu" or student.actor.strategy == MEGATRON
    if on_cpu or wanted != "flash_attention_2" or importlib.util.find_spec("flash_attn") is not None:
        return []
    remedy = (
        "Where the nodes that train lack it too: ++actor_rollout_ref.model.override_config.attn_implementation=sdpa "
        "actor_rollout_ref.model.use_remove_padding=False"
    )
    return [warning("attention", f"{wanted} needs the package flash-attn, which is not installed here", remedy)]
