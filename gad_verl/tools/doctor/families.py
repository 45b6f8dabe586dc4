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


def check_model_families(config: Any, has_discriminator: bool) -> list[Finding]:
    """What would be trained, and whether it can be.

    Raises:
        GadConfigError: As the check before a run.
    """
    check_families(config, has_discriminator)
    check_attention(config, has_discriminator)
    found = _packages(config)
    student = config.actor_rollout_ref.model
    family = read_family("actor_rollout_ref.model", student)
    if family is not None and config.actor_rollout_ref.actor.strategy != MEGATRON:
        name = language_model_class(family).__name__
        found.append(ok("family of the student", f"{family.model_type}: {name}, attention {wanted_attention(student)}"))
    if has_discriminator and config.discriminator.strategy != MEGATRON:
        model = config.discriminator.model
        family = read_family("discriminator.model", model)
        if family is not None:
            form = check_form(family, str(model.path))
            attention = attention_for(form.model_class, wanted_attention(model))
            found.append(ok("family of the discriminator", f"{family.model_type}: {form}, attention {attention}"))
    return found


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
