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
"""Whether the families of student and discriminator can be trained as configured; reads their config.json alone."""

import copy
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from gad_verl.discriminator.family_limits import (
    draws_experts,
    needs_bfloat16,
    why_no_adapter,
    why_not_packed,
)
from gad_verl.discriminator.form import (
    DiscriminatorForm,
    attention_for,
    discriminator_form,
    empty_discriminator,
    language_model_class,
    prepare_form,
)
from gad_verl.discriminator.model import lacks_key_value_heads
from gad_verl.errors import GadConfigError
from gad_verl.preflight.megatron_check import MEGATRON
from gad_verl.preflight.target_check import check_targets

_STUDENT, _DISCRIMINATOR = "actor_rollout_ref.model", "discriminator.model"
# verl's own default (verl/workers/config/model.py).
_VERL_ATTENTION = "flash_attention_2"
_KEY_VALUE_HEADS = "num_key_value_heads"


def read_family(key: str, model: DictConfig) -> Any | None:
    """transformers' configuration of a model that is a folder here; None where it is the name of a hub's.

    Raises:
        GadConfigError: If the folder has none that transformers knows.
    """
    from transformers import AutoConfig

    folder = Path(str(model.path)).expanduser()
    if not folder.is_dir():
        return None
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=model.get("trust_remote_code", False))
    except (OSError, ValueError, KeyError) as error:
        text = " ".join(str(error).split())[:300]
        raise GadConfigError(f"{key}.path={folder}: no configuration that transformers knows: {text}") from None


def _check_quantized(key: str, family: Any, model: DictConfig) -> None:
    """Quantized weights have no gradient, and a rollout that is built for them does not take those of the trainer."""
    quantization = getattr(family, "quantization_config", None)
    if not quantization:
        return
    method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization.quant_method
    raise GadConfigError(
        f"{key}.path={model.path}: its weights are quantized ({getattr(method, 'value', method)}), which cannot be "
        'trained. Write them in bfloat16 first, and name that folder (docs/models.md, section "Quantized weights")'
    )


def wanted_attention(model: DictConfig) -> str:
    """The attention that a section asks for."""
    return str((model.get("override_config", None) or {}).get("attn_implementation", _VERL_ATTENTION))


def check_families(config: DictConfig, has_discriminator: bool) -> None:
    """Refuse what would fail in a worker, or compute other scores.

    Raises:
        GadConfigError: Names the model, its family and the remedy.
    """
    if config.actor_rollout_ref.actor.strategy != MEGATRON:
        student = config.actor_rollout_ref.model
        family = read_family(_STUDENT, student)
        if family is not None:
            _check_quantized(_STUDENT, family, student)
            _check_student(family, student)
            _check_rollout(family, config)
            _check_packing(_STUDENT, family, student, wanted_attention(student))
            _check_adapter(
                "actor_rollout_ref.actor", _STUDENT, family, student, config.actor_rollout_ref.actor.strategy
            )
    if has_discriminator and config.discriminator.strategy != MEGATRON:
        model = config.discriminator.model
        family = read_family(_DISCRIMINATOR, model)
        if family is not None:
            _check_quantized(_DISCRIMINATOR, family, model)
            form = check_form(family, str(model.path))
            _check_override(family, model)
            attention = attention_for(form.model_class, wanted_attention(model))
            _check_packing(_DISCRIMINATOR, family, model, attention)
            _check_adapter("discriminator", _DISCRIMINATOR, family, model, config.discriminator.strategy)


def student_overrides(family: Any, wanted: str) -> dict[str, Any]:
    """What ``actor_rollout_ref.model.override_config`` has to say, so that verl's engine can train a family.

    Args:
        family: transformers' configuration of the student.
        wanted: ``attn_implementation`` that is asked for.
    """
    student_class = language_model_class(family)
    needed: dict[str, Any] = {"attn_implementation": attention_for(student_class, wanted)}
    if lacks_key_value_heads(family):
        # verl compares it with the number of ranks of a sequence alone, so any true number will do.
        needed[_KEY_VALUE_HEADS] = family.get_text_config().num_attention_heads
    architecture = (family.architectures or [student_class.__name__])[0]
    if "LMHeadModel" in architecture:
        # By this word verl knows a language model (verl/utils/model.py, get_hf_auto_model_class).
        needed["architectures"] = [architecture.replace("LMHeadModel", "ForCausalLM")]
    return needed


def _check_student(family: Any, model: DictConfig) -> None:
    wanted = wanted_attention(model)
    given = {"attn_implementation": wanted, **(model.get("override_config", None) or {})}
    lacking = {
        key: value
        for key, value in student_overrides(family, wanted).items()
        if given.get(key) != value and (key != _KEY_VALUE_HEADS or key not in given)
    }
    if lacking:
        remedy = " ".join(
            f"++{_STUDENT}.override_config.{key}=" + str(value).replace("'", "") for key, value in lacking.items()
        )
        raise GadConfigError(
            f"{_STUDENT}.path={model.path}: verl's engine does not train the family {family.model_type} with "
            f"{', '.join(f'{key}={given.get(key)}' for key in lacking)}. Set {remedy}"
        )


def _check_rollout(family: Any, config: DictConfig) -> None:
    rollout = config.actor_rollout_ref.rollout
    on_cpu = config.trainer.device == "cpu" and rollout.name == "vllm"
    if on_cpu and rollout.dtype != "bfloat16" and needs_bfloat16(family):
        raise GadConfigError(
            f"actor_rollout_ref.rollout.dtype={rollout.dtype}: on a CPU vLLM computes the family {family.model_type} "
            "in bfloat16 alone. Set actor_rollout_ref.rollout.dtype=bfloat16, or actor_rollout_ref.rollout.name=hf"
        )


def check_form(family: Any, path: str) -> DiscriminatorForm:
    """What a family becomes as a discriminator.

    Raises:
        GadConfigError: If nothing can be made of it; says what was tried.
    """
    if draws_experts(family):
        raise GadConfigError(
            f"{_DISCRIMINATOR}.path={path}: the family {family.model_type} draws its experts at random while it is "
            "trained, and its scores with them. Take a discriminator of another family"
        )
    form = discriminator_form(family)
    if not form.is_classifier:
        prepared = copy.deepcopy(family)
        prepare_form(prepared)
        try:
            empty_discriminator(prepared)
        except GadConfigError as error:
            raise GadConfigError(
                f"{_DISCRIMINATOR}.path={path}: the family {family.model_type} has no token classifier in "
                f"transformers, and {error}. Take a discriminator of another family"
            ) from None
    return form


def _check_override(family: Any, model: DictConfig) -> None:
    """What the student needs is the discriminator's, too, unless it has a section of its own."""
    given = (model.get("override_config", None) or {}).get(_KEY_VALUE_HEADS, None)
    own = getattr(family.get_text_config(), _KEY_VALUE_HEADS, None)
    if given is not None and own is not None and given != own:
        raise GadConfigError(
            f"{_DISCRIMINATOR}.override_config.{_KEY_VALUE_HEADS}={given}, but {model.path} has {own}: it is the "
            f"student's. Set {_DISCRIMINATOR}.override_config={{attn_implementation:{wanted_attention(model)}}}"
        )


def _check_packing(key: str, family: Any, model: DictConfig, attention: str | None) -> None:
    if not model.get("use_remove_padding", True):
        return
    reason = why_not_packed(family, attention)
    if reason is not None:
        raise GadConfigError(
            f"{key}.path={model.path}: rows of the family {family.model_type} cannot be packed: {reason}. Set "
            f"{key}.use_remove_padding=False"
        )


def _check_adapter(section: str, key: str, family: Any, model: DictConfig, strategy: str) -> None:
    if model.get("lora_rank", 0) <= 0:
        return
    reason = why_no_adapter(family, strategy, model.get("target_modules", "all-linear"))
    if reason is not None:
        raise GadConfigError(
            f"{key}.path={model.path}: LoRA on the family {family.model_type} with {section}.strategy={strategy}: "
            f"{reason}. Set {key}.target_modules to those of the attention, [q_proj,k_proj,v_proj,o_proj]"
            + (f", or {section}.strategy=fsdp2" if "fsdp2" in reason else "")
        )
    check_targets(key, family, model, is_discriminator=key == _DISCRIMINATOR)
