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
"""verl's FSDP value-model engine with the discriminator's model: strict head, scores in float32."""

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
import torch.distributed.fsdp as torch_fsdp
from tensordict import TensorDict
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.modules.batchnorm import _BatchNorm
from verl.models.transformers.monkey_patch import apply_monkey_patch
from verl.utils import fsdp_utils
from verl.utils import tensordict_utils as tu
from verl.utils.fsdp_utils import get_init_weight_context_manager
from verl.utils.torch_dtypes import PrecisionType
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp import transformer_impl
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithValueHead

from gad_verl.discriminator.embedding_noise import EmbeddingNoise
from gad_verl.discriminator.form import set_attention
from gad_verl.discriminator.lora import add_adapter
from gad_verl.discriminator.loss import LossOptions
from gad_verl.discriminator.model import Float32Linear, load_discriminator, prepare_config
from gad_verl.discriminator.shared_images import SharedImages
from gad_verl.discriminator.shared_keys import KeyedGroups
from gad_verl.discriminator.shared_prompt import PackedGroups
from gad_verl.discriminator.sharing import choose_sharing

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

MODEL_TYPE = "gad_discriminator"

_PACKED = "gad_packed_groups"

_verl_apply_fsdp2 = transformer_impl.apply_fsdp2
_verl_select_targets = fsdp_utils._select_fsdp2_wrap_targets


@dataclass(frozen=True)
class DiscriminatorOptions:
    """What the engine has to know beyond verl's configuration. See the fields of the same names under ``gad``."""

    fresh_head: bool
    num_layers: int | None = None
    seed: int = 1
    share_prompt: str = "auto"
    loss: LossOptions = field(default_factory=LossOptions)


def _heads(module: nn.Module) -> list[nn.Module]:
    """The head; under LoRA the one that the checkpoint brought and the one that is trained."""
    return [child for child in module.modules() if isinstance(child, Float32Linear)]


def _apply_fsdp2_with_float32_head(module: nn.Module, fsdp_kwargs: dict[str, Any], config: Any) -> None:
    """Shard each head by itself, in float32, before verl shards the layers and the rest."""
    float32 = MixedPrecisionPolicy(param_dtype=torch.float32, reduce_dtype=torch.float32, output_dtype=torch.float32)
    for head in _heads(module):
        fully_shard(head, **{**fsdp_kwargs, "mp_policy": float32})
    with mock.patch.object(fsdp_utils, "_select_fsdp2_wrap_targets", _targets_without_head):
        _verl_apply_fsdp2(module, fsdp_kwargs, config)


def _targets_without_head(module: nn.Module, names: Any) -> list[nn.Module]:
    """What verl shards by itself; it takes a head that is named ``lm_head`` for one over the vocabulary."""
    return [part for part in _verl_select_targets(module, names) if not _heads(part)]


@EngineRegistry.register(model_type=MODEL_TYPE, backend=["fsdp", "fsdp2"], device=["cuda", "npu"])
class DiscriminatorEngine(FSDPEngineWithValueHead):
    """Differs from verl's value model in how the module is loaded and in the precision of its head.

    The worker sets ``options`` before it initializes the engine.
    """

    options: DiscriminatorOptions

    def _build_module(self) -> "PreTrainedModel":
        hf_config = self.model_config.hf_config
        prepare_config(hf_config, self.options.num_layers)
        set_attention(hf_config)
        dtype = PrecisionType.to_dtype(self.engine_config.model_dtype or torch.float32)
        init_context = get_init_weight_context_manager(
            use_meta_tensor=not hf_config.tie_word_embeddings, mesh=self.device_mesh
        )
        with init_context():
            module = load_discriminator(
                self.model_config.local_path,
                hf_config,
                dtype,
                # Under LoRA the head may come with the adapter.
                fresh_head=self.options.fresh_head or self.model_config.lora_adapter_path is not None,
                seed=self.options.seed,
            )
            apply_monkey_patch(
                model=module,
                use_remove_padding=self.use_remove_padding,
                ulysses_sp_size=self.ulysses_sequence_parallel_size,
                use_fused_kernels=False,
                fused_kernels_backend=None,
            )
            module.to(dtype)
            self._embedding_noise = EmbeddingNoise(self.options.loss.penalty_distance)
            if self.options.loss.penalty_coefficient > 0:
                module.get_input_embeddings().register_forward_hook(self._embedding_noise.hook)
            self._shared_images = SharedImages(module)
            self._sharing = choose_sharing(module, self.ulysses_sequence_parallel_size, self.options.share_prompt)
            if self.model_config.enable_gradient_checkpointing:
                module.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        return module

    def _build_lora_module(self, module: "PreTrainedModel") -> "PeftModel":
        """Adapters on the body, and a head that is trained with them; verl's own would leave the head out."""
        # Gradient checkpointing needs an input that requires a gradient, and the embedding is frozen.
        module.enable_input_require_grads()
        return add_adapter(module, self.model_config, self.options.fresh_head)

    def _build_fsdp_module(self, module: nn.Module) -> nn.Module:
        """Keep the head out of mixed precision: FSDP would hand it parameters rounded to bfloat16."""
        # FSDP1 excludes modules of these classes from mixed precision and wraps them by themselves.
        fsdp1_precision = functools.partial(
            torch_fsdp.MixedPrecision, _module_classes_to_ignore=(_BatchNorm, Float32Linear)
        )
        heads = _heads(module)
        with (
            mock.patch.object(torch_fsdp, "MixedPrecision", fsdp1_precision),
            mock.patch.object(transformer_impl, "apply_fsdp2", _apply_fsdp2_with_float32_head),
        ):
            wrapped = super()._build_fsdp_module(module)
        if self.engine_config.strategy == "fsdp":
            # A hook of FSDP1 on such a module would round its output to the precision of its input.
            for head in heads:
                head._forward_hooks.clear()
        return wrapped

    def prepare_model_inputs(self, micro_batch: TensorDict) -> tuple[dict[str, Any], dict[str, Any]]:
        """Whole groups are packed with their prompt in common where that is possible and cheaper."""
        packed = self._pack(micro_batch)
        if packed is None:
            model_inputs, output_args = super().prepare_model_inputs(micro_batch)
            self._embedding_noise.plan(micro_batch, model_inputs["input_ids"].shape)
            self._shared_images.plan(micro_batch, model_inputs)
            return model_inputs, output_args
        self._embedding_noise.clear()
        return packed.model_inputs(), {_PACKED: packed}

    def prepare_model_outputs(
        self, output: Any, output_args: dict[str, Any], micro_batch: TensorDict, logits_processor_func: Any
    ) -> dict[str, torch.Tensor]:
        packed = output_args.get(_PACKED)
        if packed is None or self._sharing is None:
            return super().prepare_model_outputs(output, output_args, micro_batch, logits_processor_func)
        self._sharing.check(packed)
        values = output.logits.squeeze(-1).flatten()[packed.token_index]
        return {"values": torch.nested.nested_tensor_from_jagged(values, micro_batch["input_ids"].offsets())}

    def _pack(self, micro_batch: TensorDict) -> PackedGroups | KeyedGroups | None:
        group_size = tu.get_non_tensor_data(micro_batch, "force_group_size", default=1)
        if self._sharing is None or group_size == 1 or "prompt_length" not in micro_batch.keys():
            return None
        prompts = micro_batch["prompt_length"][::group_size].tolist()
        rows = micro_batch["input_ids"].unbind()
        lengths = [[len(row) for row in rows[at : at + group_size]] for at in range(0, len(rows), group_size)]
        padded = not tu.get_non_tensor_data(micro_batch, "use_remove_padding", default=True)
        if not self._sharing.pays(lengths, prompts, padded):
            return None
        return self._sharing.pack(rows, prompts, group_size)
