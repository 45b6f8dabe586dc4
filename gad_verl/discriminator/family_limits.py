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
"""What some families cannot do. Most of it was measured with tiny models of each: docs/models.md.

Rows one after the other (``use_remove_padding``): attention keeps them apart by their positions. Layers with a memory
of their own (convolutions, linear attention, state spaces) do not, and neither do families that make a mask without the
positions.
"""

from typing import Any

_CHUNKS = "chunked_attention"
_ATTENTION = ("full_attention", "sliding_attention", _CHUNKS, "attention")
# Their configurations do not name the kinds of their layers.
_STATE_SPACES = ("mamba_", "ssm_")
_NOT_PACKED = ("bloom", "falcon", "opt")
# transformers gives the mask of these no positions; flash attention has them by another way, which was not tried.
_BY_FLASH_ALONE = ("gpt_oss",)
# Experts and routers are parameters that PEFT wraps, and FSDP1 takes them from their modules. Measured: docs/models.md.
_EXPERTS_BY_FSDP2 = (
    "deepseek_v2",
    "ernie4_5_moe",
    "hunyuan_v1_moe",
    "minimax_m2",
    "mixtral",
    "olmoe",
    "qwen3_moe",
    "qwen3_next",
)
# Their routers hold more than weights, and PEFT hides it.
_NO_EXPERTS = ("deepseek_v3", "glm4_moe")
# Two passes over the same rows give other scores.
_DRAWS_EXPERTS = ("phimoe",)
_LINEAR = "linear_attention"


def memory_of(config: Any) -> str | None:
    """Kinds of layers that carry what they read from token to token by other means than attention; None without."""
    text_config = config.get_text_config()
    kinds = {
        *(getattr(text_config, "layer_types", None) or ()),
        *(getattr(text_config, "layers_block_type", None) or ()),
    }
    others = sorted(kinds.difference(_ATTENTION))
    if not others and has_state_spaces(config):
        others = ["mamba"]
    return ", ".join(others) or None


def has_state_spaces(config: Any) -> bool:
    """Whether there are layers of Mamba's kind."""
    return any(name.startswith(_STATE_SPACES) for name in vars(config.get_text_config()))


def why_not_packed(config: Any, attention: str | None) -> str | None:
    """Why a family does not read packed rows; None where it does.

    Args:
        config: transformers' configuration of a model.
        attention: Its ``attn_implementation``.
    """
    memory = memory_of(config)
    if memory is not None:
        return f"its layers of the kind {memory} would carry one row into the next"
    text_config = config.get_text_config()
    if _CHUNKS in (getattr(text_config, "layer_types", None) or ()):
        return "the chunks of its attention would begin inside of rows"
    family = text_config.model_type
    if family in _NOT_PACKED or (family in _BY_FLASH_ALONE and "flash" not in str(attention)):
        return "transformers makes its mask without the positions that keep rows apart"
    return None


def why_no_adapter(config: Any, strategy: str, target_modules: Any) -> str | None:
    """Why a family cannot be trained with LoRA as asked; None where nothing is known against it.

    Args:
        config: transformers' configuration of the model.
        strategy: Of its engine, "fsdp" or "fsdp2".
        target_modules: verl's key.
    """
    family = config.get_text_config().model_type
    if strategy == "fsdp" and target_modules == "all-linear" and family in _EXPERTS_BY_FSDP2:
        return "adapters on its experts need fsdp2"
    if target_modules == "all-linear" and family in _NO_EXPERTS:
        return "no adapters can be put on its routers and experts"
    return None


def draws_experts(config: Any) -> bool:
    """Whether a family draws its experts at random while it is trained."""
    return config.get_text_config().model_type in _DRAWS_EXPERTS


def needs_bfloat16(config: Any) -> bool:
    """Whether vLLM's CPU build computes a family in bfloat16 alone: linear attention, and attention with sinks."""
    text_config = config.get_text_config()
    return _LINEAR in (getattr(text_config, "layer_types", None) or ()) or text_config.model_type in _BY_FLASH_ALONE
