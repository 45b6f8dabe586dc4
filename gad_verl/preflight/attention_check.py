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
"""Whether this machine's GPUs can compute the attention that is asked for: flash attention is a package of its own.

verl asks for ``flash_attention_2`` by default, and a worker without the package ends after Ray and all models are up.
"""

from omegaconf import DictConfig

from gad_verl.discriminator.form import attention_for, discriminator_form
from gad_verl.errors import GadConfigError
from gad_verl.preflight.family_check import read_family, wanted_attention
from gad_verl.preflight.megatron_check import MEGATRON

_FLASH, _FLASH_3 = "flash_attention_2", "flash_attention_3"
# Major number of the compute capability: Ampere.
_OLDEST = 8


def why_no_flash(attention: str | None) -> str | None:
    """Why a GPU of this machine cannot compute a flash attention; None where it can, or where there is no GPU."""
    import torch
    from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available, is_kernels_available

    if attention not in (_FLASH, _FLASH_3) or not torch.cuda.is_available():
        return None
    if torch.cuda.get_device_capability()[0] < _OLDEST:
        return f"{torch.cuda.get_device_name()} is older than the GPUs that it is written for (Ampere and later)"
    found = is_flash_attn_2_available() if attention == _FLASH else is_flash_attn_3_available()
    # Without the package transformers takes kernels from a hub, if it may.
    if found or is_kernels_available():
        return None
    return f"the package {'flash-attn' if attention == _FLASH else 'flash-attn-3'} is not installed"


def _check(key: str, attention: str | None) -> None:
    reason = why_no_flash(attention)
    if reason is not None:
        raise GadConfigError(
            f"{key}: the attention {attention} (verl's default is {_FLASH}) cannot be computed here: {reason}. Install "
            f"what is missing, or set ++{key}.override_config.attn_implementation=sdpa {key}.use_remove_padding=False"
        )


def check_attention(config: DictConfig, has_discriminator: bool) -> None:
    """Refuse an attention that a worker would fail to load.

    Raises:
        GadConfigError: Names the model, what is missing, and the attention to take instead.
    """
    if str(config.trainer.get("device", "cuda")) == "cpu":
        return
    key = "actor_rollout_ref.model"
    if config.actor_rollout_ref.actor.strategy != MEGATRON:
        # The engine takes the student's as it stands in the configuration.
        _check(key, wanted_attention(config.actor_rollout_ref.model))
    if has_discriminator and config.discriminator.strategy != MEGATRON:
        key, model = "discriminator.model", config.discriminator.model
        family = read_family(key, model)
        wanted = wanted_attention(model)
        _check(key, wanted if family is None else attention_for(discriminator_form(family).model_class, wanted))
    if config.algorithm.adv_estimator == "gae" and config.critic.strategy != MEGATRON:
        reason = why_no_flash(_FLASH)
        if reason is not None:
            raise GadConfigError(
                f"algorithm.adv_estimator=gae: verl loads its critic with {_FLASH}, whatever is configured, and "
                f"{reason}. Install it, or take algorithm.adv_estimator=grpo"
            )
