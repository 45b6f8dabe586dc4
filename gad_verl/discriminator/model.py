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
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from gad_verl.discriminator.form import HEAD_NAMES, DiscriminatorForm, discriminator_form, prepare_form
from gad_verl.errors import GadCheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)


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


def _is_dropout(name: str, value: Any) -> bool:
    """Whether an attribute is the rate of a dropout; noise on a router or its input is one, too."""
    named = "dropout" in name or name.endswith(("pdrop", "layerdrop", "jitter_noise"))
    return named and isinstance(value, int | float) and not isinstance(value, bool)


def _config_parts(hf_config: Any) -> Iterator[Any]:
    """A configuration and those that it holds."""
    from transformers import PreTrainedConfig

    yield hf_config
    for value in list(vars(hf_config).values()):
        if isinstance(value, PreTrainedConfig):
            yield from _config_parts(value)


def _cut_layers(text_config: Any, num_layers: int) -> None:
    """Keep the first layers; whatever says something of each layer is cut with them."""
    whole = text_config.num_hidden_layers
    if num_layers > whole:
        raise GadCheckpointError(f"gad.discriminator_num_layers={num_layers}, but the model has {whole} layers")
    if getattr(text_config, "hidden_size_per_layer_input", 0):
        raise GadCheckpointError(
            f"gad.discriminator_num_layers={num_layers}: the family {text_config.model_type} keeps one table of "
            "embeddings for all layers, which cannot be cut"
        )
    for name, value in list(vars(text_config).items()):
        # layer_types, no_rope_layers, mlp_layer_types; other lists may be as long by chance.
        if isinstance(value, list) and len(value) == whole and "layer" in name:
            setattr(text_config, name, value[:num_layers])
    text_config.num_hidden_layers = num_layers


def lacks_key_value_heads(hf_config: Any) -> bool:
    """Whether a configuration lacks what verl's engines read of every model (GPT-2, GPT-NeoX, Falcon, Bloom).

    It is compared with the number of ranks of a sequence alone (verl/models/transformers/monkey_patch.py).
    """
    text_config = hf_config.get_text_config()
    return hasattr(text_config, "num_attention_heads") and not hasattr(text_config, "num_key_value_heads")


def prepare_config(hf_config: Any, num_layers: int | None) -> None:
    """One label, no dropout, optionally the first layers only. Changes ``hf_config``.

    Raises:
        GadCheckpointError: If the model has fewer layers than asked for.
        GadConfigError: If no discriminator can be made of the family.
    """
    prepare_form(hf_config)
    for part in _config_parts(hf_config):
        # Token classifiers take another dropout where this one is not given.
        part.classifier_dropout = 0.0
        for name, value in list(vars(part).items()):
            if _is_dropout(name, value):
                setattr(part, name, 0.0)
    text_config = hf_config.get_text_config()
    if lacks_key_value_heads(hf_config):
        text_config.num_key_value_heads = text_config.num_attention_heads
    if num_layers is not None:
        _cut_layers(text_config, num_layers)


def switch_off_dropout(module: nn.Module) -> None:
    """No dropout anywhere: modules of torch, and rates that a module of the model keeps as a number."""
    for submodule in module.modules():
        if isinstance(submodule, _DropoutNd):
            submodule.p = 0.0
        for name, value in list(vars(submodule).items()):
            if _is_dropout(name, value):
                setattr(submodule, name, 0.0)


def fresh_head_weight(hf_config: Any, seed: int, width: int | None = None) -> Tensor:
    """Weight (1, h) of a new head: the same numbers on every rank and for every engine.

    Args:
        hf_config: Of the model, whose ``initializer_range`` is the standard deviation.
        seed: ``gad.discriminator_seed``.
        width: h; None takes the width of the residual stream.
    """
    text_config = hf_config.get_text_config()
    generator = torch.Generator(device="cpu").manual_seed(seed)
    std = getattr(text_config, "initializer_range", 0.02)
    return torch.empty(1, width or text_config.hidden_size).normal_(0.0, std, generator=generator)


def _read(
    form: DiscriminatorForm, local_path: str | Path, hf_config: Any, dtype: torch.dtype
) -> "tuple[PreTrainedModel, set[str]]":
    """The module and the weights that the folder lacks."""
    try:
        module, info = form.loadable_class.from_pretrained(
            str(local_path),
            dtype=dtype,
            config=hf_config,
            output_loading_info=True,
            # A head over the vocabulary is none of a discriminator; whatever else has another size is named below.
            ignore_mismatched_sizes=True,
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise GadCheckpointError(f"{local_path} does not load as a discriminator: {error}") from error
    module.__class__ = form.model_class
    return module, set(info["missing_keys"]) | {key[0] for key in info["mismatched_keys"]}


def load_discriminator(
    local_path: str | Path,
    hf_config: Any,
    dtype: torch.dtype,
    fresh_head: bool,
    seed: int,
) -> "PreTrainedModel":
    """Load a discriminator in the form of its family (:mod:`gad_verl.discriminator.form`).

    Args:
        local_path: Folder of a causal model (``fresh_head``) or of a discriminator.
        hf_config: Its configuration after :func:`prepare_config`.
        dtype: Precision of the parameters.
        fresh_head: Whether the head is new. Else the checkpoint must hold it.
        seed: Seed of a fresh head: the same on every rank and in every run.

    Raises:
        GadCheckpointError: If a weight is missing that should be there.
        GadConfigError: If no discriminator can be made of the family.
    """
    form = discriminator_form(hf_config)
    module, absent = _read(form, local_path, hf_config, dtype)
    name = head_name(module)
    missing = sorted(key for key in absent if not key.startswith(f"{name}."))
    if missing:
        raise GadCheckpointError(
            f"{local_path} lacks weights of the discriminator, or has them in another size: {missing[:5]}"
        )
    head_missing = f"{name}.weight" in absent
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
            head.weight.copy_(fresh_head_weight(hf_config, seed, head.in_features))
            if head.bias is not None:
                head.bias.zero_()
    setattr(module, name, head)
    # verl saves this configuration with each checkpoint; it would still name the student's class.
    module.config.architectures = [type(module).__name__]
    switch_off_dropout(module)
    return module
