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
"""Loads a discriminator: a causal model's body with a scalar head in float32, no dropout, a strictly checked head."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gad_verl.errors import GadCheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

HEAD_NAMES = ("score", "classifier")


class Float32Linear(nn.Linear):
    """A linear head that computes in float32 whatever the body's precision: scores in bfloat16 tie.

    verl runs the whole forward under autocast (verl/workers/engine/fsdp/transformer_impl.py), so the head leaves it.
    """

    def forward(self, input: Tensor) -> Tensor:
        with torch.autocast(device_type=input.device.type, enabled=False):
            bias = None if self.bias is None else self.bias.float()
            return F.linear(input.float(), self.weight.float(), bias)

    @classmethod
    def from_linear(cls, linear: nn.Linear) -> "Float32Linear":
        """The same parameters under the same names."""
        head = cls(1, 1, bias=linear.bias is not None, device="meta")
        head.in_features, head.out_features = linear.in_features, linear.out_features
        head.weight, head.bias = linear.weight, linear.bias
        return head


def head_name(module: nn.Module) -> str:
    """Attribute of the scalar head.

    Raises:
        GadCheckpointError: If the architecture has none of the known names.
    """
    for name in HEAD_NAMES:
        if isinstance(getattr(module, name, None), nn.Linear):
            return name
    raise GadCheckpointError(f"{type(module).__name__} has no linear head named {' or '.join(HEAD_NAMES)}")


def prepare_config(hf_config: Any, num_layers: int | None) -> None:
    """One label, no dropout, optionally the first layers only. Changes ``hf_config``.

    Raises:
        GadCheckpointError: If the model has fewer layers than asked for.
    """
    hf_config.num_labels = 1
    for name in ("attention_dropout", "classifier_dropout", "hidden_dropout", "resid_pdrop", "summary_dropout_prob"):
        if name == "classifier_dropout" or getattr(hf_config, name, None) is not None:
            setattr(hf_config, name, 0.0)
    if num_layers is not None:
        if num_layers > hf_config.num_hidden_layers:
            raise GadCheckpointError(
                f"gad.discriminator_num_layers={num_layers}, but the model has {hf_config.num_hidden_layers} layers"
            )
        hf_config.num_hidden_layers = num_layers
        if getattr(hf_config, "layer_types", None):
            hf_config.layer_types = hf_config.layer_types[:num_layers]


def fresh_head_weight(hf_config: Any, seed: int) -> Tensor:
    """Weight (1, h) of a new head: the same numbers on every rank and for every engine.

    Args:
        hf_config: Of the model, whose ``initializer_range`` is the standard deviation.
        seed: ``gad.discriminator_seed``.
    """
    generator = torch.Generator(device="cpu").manual_seed(seed)
    std = getattr(hf_config, "initializer_range", 0.02)
    return torch.empty(1, hf_config.hidden_size).normal_(0.0, std, generator=generator)


def load_discriminator(
    local_path: str | Path,
    hf_config: Any,
    dtype: torch.dtype,
    fresh_head: bool,
    seed: int,
    trust_remote_code: bool = False,
) -> "PreTrainedModel":
    """Load a token classifier with one label.

    Args:
        local_path: Folder of a causal model (``fresh_head``) or of a discriminator.
        hf_config: Its configuration after :func:`prepare_config`.
        dtype: Precision of the parameters.
        fresh_head: Whether the head is new. Else the checkpoint must hold it.
        seed: Seed of a fresh head: the same on every rank and in every run.
        trust_remote_code: As in transformers.

    Raises:
        GadCheckpointError: If a weight is missing that should be there.
    """
    from transformers import AutoModelForTokenClassification

    try:
        module, info = AutoModelForTokenClassification.from_pretrained(
            pretrained_model_name_or_path=str(local_path),
            dtype=dtype,
            config=hf_config,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
        )
    except (RuntimeError, ValueError) as error:
        raise GadCheckpointError(f"{local_path} does not load as a discriminator: {error}") from error
    name = head_name(module)
    missing = sorted(key for key in info["missing_keys"] if not key.startswith(f"{name}."))
    if missing:
        raise GadCheckpointError(f"{local_path} lacks weights of the discriminator: {missing[:5]}")
    head_missing = f"{name}.weight" in info["missing_keys"]
    if head_missing and not fresh_head:
        raise GadCheckpointError(
            f"{local_path} has no scalar head ({name}.weight). A discriminator that is loaded must bring its own; set "
            "gad.discriminator_head=fresh to begin with a new one"
        )
    if fresh_head and not head_missing:
        logger.warning("%s brings a head; it is replaced (gad.discriminator_head=fresh)", local_path)
    head = Float32Linear.from_linear(getattr(module, name))
    if fresh_head and not head.weight.is_meta:
        with torch.no_grad():
            head.weight.copy_(fresh_head_weight(hf_config, seed))
            if head.bias is not None:
                head.bias.zero_()
    setattr(module, name, head)
    # verl saves this configuration with each checkpoint; it would still name the student's class.
    module.config.architectures = [type(module).__name__]
    for submodule in module.modules():
        if isinstance(submodule, nn.Dropout):
            submodule.p = 0.0
    return module
