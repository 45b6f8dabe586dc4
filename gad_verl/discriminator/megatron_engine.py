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
"""verl's Megatron value-model engine with the discriminator's model: strict head, scores in float32.

Importing this module needs Megatron-Core and Megatron-Bridge; the worker imports it for the strategy "megatron" only.
"""

import dataclasses
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from megatron.bridge.models.conversion.param_mapping import AutoMapping
from megatron.core import tensor_parallel
from tensordict import TensorDict
from torch import Tensor
from verl.models.mcore import bridge as verl_bridge
from verl.trainer.config import CheckpointConfig
from verl.workers.config import HFModelConfig, McoreEngineConfig, McoreOptimizerConfig
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.megatron.transformer_impl import MegatronEngineWithValueHead

from gad_verl.discriminator.conversion import (
    BIAS_KEY,
    ScalarHead,
    link_causal,
    prepare_causal_config,
    read_head,
)
from gad_verl.discriminator.engine import MODEL_TYPE, DiscriminatorOptions
from gad_verl.discriminator.model import fresh_head_weight, prepare_config
from gad_verl.errors import GadCheckpointError
from gad_verl.workers.stage import note_rates

_verl_make_value_model = verl_bridge.make_value_model


class Float32Head(verl_bridge.LinearForLastLayer):
    """Computes in float32 whatever the body's precision: scores in bfloat16 tie.

    Its weights have the body's precision; the float32 copy that is trained is the optimizer's. A float32 parameter in a
    bfloat16 model breaks the checkpoint of the distributed optimizer (megatron-core 0.18: it sorts the parameters of a
    group by their type and looks their state up in the old order).
    """

    def forward(
        self, input_: Tensor, weight: Tensor | None = None, runtime_gather_output: bool | None = None
    ) -> tuple[Tensor, None]:
        """Scores of every token; under sequence parallelism gathered from the ranks."""
        scores = F.linear(input_.float(), self.weight.float())
        if self.sequence_parallel:
            scores = tensor_parallel.gather_from_sequence_parallel_region(scores, tensor_parallel_output_grad=False)
        return scores, None


AutoMapping.register_module_type(Float32Head.__name__, "replicated")


def _make_float32_value_model(hidden_size: int, sequence_parallel: bool) -> Callable[[Any], Any]:
    """verl's hook that replaces the output layer, with the head above."""
    replace = _verl_make_value_model(hidden_size, sequence_parallel)

    def hook(model: Any) -> Any:
        replaced = replace(model)
        for chunk in model if isinstance(model, list) else [model]:
            head = getattr(chunk, "output_layer", None)
            if isinstance(head, verl_bridge.LinearForLastLayer):
                head.__class__ = Float32Head
        return replaced

    return hook


@EngineRegistry.register(model_type=MODEL_TYPE, backend="megatron", device=["cuda", "npu"])
class MegatronDiscriminatorEngine(MegatronEngineWithValueHead):
    """Differs from verl's value model in how the module is loaded and in the precision of its head.

    The worker sets ``options`` before it initializes the engine. The bridge reads a folder of links in which the
    discriminator has Megatron's form (:mod:`gad_verl.discriminator.conversion`), so it loads a language model with or
    without tied embeddings, and discriminators of both forms, strictly and in one way.
    """

    options: DiscriminatorOptions

    def __init__(
        self,
        model_config: HFModelConfig,
        engine_config: McoreEngineConfig,
        optimizer_config: McoreOptimizerConfig,
        checkpoint_config: CheckpointConfig,
    ) -> None:
        # A resumed run goes on with the rate of its stage, which is not that of the configuration.
        optimizer_config = dataclasses.replace(optimizer_config, use_checkpoint_opt_param_scheduler=True)
        super().__init__(model_config, engine_config, optimizer_config, checkpoint_config)
        # verl asks for this name to build a value model.
        model_config.model_type = "value_model"
        self._origin = model_config.local_path
        self._source: tempfile.TemporaryDirectory | None = None

    def initialize(self) -> None:
        """Build model, optimizer and schedule."""
        self._source = tempfile.TemporaryDirectory(prefix="gad_discriminator_")
        self._bias = self._link_source(self._source.name)
        self.model_config.local_path = self._source.name
        with mock.patch.object(verl_bridge, "make_value_model", _make_float32_value_model):
            super().initialize()
        note_rates(self)

    def _link_source(self, folder: str) -> float:
        """Fill the folder that the bridge reads and, for the names of the files, writes by. Returns the bias."""
        hf_config = self.model_config.hf_config
        prepare_config(hf_config, self.options.num_layers)
        head = read_head(self._origin)
        if self.options.fresh_head:
            head = ScalarHead(fresh_head_weight(hf_config, self.options.seed))
        if head is None:
            raise GadCheckpointError(
                f"{self._origin} has no scalar head. A discriminator that is loaded must bring its own; set "
                "gad.discriminator_head=fresh to begin with a new one"
            )
        prepare_causal_config(hf_config, head.bias)
        self.model_config.architectures = hf_config.architectures
        link_causal(self._origin, folder, hf_config, head)
        return head.bias

    def _build_megatron_module(self) -> Any:
        try:
            return super()._build_megatron_module()
        except KeyError as error:
            raise GadCheckpointError(f"{self._origin} lacks weights of the discriminator: {error}") from error

    def prepare_model_outputs(self, output: dict | Tensor, data: TensorDict) -> dict[str, Tensor]:
        """Scores with the bias that a head from FSDP may have."""
        values = super().prepare_model_outputs(output, data)["values"]
        return {"values": values + self._bias if self._bias else values}

    def optimizer_step(self) -> float:
        """Norm of the gradient; the step is left out where the norm is not finite, as on FSDP."""
        self.optimizer.prepare_grads()
        norm = self.optimizer.get_grad_norm()
        if norm is not None and not math.isfinite(norm):
            self.optimizer_zero_grad()
            return float(norm)
        return super().optimizer_step()

    def load_checkpoint(self, local_path: str, *args: Any, **kwargs: Any) -> None:
        """verl's, and the bias of the head."""
        # Megatron adds the position of the checkpoint to that of the schedule.
        self.lr_scheduler.num_steps = 0
        # The distributed optimizer copies into views of the parameters where these are in float32.
        with torch.no_grad():
            super().load_checkpoint(local_path, *args, **kwargs)
        self._load_bias(local_path)

    def _load_bias(self, local_path: str) -> None:
        # Missing where Megatron's own format was chosen (use_dist_checkpointing).
        folder = Path(local_path) / "model" / "huggingface"
        head = read_head(folder) if folder.is_dir() else None
        if head is not None:
            self._bias = head.bias
            setattr(self.model_config.hf_config, BIAS_KEY, head.bias)
