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
"""Whether and how the groups of a discriminator share their prompts: by a mask, by keys, or not at all."""

import inspect
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from gad_verl.core.cost_model import CostModel
from gad_verl.discriminator.family_limits import memory_of
from gad_verl.discriminator.shared_keys import FLASH_NAMES, KeyedGroups, attend_with_keys, pack_keyed_groups
from gad_verl.discriminator.shared_prompt import PackedGroups, build_cost_model, pack_groups

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

ALWAYS, AUTO, NEVER = "always", "auto", "never"
_SDPA = "sdpa"
_ALL_POSITIONS, _WINDOW = "full_attention", "sliding_attention"


def _kinds_of_layers(module: "PreTrainedModel") -> set[str]:
    config = module.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    if not kinds and getattr(config, "sliding_window", None) is not None:
        kinds = {_WINDOW}
    return kinds or {_ALL_POSITIONS}


def why_apart(module: "PreTrainedModel", sequence_parallel_size: int) -> str | None:
    """Why a model would not compute the same values for groups behind one prompt; None where it does.

    Args:
        module: A discriminator.
        sequence_parallel_size: Ranks that share a sequence.
    """
    from transformers.modeling_flash_attention_utils import flash_attn_supports_top_left_mask

    config = module.config.get_text_config()
    attention = getattr(config, "_attn_implementation", None)
    kinds = _kinds_of_layers(module)
    if sequence_parallel_size != 1:
        return "ranks share each sequence (ulysses_sequence_parallel_size)"
    if attention != _SDPA and attention not in FLASH_NAMES:
        return f"its attention is {attention}, not {', '.join((_SDPA, *FLASH_NAMES))}"
    memory = memory_of(config)
    if memory is not None:
        return f"its layers of the kind {memory} would carry one response into the next"
    if hasattr(module.config, "vision_config"):
        return "its positions are those of texts with images"
    if "position_ids" not in inspect.signature(module.forward).parameters:
        return "it takes no positions"
    # Flash attention counts a window from the last key of a response; one mask for all layers has none.
    others = sorted(kinds - ({_ALL_POSITIONS} if attention == _SDPA else {_ALL_POSITIONS, _WINDOW}))
    if others:
        return f"it has layers of the kind {', '.join(others)}"
    if attention != _SDPA and not module._supports_attention_backend:
        return "it does not hand on to its attention what a response sees"
    if attention != _SDPA and flash_attn_supports_top_left_mask():
        return "the kernel of this device lets the first query see the first key (NPU_FA2_SPARSE_MODE=2)"
    return None


@dataclass(frozen=True)
class Sharing:
    """How groups share their prompts.

    Args:
        pack: Packs rows of groups.
        cost_model: Tells for each micro-batch whether it pays; None: always.
        layers: Of the model.
        family: Of the model.
    """

    pack: Callable[[Sequence[Tensor], Sequence[int], int], PackedGroups | KeyedGroups]
    cost_model: CostModel | None
    layers: int
    family: str

    def pays(self, lengths: Sequence[Sequence[int]], prompt_lengths: Sequence[int], padded: bool) -> bool:
        """Whether packed groups cost less; the arguments are those of ``CostModel.sharing_pays``."""
        return self.cost_model is None or self.cost_model.sharing_pays(lengths, prompt_lengths, padded)

    def check(self, packed: PackedGroups | KeyedGroups) -> None:
        """After a forward pass over packed groups.

        Raises:
            GadConfigError: If the model attended to something else.
        """
        if isinstance(packed, KeyedGroups):
            packed.keys.check(self.layers, self.family)


def choose_sharing(module: "PreTrainedModel", sequence_parallel_size: int, wanted: str) -> Sharing | None:
    """How the groups of a discriminator share their prompts; None: rows are read one by one.

    Args:
        module: The discriminator.
        sequence_parallel_size: Ranks that share a sequence.
        wanted: ``gad.discriminator_share_prompt``.
    """
    if wanted == NEVER:
        return None
    config = module.config.get_text_config()
    reason = why_apart(module, sequence_parallel_size)
    if reason is not None:
        if wanted == ALWAYS:
            logger.warning("gad.discriminator_share_prompt=always: rows are read one by one, because %s", reason)
        return None
    layers, family = config.num_hidden_layers, config.model_type
    if config._attn_implementation == _SDPA:
        cost_model = build_cost_model(module) if wanted == AUTO else None
        return Sharing(pack_groups, cost_model, layers, family)
    # "auto" promises to be no slower, and nobody has timed this on a GPU yet.
    if wanted == AUTO:
        return None
    attend_with_keys(config._attn_implementation)
    return Sharing(pack_keyed_groups, None, layers, family)
